"""What counts of a network's output, its rows, and the way back."""

import pytest
import torch
from torch import nn
from torch.utils import _pytree as pytree

from structure.outputs_of import KINDS, Headed, Returns, built, pictures
from whyprune.data.batches import Batch
from whyprune.errors import InputError
from whyprune.structure.network import Network
from whyprune.structure.replay import Replay
from whyprune.structure.trace import trace
from whyprune.structure.verify import verify


@pytest.mark.parametrize("kind", KINDS)
def test_rows_hold_every_image_on_its_own_and_go_back_to_what_the_model_returns(kind):
    network = trace(built(Returns(kind)), pictures(2))
    layout = network.outputs.for_all()
    whole = Network(**{**{f: getattr(network, f) for f in Network.__dataclass_fields__}, "outputs": layout})
    x = pictures(5)
    rows = Replay(whole).logits(Batch((x,), {}))
    assert rows.shape == (5, layout.columns)
    one_by_one = torch.cat([Replay(whole).logits(Batch((x[k : k + 1],), {})) for k in range(5)])
    torch.testing.assert_close(rows, one_by_one)
    found, expected = layout.raw(rows), network.model(x)
    assert type(found) is type(expected)
    for mine, truth in zip(pytree.tree_leaves(found), pytree.tree_leaves(expected), strict=True):
        torch.testing.assert_close(mine, truth) if isinstance(truth, torch.Tensor) else None
        assert isinstance(truth, torch.Tensor) or mine == truth
    torch.testing.assert_close(layout.rows_of(expected), rows)


@pytest.mark.parametrize(
    ("kind", "counting"),
    [
        ("map", ["output"]),
        ("tuple", ["0", "1"]),
        ("named tuple", ["map", "scores"]),
        ("dict", ["map", "scores"]),
        ("dataclass", ["map", "scores"]),
        ("nested", ["boxes.0", "boxes.1.0"]),
        ("complex", ["output"]),
    ],
)
def test_all_real_tensors_that_hold_images_count(kind, counting):
    layout = trace(built(Returns(kind)), pictures(2)).outputs
    assert [t.name for t in layout.counting] == counting
    reasons = {t.name: t.because for t in layout.tensors if not t.counts}
    if kind == "nested":
        assert "int64" in reasons["boxes.1.1"]
        assert "does not hold the images" in reasons["anchors"]
        assert "'anchors' (3,)" in layout.notes()[0]


def test_where_there_are_logits_only_they_count_and_units_of_other_heads_are_kept():
    network = trace(built(Headed(wrap=lambda a, b: {"logits": a, "other": b})), pictures(2))
    assert network.outputs.is_logits
    assert {g.name for g in network.groups} == {"stem", "left"}
    kept = next(r for r in network.refusals if r.where == "right")
    assert kept.channels == 5
    assert "'other'" in kept.reason
    assert "Not counted: 'other' (B, 3)" in network.outputs.notes()[0]
    verify(network, network.model, [])


def test_what_counts_is_chosen_by_name_or_number():
    model = built(Headed(wrap=lambda a, b: {"logits": a, "other": b}))
    assert {g.name for g in trace(model, pictures(2), outputs=["logits", "other"]).groups} == {"stem", "left", "right"}
    for chosen in ("other", 1, [1]):
        network = trace(model, pictures(2), outputs=chosen)
        assert {g.name for g in network.groups} == {"stem", "right"}
        assert network.outputs.asked


@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        ("boxes", "no output is named 'boxes': the network returns 'boxes.0', 'boxes.1.0', 'boxes.1.1', 'anchors'"),
        (9, "no output is named 9"),
        ("anchors", "'anchors' cannot count: it does not hold the images"),
        ("boxes.1.1", "cannot count: it holds int64"),
        ([], "outputs names nothing"),
    ],
)
def test_what_cannot_count_is_refused(outputs, message):
    with pytest.raises(InputError, match=message):
        trace(built(Returns("nested")), pictures(2), outputs=outputs)


class Passing(nn.Module):
    """Returns its input, and the same tensor twice."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(2, 5, 3), nn.Conv2d(5, 3, 3)

    def forward(self, x):
        y = self.second(self.first(x).relu())
        return {"image": x, "map": y, "again": y}


def test_what_no_weight_acts_on_and_what_comes_twice_does_not_count():
    layout = trace(built(Passing()), pictures(2)).outputs
    assert [t.name for t in layout.counting] == ["map"]
    assert [t.because for t in layout.tensors] == ["no weight acts on it", "", "it is 'map' again"]


def test_a_network_that_reaches_no_output_that_counts_keeps_nothing_silently():
    class Only(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Conv2d(2, 5, 3), nn.Conv2d(5, 3, 3)

        def forward(self, x):
            return self.second(self.first(x).relu()).argmax(1)

    network = trace(built(Only()), pictures(2))
    with pytest.raises(InputError, match="no numbers per image"):
        Replay(network).logits(network.example)
