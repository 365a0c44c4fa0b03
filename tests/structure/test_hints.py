"""Every kind of reason has its own way out, and what is as it should be has none."""

import pytest
import torch
from torch import nn

import whyprune as wp
from whyprune.allocation import Space, check_reachable
from whyprune.errors import BudgetError, TraceError
from whyprune.structure.hints import capturing, freeing, kept_because
from whyprune.structure.units import Refusal

X = torch.randn(4, 3, 8, 8)


def refusal(where, reason, channels=3):
    return Refusal(where, reason, channels, ())


@pytest.mark.parametrize(
    ("where", "reason", "words"),
    [
        ("input", "the network's input is kept as it is", ""),
        ("output", "the network's output is kept as it is", ""),
        ("0.weight_fake_quant", "no rule for aten.fused_moving_avg_obs_fake_quant", "quantise"),
        ("0.parametrizations.weight.0", "no rule for aten.vdot: it may mix channels", "remove_parametrizations"),
        ("body", "no rule for aten.cumsum: it may mix channels", "operations that have a rule"),
        ("net.py:3", "view there names a width as the constant 64", "x.flatten"),
        ("net.py:3", "they are used as indices", "keep their places"),
        ("net.py:3", "they are scaled by a constant", "a buffer"),
        ("net.py:3", "they are cut into parts of unequal size", "equal parts"),
    ],
)
def test_every_reason_has_its_own_way_out(where, reason, words):
    assert words in freeing(refusal(where, reason))
    assert bool(freeing(refusal(where, reason))) == bool(words)


def test_reasons_are_told_once_with_their_places_the_largest_first():
    told = kept_because(
        [
            refusal("input", "the network's input is kept as it is", 99),
            refusal("a", "they are used as indices", 2),
            refusal("b", "no rule for aten.sort: it may mix channels", 5),
            refusal("c", "no rule for aten.sort: it may mix channels", 4),
        ]
    )
    assert told.startswith("9 channels at b and 1 more places: no rule for aten.sort")
    assert told.index("aten.sort") < told.index("2 channels at a: they are used as indices")
    assert "input" not in told
    assert kept_because([]) == ""


@pytest.mark.parametrize(
    ("error", "words"),
    [
        ("Could not guard on data-dependent expression", "shapes only"),
        ("There was no fake impl registered for mine.op", "register_fake"),
        ("register_forward_pre_hook is not supported on ScriptModules", "TorchScript"),
        ("Expected all tensors to be on the same device", "one device"),
    ],
)
def test_every_kind_of_failed_capture_has_its_own_way_out(error, words):
    assert words in capturing(error)


class Sorted(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 6, 3), nn.Linear(6, 4)

    def forward(self, x):
        return self.last(self.first(x).mean((2, 3)).cumsum(1))


@pytest.mark.parametrize(
    ("model", "budget", "words"),
    [
        (Sorted(), {"macs": 0.5}, r"nothing can be removed from Sorted: kept whole are 6 channels at .*cumsum"),
        (nn.Sequential(nn.Flatten(), nn.Linear(192, 4)), {"params": 0.5}, "no channels lie between two layers"),
    ],
)
def test_a_budget_that_nothing_can_meet_says_why(model, budget, words):
    network = wp.trace(model.eval(), X)
    with pytest.raises(BudgetError, match=words) as caught:
        check_reachable(Space(network), wp.Budget(**budget))
    assert "1.0001" not in str(caught.value)
    assert "smallest reachable" not in str(caught.value)


def test_a_budget_below_what_may_go_names_what_is_kept_and_a_ratio_that_is_reached():
    class Half(nn.Module):
        def __init__(self):
            super().__init__()
            self.free, self.reader, self.kept = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 5, 3), Sorted()
            self.kept.first = nn.Conv2d(5, 6, 3)

        def forward(self, x):
            return self.kept(self.reader(self.free(x)))

    network = wp.trace(Half().eval(), X)
    effects = wp.estimate(network, [X], method="random")
    with pytest.raises(BudgetError, match=r"smallest reachable ratio is 0\.\d{4}; kept whole are 6 .*cumsum") as caught:
        wp.allocate(network, effects, wp.Budget(macs=1e-6))
    ratio = float(str(caught.value).split("ratio is ")[1].split(";")[0])
    plan = wp.allocate(network, effects, wp.Budget(macs=ratio))
    assert network.cost(network.select(plan.units)).macs <= ratio * network.cost().macs


def test_constraints_that_leave_nothing_are_named():
    network = wp.trace(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3)).eval(), X)
    effects = wp.estimate(network, [X], method="magnitude-l2")
    with pytest.raises(BudgetError, match=r"the constraints \(max_share=0.*leave nothing .*loosen them"):
        wp.allocate(network, effects, wp.Budget(macs=0.5), constraints=wp.Constraints(max_share=0))


def test_branches_on_values_are_still_told_to_depend_on_shapes():
    class Branching(nn.Module):
        def forward(self, x):
            return torch.full((2,), float(x.sum().item() * 3)) + x[:, 0, 0, 0].numpy().tolist()[0]

    with pytest.raises(TraceError, match="cannot be traced"):
        wp.trace(Branching().eval(), X[:2])
