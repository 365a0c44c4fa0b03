"""`widen`: more units of a group, on every axis it lies on; the inverse of removal.

Chen, Goodfellow & Shlens, Net2Net, ICLR 2016 (arXiv 1511.05641). [P] Net2WiderNet: a new unit is a copy of a unit that
is there, and what reads the copies is divided among them, so that the network computes what it did. [I] The paper
divides evenly and adds noise, since equal copies learn equally; here the parts are uneven, so that copies differ
without noise and the function stays the same. [I] Which units are copied is drawn, each as often as any other but for
the remainder. [I] `fresh` is for networks that are not trained: every new number of a weight with two axes or more is
drawn from that weight's own numbers, and weights that sum over more inputs are scaled by sqrt(before / after), so that
what they give keeps its variance (He et al. 2015); biases and scales of new units are those of the unit they copy.

Where copies belong on an axis (behind a concatenation, a flattened map, a padded shortcut) is tried out, not assumed:
with other numbers in all weights the widened model must give what the model gives.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx, nn

from whyprune.data.outputs import tensors_of
from whyprune.errors import FormatError, InputError
from whyprune.models.weights import architecture_fingerprint
from whyprune.structure.axes import Axis
from whyprune.structure.capture import first_line
from whyprune.structure.changes import CORRUPT, AttributeChange
from whyprune.structure.network import Network
from whyprune.structure.operations import CONVOLUTIONS, TRANSPOSED, bind, name_of, sizes
from whyprune.structure.precise import doubled
from whyprune.structure.probe import small
from whyprune.structure.products import RECURRENT
from whyprune.structure.remove import AttributeValue, changed
from whyprune.structure.state import State
from whyprune.structure.widening import Order, WidenedAxis, Widening, grown

TOLERANCE = 1e-6
"""Of outputs in double precision, relative to the largest."""
NOISE = 0.1
Copies = Mapping[int, int]
"""The label of a unit -> how many copies it gets."""


@dataclass(frozen=True)
class Widened:
    """A widened module, and the record from which a fresh instance is widened again."""

    model: nn.Module
    widening: Widening


def widen(start: Network | State, more: Mapping[str, int], *, fresh: bool = False, seed: int = 0) -> nn.Module:
    """A wider module of the user's own class: groups gain units, on every axis; the model that is there stays as it is.

    Args:
        start: a traced model, or a state of which nothing has been removed.
        more: group -> how many units it gains.
        fresh: for networks that are not trained: new weights are drawn, and the function changes. Default: units are
            copied and what reads them is divided among the copies, so that the function stays the same (Net2Net).
        seed: which units are copied, the parts, and fresh weights.

    Returns:
        The module; trace it to go on.

    Raises:
        InputError: an unknown group, no whole number, or a group that cannot be widened; the message says why.
    """
    return widened(start, more, fresh=fresh, seed=seed).model


def widened(start: Network | State, more: Mapping[str, int], *, fresh: bool = False, seed: int = 0) -> Widened:
    """As `widen`, with the record of what was done."""
    state = State.of(start)
    if not state.is_dense:
        raise InputError(f"{len(state.removed)} units are removed already: widen the network before units are removed")
    network, rng = state.network, np.random.default_rng(seed)
    copies = _drawn(network, more, rng)
    tried = _balanced(network, copies) if fresh else copies
    if reason := failure(network, tried):
        raise InputError(_refusal(network, more, reason, fresh))
    widening = widening_of(network, copies)
    model = _spread(network, network.model, copies, rng)
    if fresh:
        _redraw(network, model, _orders(network, copies), rng)
    return Widened(model, widening)


def widenable(network: Network, *, fresh: bool = False) -> dict[str, str]:
    """Group -> why it cannot be widened by any number of units; empty where it can.

    Args:
        network: the traced model.
        fresh: whether new weights may be drawn; else the function has to stay the same.
    """
    every = {unit.label: 1 for unit in network.units}
    all_at_once = failure(network, every) if every else ""
    found = {}
    for group in network.groups:
        marks = sorted({mark for unit in group.units for mark in unit.marks})
        reason = all_at_once and failure(network, {unit.label: 1 for unit in group.units})
        if not fresh and marks and not reason:
            reason = f"statistics run over its channels ({marks[0]}), which copies change"
        found[group.name] = reason
    return found


def failure(network: Network, copies: Copies) -> str:
    """Why copies of units do not leave a network the same function; empty where they do.

    Both run in double precision on drawn inputs, with other numbers added to all weights, so that no scale that
    starts at zero hides what lies behind it.
    """
    generator, probe = torch.Generator().manual_seed(0), small(network)
    batch = doubled(probe.example).mapped(lambda t: _like(t, generator))
    try:
        model = changed(probe.model, {}, lambda t, _: t).double()
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.is_floating_point():
                    drawn = torch.randn(parameter.shape, generator=generator, dtype=torch.double)
                    parameter.add_((NOISE * drawn).to(parameter))
            wider = _spread(network, model, copies, np.random.default_rng(0))
            expected, found = (tensors_of(batch.call(each)) for each in (model, wider))
            worst = max((_difference(a, b) for a, b in zip(found, expected, strict=True)), default=0.0)
    except Exception as error:  # noqa: BLE001 - whatever the user's code raises, the answer is the same
        return first_line(error)
    return "" if worst <= TOLERANCE else f"its outputs would differ by {worst:.3g} of their size"


def widening_of(network: Network, copies: Copies) -> Widening:
    """The record of copying units."""
    groups = {g.name: sum(copies.get(unit.label, 0) for unit in g.units) for g in network.groups}
    return Widening(
        architecture=architecture_fingerprint(network.model),
        groups={name: count for name, count in groups.items() if count},
        axes=tuple(
            WidenedAxis(parameter=name, axis=axis, order=tuple(placing.order.tolist()))
            for (name, axis), placing in sorted(_orders(network, copies).items())
        ),
        attributes=tuple(
            AttributeChange(module=m, attribute=a, place=p, value=v) for m, a, p, v in _attributes(network, copies)
        ),
    )


def check_widening(network: Network, widening: Widening) -> None:
    """Checks a record from a file against a trace: it must copy whole units, with all that follows.

    Raises:
        FormatError: it does not.
    """
    orders = {(entry.parameter, entry.axis): list(entry.order) for entry in widening.axes}
    copies = {}
    for unit in network.units:
        parameter, axis, indices = unit.slices[0]
        copies[unit.label] = max(orders.get((parameter, axis), list(indices)).count(indices[0]) - 1, 0)
    honest = widening_of(network, copies)
    if (set(honest.axes), set(honest.attributes)) != (set(widening.axes), set(widening.attributes)):
        raise FormatError(f"the plan does not widen this model by whole units: {CORRUPT}")
    if honest.groups != widening.groups:
        raise FormatError(f"the plan's widened groups are not those of its copies: {CORRUPT}")


@dataclass(frozen=True)
class _Placing:
    """An axis after widening: the index that every index copies, the number of the copy, and the unit's label or -1."""

    order: Order
    number: Order
    label: Order


