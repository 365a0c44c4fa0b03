"""Widening: copies leave the function as it was, on every axis; the result is the network built with those widths."""

import pytest
import torch
import torch.nn.functional as F
from networks import CASES, traced
from torch import Tensor, nn

from whyprune import Budget, allocate, load, remove, trace, widen
from whyprune.criteria import random_scores
from whyprune.data.outputs import tensors_of
from whyprune.errors import FormatError, InputError
from whyprune.structure.file import save_plan, save_weights
from whyprune.structure.plan import Plan
from whyprune.structure.state import State
from whyprune.structure.widen import check_widening, widenable, widened
from whyprune.structure.widening import WidenedAxis, Widening, replay_widening

COPIED = (
    *("flatten", "pad shortcut", "pad shared", "concat", "grouped", "depth multiplier", "functional depthwise"),
    *("shared conv", "tied", "recomputed", "operation: shuffle"),
)
TRACED = ("pad shortcut", "operation: shuffle")


def called(model: nn.Module, name: str) -> list[Tensor]:
    inputs = CASES[name].inputs()
    with torch.no_grad():
        return tensors_of(model(*inputs) if isinstance(inputs, tuple) else model(inputs))


@pytest.mark.parametrize("name", COPIED)
def test_copies_leave_the_function_as_it_was(name):
    network = traced(name)
    more = {group.name: 1 + k + len(group.units) // 2 for k, group in enumerate(network.groups)}
    wider = widen(network, more)
    for found, expected in zip(called(wider, name), called(network.model, name), strict=True):
        assert found == pytest.approx(expected, abs=2e-5 * float(expected.abs().max()))
    if name in TRACED:
        widths = {group.name: len(group.units) for group in trace(wider, CASES[name].inputs()).groups}
        assert widths == {group.name: len(group.units) + more[group.name] for group in network.groups}


class Sized(nn.Module):
    """(B, 3, 6, 6) to logits: a stream of `stream` channels beside `inner`, `late` behind a concatenation, normed."""

    def __init__(self, stream: int, inner: int, late: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, stream, 3, padding=1, bias=False), nn.BatchNorm2d(stream))
        self.inner = nn.Conv2d(stream, inner, 3, padding=1)
        self.back = nn.Conv2d(inner, stream, 1)
        self.each = nn.Conv2d(stream, stream, 3, padding=1, groups=stream)
        self.late = nn.Conv2d(stream + inner, late, 1)
        self.norm = nn.LayerNorm(late)
        self.head = nn.Linear(late * 36, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        between = F.relu(self.inner(x))
        x = F.relu(self.each(x + self.back(between)))
        x = self.late(torch.cat([between, x], dim=1)).permute(0, 2, 3, 1)
        return self.head(F.gelu(self.norm(x)).flatten(1))


def sized(*widths: int) -> nn.Module:
    torch.manual_seed(0)
    return Sized(*widths).eval()


@pytest.fixture(scope="module")
def network():
    return trace(sized(4, 5, 6), torch.zeros(2, 3, 6, 6))


MORE = {"stem.0": 3, "inner": 2, "late": 1}


def test_the_result_is_the_network_built_with_those_widths(network):
    wider, built = widen(network, MORE, fresh=True), sized(7, 7, 7)
    assert type(wider) is Sized
    assert {n: t.shape for n, t in wider.state_dict().items()} == {n: t.shape for n, t in built.state_dict().items()}
    for path, module in wider.named_modules():
        same = built.get_submodule(path)
        assert module.extra_repr() == same.extra_repr()
    inputs = torch.randn(2, 3, 6, 6)
    assert trace(wider, inputs).cost() == trace(built, inputs).cost()
    built.load_state_dict(wider.state_dict())
    assert torch.equal(built(inputs), wider(inputs))


def test_statistics_over_channels_bear_equal_copies_only(network):
    with pytest.raises(InputError, match=r"the group 'late' cannot be widened: statistics run over .*fresh=True"):
        widen(network, {"late": 1})
    inputs = torch.randn(2, 3, 6, 6)
    torch.testing.assert_close(widen(network, {"late": 6})(inputs), network.model(inputs), rtol=0, atol=1e-5)
    assert "statistics run over its channels" in widenable(network)["late"]
    assert widenable(network, fresh=True) == {"stem.0": "", "inner": "", "late": ""}


def test_copies_learn_differently(network):
    wider = widen(network, {"inner": 5})
    F.cross_entropy(wider(torch.randn(8, 3, 6, 6)), torch.arange(8) % 4).backward()
    gradient = wider.inner.weight.grad.flatten(1)
    assert torch.equal(wider.inner.weight[0], wider.inner.weight[1])  # a unit and its copy
    assert float((gradient[0] - gradient[1]).norm() / gradient[0].norm()) > 1e-2


def test_fresh_weights_are_drawn_like_the_others(network):
    torch.manual_seed(3)
    wide = trace(Sized(40, 50, 60).eval(), torch.zeros(2, 3, 6, 6))
    wider = widen(wide, {"stem.0": 20, "inner": 30}, fresh=True, seed=1)
    assert torch.equal(wider.stem[1].weight, torch.ones(60))
    before, after = wide.model.inner.weight.detach(), wider.inner.weight.detach()  # 50 of 40 channels, 80 of 60
    assert float(after.var() / before.var()) == pytest.approx(40 / 60, rel=0.05)
    flat = after.flatten(1)
    assert len(torch.unique(flat, dim=0)) == len(flat)
    same, other = (widen(wide, {"stem.0": 20, "inner": 30}, fresh=True, seed=s) for s in (1, 2))
    assert torch.equal(same.inner.weight, after)
    assert not torch.equal(other.inner.weight, after)


class Mirrored(nn.Module):
    """A decoder that is the encoder, transposed, behind a scale that starts at zero: copies would be counted twice."""

    def __init__(self) -> None:
        super().__init__()
        self.before, self.head = nn.Linear(5, 6), nn.Linear(6, 3)
        self.weight, self.scale = nn.Parameter(torch.randn(6, 6)), nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.relu(F.linear(torch.relu(self.before(x)), self.weight))
        return self.head(self.scale * F.linear(hidden, self.weight.t()))


@pytest.mark.parametrize("seed", range(8))
def test_what_copies_do_is_seen_though_units_may_be_dead_on_one_input(seed):
    torch.manual_seed(seed)
    network = trace(Mirrored().eval(), torch.randn(2, 5))
    for group in network.groups:
        with pytest.raises(InputError, match="cannot be widened"):
            widen(network, {group.name: 1}, fresh=True, seed=seed)


def test_what_cannot_be_widened_is_refused_with_the_reason():
    for network in (traced("operation: softmax"), trace(Mirrored().eval(), torch.randn(2, 5))):
        reasons = {name: reason for name, reason in widenable(network, fresh=True).items() if reason}
        assert reasons
        for name, reason in reasons.items():
            assert "its outputs would differ" in reason
            with pytest.raises(InputError, match=f"the group '{name}' cannot be widened: .*; leave it out"):
                widen(network, {name: 1}, fresh=True)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"nowhere": 1}, "no group named 'nowhere': the groups are"),
        ({"inner": -1}, r"more\['inner'\]=-1: give a whole number"),
        ({"inner": 1.5}, "give a whole number"),
        ({"inner": True}, "give a whole number"),
        ({}, "widens nothing"),
        ({"inner": 0}, "widens nothing"),
        (["inner"], "give a mapping of groups to units"),
    ],
)
def test_what_is_no_widening_is_refused(network, more, message):
    with pytest.raises(InputError, match=message):
        widen(network, more)


