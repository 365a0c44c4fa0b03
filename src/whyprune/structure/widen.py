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

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from whyprune.data.outputs import tensors_of
from whyprune.errors import FormatError, InputError
from whyprune.models.weights import architecture_fingerprint
from whyprune.structure.capture import first_line
from whyprune.structure.changes import CORRUPT, AttributeChange
from whyprune.structure.copies import duplicate
from whyprune.structure.copying import Copies, attribute_changes, placings, redraw, spread
from whyprune.structure.network import Network
from whyprune.structure.precise import in_double
from whyprune.structure.probe import small, tolerance
from whyprune.structure.state import State
from whyprune.structure.units import Group
from whyprune.structure.widening import WidenedAxis, Widening

TOLERANCE = 1e-6
"""Of outputs in double precision, relative to the largest."""
NOISE = 0.1
DRAWS = 4
"""Drawn inputs: on one alone, units that are dead by chance hide what copies of them do."""
UNEVEN = "which copies change unless every unit has as many"


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
    # One copied unit may be dead on the drawn inputs and show nothing: all units of a group are doubled first.
    groups = {u.group for u in network.units if copies.get(u.label, 0)}
    doubled = {u.label: 1 for u in network.units if u.group in groups}
    if reason := failure(network, doubled) or ("" if fresh else failure(network, copies)):
        raise InputError(_refusal(network, more, reason, fresh))
    widening = widening_of(network, copies)
    model = spread(network, network.model, copies, rng)
    if fresh:
        redraw(network, model, placings(network, copies), rng)
    return Widened(model, widening)


def widenable(network: Network, *, fresh: bool = False) -> dict[str, str]:
    """Group -> why it cannot be widened by any number of units; empty where it can.

    Args:
        network: the traced model.
        fresh: whether new weights may be drawn; else the function has to stay the same.
    """
    found = _reasons(network, network.groups)
    if not fresh:
        for group in network.groups:
            marks = sorted({mark for unit in group.units for mark in unit.marks})
            if marks and not found[group.name]:
                found[group.name] = f"statistics run over its channels ({marks[0]}), {UNEVEN}"
    return found


def _reasons(network: Network, groups: Sequence[Group]) -> dict[str, str]:
    """Group -> why doubling it does not leave the function as it was, by halves; what only fails together fails."""
    reason = failure(network, {unit.label: 1 for group in groups for unit in group.units}) if groups else ""
    if not reason or len(groups) == 1:
        return {group.name: reason for group in groups}
    middle = len(groups) // 2
    found = _reasons(network, groups[:middle]) | _reasons(network, groups[middle:])
    return found if any(found.values()) else dict.fromkeys(found, f"beside others, {reason}")


def failure(network: Network, copies: Copies) -> str:
    """Why copies of units do not leave a network the same function; empty where they do.

    Both run in double precision on drawn inputs, with other numbers added to all weights, so that no scale that
    starts at zero hides what lies behind it. Code that insists on its own precision is held to what that allows.
    """
    probe = small(network)
    try:
        return _failure(in_double(probe), copies, TOLERANCE)
    except RuntimeError:
        return _failure(replace(probe, model=duplicate(probe.model)), copies, tolerance(probe))


def _failure(probe: Network, copies: Copies, allowed: float) -> str:
    """As `failure`, on a network whose model nobody else has."""
    generator = torch.Generator().manual_seed(0)
    worst = 0.0
    with torch.no_grad():
        for parameter in probe.model.parameters():
            if parameter.is_floating_point():
                drawn = torch.randn(parameter.shape, generator=generator, dtype=torch.double)
                parameter.add_((NOISE * drawn).to(parameter))
        try:
            wider = spread(probe, probe.model, copies, np.random.default_rng(0))
            for _ in range(DRAWS):
                batch = probe.example.mapped(lambda tensor: _like(tensor, generator))
                expected, found = (tensors_of(batch.call(each)) for each in (probe.model, wider))
                differences = (_difference(a, b) for a, b in zip(found, expected, strict=True))
                worst = max(worst, *differences, 0.0)
        except Exception as error:  # noqa: BLE001 - whatever the user's code raises, the answer is the same
            return first_line(error)
    return "" if worst <= allowed else f"its outputs would differ by {worst:.3g} of their size"


def widening_of(network: Network, copies: Copies) -> Widening:
    """The record of copying units."""
    groups = {g.name: sum(copies.get(unit.label, 0) for unit in g.units) for g in network.groups}
    return Widening(
        architecture=architecture_fingerprint(network.model),
        groups={name: count for name, count in groups.items() if count},
        axes=tuple(
            WidenedAxis(parameter=name, axis=axis, order=tuple(placing.order.tolist()))
            for (name, axis), placing in sorted(placings(network, copies).items())
        ),
        attributes=tuple(
            AttributeChange(module=module, attribute=attribute, place=place, value=value)
            for module, attribute, place, value in attribute_changes(network, copies)
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