def _orders(network: Network, copies: Copies) -> dict[Axis, _Placing]:
    """Every stretch of an axis that belongs to a unit is followed by its copies."""
    owners: dict[Axis, dict[int, int]] = {}
    for unit in network.units:
        if copies.get(unit.label, 0):
            for parameter, axis, indices in unit.slices:
                owners.setdefault((parameter, axis), {}).update(dict.fromkeys(indices, unit.label))
    return {key: _placing(network.cost.shapes[key[0]][key[1]], owner, copies) for key, owner in owners.items()}


def _placing(size: int, owner: Mapping[int, int], copies: Copies) -> _Placing:
    rows: list[tuple[int, int, int]] = []
    start = 0
    while start < size:
        label, end = owner.get(start, -1), start + 1
        while label != -1 and end < size and owner.get(end) == label:
            end += 1
        rows += [(index, number, label) for number in range(1 + copies.get(label, 0)) for index in range(start, end)]
        start = end
    order, number, label_of = np.array(rows, dtype=np.int64).T
    return _Placing(order, number, label_of)


def _attributes(network: Network, copies: Copies) -> list[AttributeValue]:
    gained = [(rule, sum(copies.get(label, 0) for label in rule.labels)) for rule in network.attributes]
    return [(r.module, r.attribute, r.place, r.value + count) for r, count in gained if count]