def test_a_state_that_lacks_units_is_refused(network):
    state = remove(State.of(network), [network.units[0]])
    with pytest.raises(InputError, match="1 units are removed already: widen the network before"):
        widen(state, {"inner": 1})


@pytest.fixture(scope="module")
def cropped(network):
    """A plan that crops a widened network, with the widening, and the pruned module."""
    found = widened(network, MORE, fresh=True)
    wide = trace(found.model, network.example.args[0])
    plan = allocate(wide, random_scores(wide), Budget(macs=0.6)).model_copy(update={"widening": found.widening})
    return plan, remove(wide, plan.units)


def test_a_plan_widens_a_fresh_instance_and_then_crops_it(network, cropped, tmp_path):
    plan, pruned = cropped
    save_plan(plan, tmp_path)
    save_weights(pruned, tmp_path)
    loaded = load(sized(4, 5, 6), tmp_path, example_inputs=network.example.args[0])
    inputs = torch.randn(2, 3, 6, 6)
    assert torch.equal(loaded(inputs), pruned(inputs))
    with pytest.raises(FormatError, match="the plan widens another model"):
        load(sized(4, 5, 8), tmp_path)


def changed(widening: Widening, **values: object) -> Widening:
    return Widening.model_validate(widening.model_dump() | values)


@pytest.mark.parametrize(
    ("order", "message"),
    [
        ((0, 1, 2, 3, 4, 9), "do not hold every index"),
        ((0, 1, 2, 3, 3, 3), "do not hold every index"),
        ((0, 1, 2, 3, 4), "do not hold every index"),
        (tuple(k % 5 for k in range(25)), "in at most 4 times the size"),
        ((0, 1, 2, 3, 4, 4, 4), "to parts that do not fit"),
    ],
)
def test_records_that_are_no_widening_are_refused(network, order, message):
    widening = widened(network, {"stem.0": 3}, fresh=True).widening
    hostile = changed(widening, axes=(*widening.axes, WidenedAxis(parameter="inner.bias", axis=0, order=order)))
    with pytest.raises(FormatError, match=message):
        replay_widening(network.model, hostile)


def test_a_record_of_parts_of_units_is_told_by_a_trace(network):
    widening = widened(network, {"inner": 5}, fresh=True).widening
    check_widening(network, widening)
    for other in (
        changed(widening, groups={"inner": 4}),
        changed(widening, attributes=()) if widening.attributes else changed(widening, axes=widening.axes[1:]),
    ):
        with pytest.raises(FormatError):
            check_widening(network, other)


def test_a_plan_without_a_widening_reads_as_before(network):
    plan = allocate(network, random_scores(network), Budget(macs=0.6))
    assert plan.widening is None
    assert Plan.model_validate_json(plan.model_dump_json()) == plan
