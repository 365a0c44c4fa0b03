"""Other sizes than the example's run where the traced operations hold, and are refused in words where they do not."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import whyprune as wp
from whyprune.data import Batch
from whyprune.data.batches import BY_BATCH
from whyprune.errors import InputError
from whyprune.structure.entry import entered
from whyprune.structure.replay import Replay


def convolutions(head=None):
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 6, 3, padding=1), nn.ReLU()]
    return nn.Sequential(*layers, *(head or [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4)])).eval()


def images(*sizes, count=5):
    return [torch.randn(count, 3, h, w, generator=torch.Generator().manual_seed(h)) for h, w in sizes]


class Words(nn.Module):
    """Sequences of any length: nothing in it depends on a position."""

    def __init__(self, positions=False):
        super().__init__()
        torch.manual_seed(0)
        self.embed, self.inner, self.head = nn.Embedding(20, 8), nn.Linear(8, 12), nn.Linear(12, 3)
        self.places = nn.Parameter(torch.randn(16, 8)) if positions else None

    def forward(self, ids):
        x = self.embed(ids)
        if self.places is not None:
            x = x + self.places[: ids.shape[1]]
        return self.head(F.relu(self.inner(x)).mean(1))


NETWORK = wp.trace(convolutions(), images((12, 12))[0][:2])


def test_at_every_size_the_operations_give_what_the_model_gives():
    data = images((12, 12), (9, 14), (16, 10)) + images((11, 11), count=1)
    replay = Replay(NETWORK)
    for batch in entered(data, NETWORK):
        assert torch.allclose(replay.logits(batch), batch.call(NETWORK.model), atol=1e-5)


def test_a_size_is_tried_once_and_other_sizes_are_said_once():
    calls = []
    handle = NETWORK.model.register_forward_hook(lambda *_: calls.append(1))
    try:
        found = entered(images((13, 13), (13, 13), (12, 12), (13, 13)), NETWORK, "the test data")
        assert len(list(found)) == 4
    finally:
        handle.remove()
    assert len(calls) == 1
    said = "The test data holds inputs of other sizes than the example inputs"
    assert found.notes == [f"{said}: all costs are counted at the example's size."]


@pytest.mark.parametrize("method", BY_BATCH)
def test_the_methods_that_are_named_for_several_sizes_work_on_them(method):
    torch.manual_seed(0)
    data = images((10, 10), (12, 12), (14, 11), (12, 12), count=8) + images((9, 9), count=1)
    settings = wp.Settings(refute=False, latency=False)
    budget, example = wp.Budget(macs=0.7), data[1][:2]
    found = wp.prune(
        convolutions(), data, budget=budget, example_inputs=example, method=method, settings=settings, progress=False
    )
    assert found.measurements.pruned.macs <= 0.7 * found.measurements.dense.macs
    assert any("other sizes" in note for note in found.measurements.notes)


@pytest.mark.parametrize("method", ["adaptive", "shapley", "concepts"])
def test_a_method_that_joins_all_images_says_which_do_not(method):
    with pytest.raises(InputError, match=r"several sizes \(\(3, 10, 10\), \(3, 12, 12\)\).*batch by batch: causal"):
        wp.estimate(NETWORK, images((10, 10), (12, 12)), method=method)


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ((4, 1, 12, 12), [r"\(B, 1, 12, 12\).*traced with \(B, 3, 12, 12\)", "3 channels, such as images.expand"]),
        ((4, 12, 12, 3), [r"images.permute\(0, 3, 1, 2\)"]),
    ],
)
def test_another_number_of_channels_is_refused(shape, words):
    for word in words:
        with pytest.raises(InputError, match=word):
            list(entered([torch.randn(*shape)], NETWORK))


def test_images_of_a_size_that_the_code_fixes_are_to_be_resized():
    network = wp.trace(convolutions([nn.Flatten(), nn.Linear(6 * 144, 4)]), images((12, 12))[0][:2])
    with pytest.raises(InputError, match=r"does not run on it.*resize or pad all images to 12 x 12"):
        list(entered(images((14, 14)), network))


def test_sequences_of_any_length_run_and_those_of_a_fixed_one_are_to_be_padded():
    ids = torch.randint(0, 20, (4, 12))
    free, fixed = (wp.trace(Words(positions).eval(), ids) for positions in (False, True))
    other = torch.randint(0, 20, (4, 9))
    assert [b.args[0].shape for b in entered([ids, other], free)] == [(4, 12), (4, 9)]
    with pytest.raises(InputError, match=r"hold for the traced size only.*length 12: pad all batches to it"):
        list(entered([other], fixed))
    # a measurement that only runs models goes on where the models run
    assert len(list(entered([other], fixed, replayed=False))) == 1


def test_operations_that_freeze_a_size_without_failing_are_found():
    class Mean(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = convolutions([nn.Identity()])
            self.head = nn.Linear(6, 4)

        def forward(self, x):
            return self.head(self.body(x).sum((2, 3)) / x.shape[2])  # the trace holds the number of rows

    network = wp.trace(Mean().eval(), images((12, 12))[0][:2])
    with pytest.raises(InputError, match="give something else there than the model's own code"):
        list(entered(images((24, 24)), network))


def test_every_door_refuses_the_same_batch():
    grey = [torch.randn(8, 1, 12, 12)]
    pruned = wp.remove(wp.State.of(NETWORK), [NETWORK.units[0]])
    _many, _asked = images((12, 12), count=16), {"budget": wp.Budget(macs=0.5), "example_inputs": NETWORK.example}
    doors = [
        lambda: wp.estimate(NETWORK, grey, method="exact"),
        lambda: wp.estimate(NETWORK, grey, method="curves"),
        lambda: wp.repair(pruned, grey),
        lambda: wp.verify(pruned, grey),
        lambda: wp.joint_effect(pruned, grey),
        lambda: wp.prune(NETWORK.model, grey, budget=wp.Budget(macs=0.5), example_inputs=NETWORK.example),
        lambda: wp.prune(
            NETWORK.model,
            images((12, 12), count=16),
            budget=wp.Budget(macs=0.5),
            example_inputs=NETWORK.example,
            test=grey,
        ),
    ]
    for door in doors:
        with pytest.raises(InputError, match=r"\(B, 1, 12, 12\) float32, and the model was traced with"):
            door()


@pytest.mark.parametrize("nested", [False, True])
def test_nested_inputs_prune_as_plain_ones(nested):
    class Nested(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = convolutions()

        def forward(self, inputs):
            return self.body(inputs["views"][0]) if nested else self.body(inputs)

    raw = [({"views": [x]},) if nested else x for x in images((12, 12), (12, 12), count=16)]
    example = ({"views": [images((12, 12))[0][:2]]},) if nested else images((12, 12))[0][:2]
    settings = wp.Settings(refute=False, latency=False)
    found = wp.prune(
        Nested().eval(), raw, budget=wp.Budget(macs=0.6), example_inputs=example, settings=settings, progress=False
    )
    plain = wp.prune(
        convolutions(),
        images((12, 12), (12, 12), count=16),
        budget=wp.Budget(macs=0.6),
        example_inputs=images((12, 12))[0][:2],
        settings=settings,
        progress=False,
    )
    assert list(found.plan.units) == [f"body.{name}" for name in plain.plan.units]
    assert isinstance(found.network.example, Batch)