def _spread(network: Network, model: nn.Module, copies: Copies, rng: np.random.Generator) -> nn.Module:
    """The model with copies of units; weights that read them are divided among the copies, in uneven parts."""
    orders = _orders(network, copies)
    wider = grown(model, {key: placing.order for key, placing in orders.items()}, _attributes(network, copies))
    parts = {label: _parts(1 + count, rng) for label, count in copies.items() if count}
    parts[-1] = np.ones(1)
    factors = {
        key: np.array([parts[label][number] for label, number in zip(p.label, p.number, strict=True)])
        for key, p in orders.items()
        if key in input_axes(network)
    }
    return changed(wider, factors, _scaled) if factors else wider


def _parts(count: int, rng: np.random.Generator) -> NDArray[np.float64]:
    drawn = rng.uniform(0.5, 1.5, count)
    parts: NDArray[np.float64] = drawn / drawn.sum()
    return parts


def _scaled(tensor: Tensor, factors: Mapping[int, NDArray[Any]]) -> Tensor:
    for axis, factor in factors.items():
        shape = [-1 if dim == axis else 1 for dim in range(tensor.dim())]
        tensor = tensor * torch.as_tensor(factor, device=tensor.device).to(tensor.dtype).reshape(shape)
    return tensor


def _redraw(network: Network, model: nn.Module, orders: Mapping[Axis, _Placing], rng: np.random.Generator) -> None:
    """Draws the new numbers of weights from their old ones, in place; see the head of this file."""
    before, summed = dict(network.model.named_parameters()), input_axes(network)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            placings = {axis: orders[name, axis] for axis in range(parameter.dim()) if (name, axis) in orders}
            if parameter.dim() < 2 or not placings:
                continue
            value = before[name].detach()
            new = torch.zeros((), dtype=torch.bool)
            scale = 1.0
            for axis, placing in placings.items():
                value = value.index_select(axis, torch.as_tensor(placing.order, device=value.device))
                shape = [-1 if dim == axis else 1 for dim in range(parameter.dim())]
                new = new | torch.as_tensor(placing.number > 0).reshape(shape)
                if (name, axis) in summed:
                    scale *= (before[name].shape[axis] / parameter.shape[axis]) ** 0.5
            drawn = torch.as_tensor(rng.integers(before[name].numel(), size=tuple(value.shape)), device=value.device)
            old = before[name].detach().flatten()
            parameter.copy_(torch.where(new.to(value.device), old[drawn], value) * scale)


def input_axes(network: Network) -> frozenset[Axis]:
    """The axes of weights over which operations sum what they read."""
    held = network.graph.state_names
    found: set[Axis] = set()
    for node in network.graph.operations:
        for weight, axis in _summed(node):
            for source in _sources(weight):
                if source.name in held and sizes(source) == sizes(weight):
                    found.add((held[source.name], axis % len(sizes(weight))))
    return frozenset(found)


