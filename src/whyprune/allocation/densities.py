"""Layer-wise densities from the architecture alone: PreCrop and PreConfig (Cai et al., arXiv 2203.02549).

[R] The objective is the expected SynFlow value under random masks, which for fixed densities p_l is a constant times
their product: maximise sum_l log p_l within budgets of parameters and MACs. [D] Its solution has a closed form,
p_l = min(1, 1 / (lambda a_l + mu b_l)): every layer that is not whole keeps the same absolute cost ("water-filling").
[I] Where groups are tied (residual streams, concatenations) densities are products of the shares that groups keep, and
the problem is a geometric program in those shares, which keeps the ties exactly.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from torch import fx

from whyprune.allocation.space import Space
from whyprune.errors import BudgetError
from whyprune.named import check_installed
from whyprune.structure.axes import Axis
from whyprune.structure.cost import Product
from whyprune.structure.operations import bind

Floats = NDArray[np.float64]
SMALLEST = 1e-6
"""Shares in the geometric program stay above this; one unit of a million is less than any group in use has."""


@dataclass(frozen=True)
class Layer:
    """A weight with channels that may go.

    Attributes:
        name: of the weight.
        costs: kind of cost -> what the whole layer costs, `params` and `macs`.
        axes: its axes along which channels may go.
    """

    name: str
    costs: Mapping[str, float]
    axes: tuple[Axis, ...]


def layers(space: Space) -> list[Layer]:
    """The weights of convolutions and linear layers with channels that may go, in the order of the graph."""
    network = space.network
    found: dict[str, Layer] = {}
    movable = {(parameter, axis) for g in space.bounds.groups.values() for parameter, axis, _ in g.axes}
    macs = network.cost.by_operation()
    for node in network.graph.operations:
        weight = bind(node).get("weight") if node.name in macs else None
        name = network.graph.state_names.get(weight.name) if isinstance(weight, fx.Node) else None
        if name is None:
            continue
        axes = tuple((name, axis) for axis in range(len(network.cost.shapes[name])) if (name, axis) in movable)
        spent = macs[node.name] + (found[name].costs["macs"] if name in found else 0)
        if axes:
            found[name] = Layer(name, {"params": float(np.prod(network.cost.shapes[name])), "macs": float(spent)}, axes)
    return list(found.values())


def water_filling(costs: Sequence[Floats], limits: Sequence[float], most: float = 1.0) -> Floats:
    """Densities up to `most` that maximise sum log p within one budget or two.

    Args:
        costs: per budget what every layer costs when it is whole, (layers,).
        limits: per budget the most that all may cost.
        most: the largest density: 1 for a crop (PreCrop), more where layers may get wider (PreConfig).

    Returns:
        (layers,): min(most, 1 / (lambda a + mu b)), whose budgets hold with equality unless all layers are at `most`.
    """
    if len(costs) == 1:
        return _filled(costs[0], limits[0], np.zeros_like(costs[0]), most)
    first, second = costs
    alone = _filled(first, limits[0], np.zeros_like(first), most)
    if alone @ second <= limits[1]:
        return alone

    def excess(log_price: float) -> float:
        found = _filled(first, limits[0], np.exp(log_price) * second, most)
        return float(np.log((found @ second) / limits[1]))

    low, high = -np.log(second.max()) - 60, -np.log(limits[1] / len(second)) + 60
    price = float(np.exp(brentq(excess, low, high, xtol=1e-12)))
    return _filled(first, limits[0], price * second, most)


def _filled(costs: Floats, limit: float, prices: Floats, most: float) -> Floats:
    """min(most, 1 / (lambda costs + prices)) with the least lambda >= 0 at which the costs are within the limit."""

    def at(multiplier: float) -> Floats:
        with np.errstate(divide="ignore"):
            return np.minimum(most, 1.0 / (multiplier * costs + prices))

    if at(0.0) @ costs <= limit:
        return at(0.0)
    top = len(costs) / limit  # there every layer costs at most an equal share of the limit
    return at(float(brentq(lambda m: at(m) @ costs - limit, 0.0, top * (1 + 1e-9), xtol=top * 1e-15)))


def shares_of_densities(space: Space, found: Sequence[Layer], densities: Floats) -> dict[str, float]:
    """The share that every group keeps: the square root of its layers' densities (their geometric mean).

    [M] A layer of density p keeps floor(sqrt(p) C) of its filters; its inputs follow from the layer before. [I] A group
    that several layers write or read takes the geometric mean over all of them.
    """
    density = {layer.name: float(p) for layer, p in zip(found, densities, strict=True)}
    shares = {}
    for name, group in space.bounds.groups.items():
        own = [np.log(density[parameter]) for parameter, _, _ in group.axes if parameter in density]
        shares[name] = float(np.exp(np.mean(own) / 2)) if own else 1.0
    return shares


def geometric_program(
    space: Space, found: Sequence[Layer], limits: Mapping[str, float], most: Mapping[str, float] | None = None
) -> dict[str, float]:
    """The shares that groups keep which maximise sum log p over layers within all budgets; ties are kept exactly.

    Costs are those of the traced network at any widths. An axis on which several groups lie counts for each of them by
    its part of the axis, so that the objective is a monomial.

    Args:
        space: of the plans.
        found: its layers.
        limits: `macs` and `params` in absolute numbers.
        most: group -> its largest share; 1 for those not named.

    Raises:
        MissingDependencyError: cvxpy is not installed.
        BudgetError: the solver found no shares within the budgets.
    """
    cvxpy = _cvxpy()
    shares = {name: cvxpy.Variable(pos=True, name=f"share{k}") for k, name in enumerate(space.bounds.groups)}
    sizes = _AxisSizes(space, shares)
    most = dict.fromkeys(shares, 1.0) | dict(most or {})
    limited = [share <= most[name] for name, share in shares.items()]
    limited += [share >= SMALLEST for share in shares.values()]
    for kind, limit in limits.items():
        costs = [c for c in (sizes.costs(kind)) if not isinstance(c, float)]
        fixed = sum(c for c in sizes.costs(kind) if isinstance(c, float))
        if costs and limit > fixed:
            limited.append(sum(c / (limit - fixed) for c in costs) <= 1)
    objective = 1.0
    for layer in found:
        for axis in layer.axes:
            for name, part in sizes.parts(axis).items():
                objective = objective * shares[name] ** part
    problem = cvxpy.Problem(cvxpy.Maximize(objective), limited)
    try:
        problem.solve(gp=True, solver=cvxpy.CLARABEL)
    except cvxpy.SolverError as error:
        raise BudgetError(f"the geometric program of densities was not solved: {error}") from error
    if any(share.value is None for share in shares.values()):
        raise BudgetError(f"the geometric program of densities is {problem.status}: no shares meet the budgets")
    return {name: min(most[name], float(share.value)) for name, share in shares.items()}


class _AxisSizes:
    """How long every axis is, as an expression of the shares that groups keep."""

    def __init__(self, space: Space, shares: Mapping[str, Any]) -> None:
        self.cost, self.shares = space.network.cost, shares
        self._users: dict[Axis, dict[str, float]] = {}
        for name, group in space.bounds.groups.items():
            for parameter, axis, per_unit in group.axes:
                users = self._users.setdefault((parameter, axis), {})
                users[name] = users.get(name, 0.0) + per_unit * len(group.units)

    def parts(self, axis: Axis) -> dict[str, float]:
        """Group -> its part of all indices of the axis that may go."""
        users = self._users[axis]
        return {name: count / sum(users.values()) for name, count in users.items()}

    def costs(self, kind: str) -> list[Any]:
        """Every term of a cost: an expression of shares, or a float where no share is in it."""
        if kind == "macs":
            return [self._product(product) for product in self.cost.products]
        return [self._numbers(name) for name in self.cost.shapes if name in self.cost.trainable]

    def _product(self, product: Product) -> Any:
        found: Any = float(product.fixed)
        for axis, times, divisor in product.factors:
            found = found * (times / divisor) * self._size(axis)
        return found

    def _numbers(self, name: str) -> Any:
        found: Any = 1.0
        for axis in range(len(self.cost.shapes[name])):
            found = found * self._size((name, axis))
        return found

    def _size(self, axis: Axis) -> Any:
        users, whole = self._users.get(axis, {}), float(self.cost.shapes[axis[0]][axis[1]])
        fixed = whole - sum(users.values())
        terms = [count * self.shares[name] for name, count in users.items()]
        return sum(terms[1:], terms[0]) + fixed if terms and fixed > 0 else sum(terms[1:], terms[0]) if terms else whole


def _cvxpy() -> Any:
    check_installed("this", ("cvxpy",), "search")
    return import_module("cvxpy")
