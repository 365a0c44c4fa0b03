"""The contract of an allocator, as a check that anybody can run on their own."""

from collections.abc import Mapping
from dataclasses import replace
from functools import cache

import numpy as np
import torch
from torch import Tensor, nn

from whyprune.allocation import ALLOCATORS, Allocator, Budget, Objective, Point, Space
from whyprune.allocation.allocate import facts_of, is_stop, objective_of
from whyprune.allocation.evaluator import MeasuredEffects
from whyprune.data.batches import Batch
from whyprune.effects.effects import Effects, ResponseCurve
from whyprune.errors import BudgetError, InputError
from whyprune.structure.network import Network
from whyprune.structure.remove import remove
from whyprune.structure.state import State
from whyprune.structure.trace import trace
from whyprune.testing.untouched import left_alone
from whyprune.testing.variants import in_another_order

PLANS = 24
"""A search measures so many, or as few as it can do with."""
BUDGETS = (Budget(macs=0.8), Budget(macs=0.5), Budget(macs=0.6, params=0.7))


class Small(nn.Module):
    """(B, 3, 8, 8) to four logits: a stem and two residual blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.inner = nn.ModuleList(nn.Conv2d(8, width, 3, padding=1) for width in (6, 10))
        self.outer = nn.ModuleList(nn.Conv2d(width, 8, 3, padding=1) for width in (6, 10))
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        x = self.stem(x).relu()
        for inner, outer in zip(self.inner, self.outer, strict=True):
            x = x + outer(inner(x).relu())
        found: Tensor = self.head(x.mean(dim=(2, 3)))
        return found


def small_network() -> Network:
    """The network that allocators are checked on, with random weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return trace(Small().eval(), torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0)))


def made_up_effects(state: State, seed: int = 0) -> Effects:
    """Made-up effects of the units that are still there, and convex curves of their groups."""
    rng = np.random.default_rng(seed)
    mean = rng.gamma(1.0, size=len(state.units))
    curves = {}
    for group in state.network.groups:
        order = tuple(u.name for u in group.units if u in set(state.units))[:-1]
        effect = np.cumsum([0.0, *np.sort(rng.gamma(0.5, size=len(order)))])
        curves[group.name] = ResponseCurve(group.name, order, np.arange(len(order) + 1), effect, 0 * effect)
    return Effects(
        units=tuple(u.name for u in state.units),
        groups=tuple(u.group for u in state.units),
        mean=mean,
        standard_error=0 * mean,
        samples=9,
        outcome="logit-shift",
        intervention="zero",
        estimand="single",
        method="made up",
        curves=curves,
        natural_widths={g.name: int(rng.integers(1, len(g.units) + 1)) for g in state.network.groups},
        blocks={block.name: float(rng.gamma(2.0)) for block in state.network.blocks},
    )


def check_allocator(allocator: Allocator | str) -> list[Point]:
    """Runs an allocator on a small residual network and checks what every allocator must keep.

    Every budget that can be met is met, at a feasible point; the same seed gives the same point; a budget that nothing
    can meet ends in a `BudgetError` that names the smallest reachable ratio; from a network that is pruned already,
    what is gone stays gone; the network is left alone. Channels in another order keep the same units, and effects times
    one factor change nothing (unless plans are measured).

    Args:
        allocator: the allocator, or the name of one.

    Returns:
        The points it chose, in the order of `BUDGETS`, from the dense network.

    Raises:
        AssertionError: the contract is broken; the message says where.
        InputError: it is no allocator.
    """
    allocator = ALLOCATORS(allocator) if isinstance(allocator, str) else allocator
    if not callable(allocator):
        raise InputError(f"{allocator!r:.60} is no allocator: give a function (space, objective, budget) -> point")
    network = small_network()
    dense = State.of(network)
    gone = [group.units[0].name for group in network.groups]
    with left_alone(network.model):
        found = [_checked(allocator, dense, budget) for budget in BUDGETS]
        for budget in BUDGETS:
            _checked(allocator, remove(dense, gone), budget)
    for kind in ("macs", "params"):
        _check_unreachable(allocator, dense, kind)
    _check_same_choice(allocator, dense, BUDGETS[1], found[1])
    return found