def _summed(node: fx.Node) -> Iterator[tuple[fx.Node, int]]:
    """The weights of an operation that sums over one of their axes, each with that axis."""
    name, bound = name_of(node), bind(node)
    pairs: list[tuple[Any, int]] = []
    if name in CONVOLUTIONS or name == "linear":
        pairs = [(bound["weight"], 1)]
    elif name in TRANSPOSED:
        inside = sizes(bound["weight"])[0] // bound["groups"]
        pairs = [(bound["weight"], 0)] if bound["groups"] == 1 or bound["groups"] < inside else []
    elif name in RECURRENT:
        pairs = [(weight, 1) for weight in bound["params"] if len(sizes(weight)) == 2]
    elif name.endswith("_cell"):
        pairs = [(bound.get(weight), 1) for weight in ("w_ih", "w_hh")]
    elif name in ("matmul", "mm", "bmm", "addmm", "baddbmm", "__matmul__"):
        factors = [bound[key] for key in ("self", "mat1", "batch1", "other", "mat2", "batch2") if key in bound]
        left, right = [f for f in factors if isinstance(f, fx.Node)][-2:]
        pairs = [(left, -1), (right, -2 if len(sizes(right)) > 1 else 0)]
    yield from ((weight, axis) for weight, axis in pairs if isinstance(weight, fx.Node) and len(sizes(weight)) > 1)


def _sources(value: fx.Node) -> Iterator[fx.Node]:
    """What a weight is computed from, itself included."""
    seen, waiting = {value}, [value]
    while waiting:
        node = waiting.pop()
        yield node
        fresh = [source for source in node.all_input_nodes if source not in seen]
        seen.update(fresh)
        waiting += fresh


def _drawn(network: Network, more: Mapping[str, int], rng: np.random.Generator) -> dict[int, int]:
    """How many copies every unit gets: each as many as any other, the remainder by chance."""
    if not isinstance(more, Mapping):
        raise InputError(f"more={more!r:.60}: give a mapping of groups to units they gain, such as {{'stem': 8}}")
    copies: dict[int, int] = {}
    for name, count in more.items():
        group = network.group(name)
        if isinstance(count, bool) or not isinstance(count, int | np.integer) or count < 0:
            raise InputError(f"more[{name!r}]={count!r}: give a whole number of units that the group gains, 0 or more")
        times, rest = divmod(int(count), len(group.units))
        further = set(rng.permutation(len(group.units))[:rest].tolist())
        copies |= {unit.label: times + (k in further) for k, unit in enumerate(group.units)}
    if not any(copies.values()):
        raise InputError(f"more={dict(more)!r:.60} widens nothing: name a group and how many units it gains")
    return copies


def _balanced(network: Network, copies: Copies) -> dict[int, int]:
    """One copy of every unit over which statistics run: where all are doubled, means and variances stay."""
    marked = {g.name for g in network.groups if any(u.marks for u in g.units)}
    doubled_groups = {u.group for u in network.units if copies.get(u.label, 0)} & marked
    return {**copies, **{u.label: 1 for u in network.units if u.group in doubled_groups}}


def _refusal(network: Network, more: Mapping[str, int], reason: str, fresh: bool) -> str:
    """The message that names the group, where one alone is to blame."""
    able = widenable(network, fresh=fresh)
    blamed = next((name for name, count in more.items() if count and able[name]), "")
    if blamed:
        reason = able[blamed]
    way = "leave it out" if fresh else "leave it out, or for a network that is not trained say fresh=True"
    who = f"the group {blamed!r}" if blamed else f"{', '.join(name for name, count in more.items() if count)} together"
    return f"{who} cannot be widened: {reason}; {way}"


def _difference(left: Tensor, right: Tensor) -> float:
    """The largest difference, relative to the largest value; infinite for other shapes, and where nothing is known."""
    if left.shape != right.shape:
        return float("inf")
    largest = float(right.double().abs().max()) if right.numel() else 1.0
    worst = float((left.double() - right.double()).abs().max()) if right.numel() else 0.0
    return worst / largest if 0 < largest < float("inf") else (0.0 if worst == 0 else float("inf"))


def _like(tensor: Tensor, generator: torch.Generator) -> Tensor:
    if not tensor.is_floating_point():
        return tensor
    return torch.randn(tensor.shape, generator=generator, dtype=torch.double).to(tensor)