def _case(allocator: Allocator, state: State, effects: Effects | None = None) -> tuple[Space, Objective]:
    facts = facts_of(allocator)
    space = Space(state, kinds=facts.kinds)
    images = Batch((torch.randn(16, 3, 8, 8, generator=torch.Generator().manual_seed(1)),), {})
    evaluator = MeasuredEffects(state, [images])
    objective = objective_of(space, effects or made_up_effects(state), facts, evaluator=evaluator)
    plans = max(PLANS, facts.fewest_plans) if facts.searches else None
    return space, replace(objective, plans=plans)


def _checked(allocator: Allocator, state: State, budget: Budget) -> Point:
    space, objective = _case(allocator, state)
    point = allocator(space, objective, budget, seed=3)
    assert isinstance(point, Mapping), f"{budget}: it gave {type(point).__name__}, not a point: variable -> stop"
    wrong = [f"{name}: {stop!r}" for name, stop in point.items() if not is_stop(stop) or name not in space.variables]
    assert not wrong, f"{budget}: a point has a whole number for variables of the space, not {wrong[0]}"
    assert space.is_feasible(point), f"{budget}: the point {dict(point)} is not feasible"
    plan = space.plan(point, objective.orders, method="checked")
    dense = state.network.cost()
    assert budget.met_by(space.cost(point), dense), f"{budget}: the point costs more"
    assert plan.macs == space.cost(point).macs, "the plan of the point costs something else"
    assert {u.name for u in state.removed} <= set(plan.units), "what was gone came back"
    again = _case(allocator, state)
    assert dict(allocator(*again, budget, seed=3)) == dict(point), "the same seed gave another point"
    return point


def _check_unreachable(allocator: Allocator, state: State, kind: str) -> None:
    said = ""
    try:
        allocator(*_case(allocator, state), Budget(**{kind: 1e-6}), seed=0)
    except BudgetError as error:
        said = str(error)
    assert "smallest reachable" in said, f"a budget that nothing can meet ended in {said!r}, not in what can be reached"


def _check_same_choice(allocator: Allocator, state: State, budget: Budget, chosen: Point) -> None:
    """The same network with its channels in another order, and the same effects in another unit."""
    effects = made_up_effects(state)
    other, was = _reordered()
    point = allocator(*_case(allocator, State.of(other), _renamed(effects, was)), budget, seed=3)
    assert dict(point) == dict(chosen), "channels in another order got other widths"
    if facts_of(allocator).needs != "evaluator":
        point = allocator(*_case(allocator, state, _scaled(effects, 4.0)), budget, seed=3)
        assert dict(point) == dict(chosen), "effects times one factor gave another point"


@cache
def _reordered() -> tuple[Network, dict[str, str]]:
    network = small_network()
    model, was = in_another_order(network)
    return trace(model, network.example.args[0]), was


def _renamed(effects: Effects, was: dict[str, str]) -> Effects:
    """The effects of the same units under their new names; `was` says what each of these was called."""
    name_of = {old: new for new, old in was.items()}
    curves = {
        group: replace(curve, order=tuple(name_of[name] for name in curve.order))
        for group, curve in effects.curves.items()
    }
    mean = np.array([effects[was[name]] for name in effects.units])
    return replace(effects, mean=mean, curves=curves)


def _scaled(effects: Effects, factor: float) -> Effects:
    curves = {group: replace(curve, effect=factor * curve.effect) for group, curve in effects.curves.items()}
    blocks = {name: factor * effect for name, effect in effects.blocks.items()}
    return replace(effects, mean=factor * effects.mean, curves=curves, blocks=blocks)
