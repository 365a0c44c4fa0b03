"""Controls: units whose truth is known because it was planted, in copies of the user's own network.

Negative: a unit that nothing writes and nobody reads has no effect. Positive: two copies of a unit, each read with half
of its weights, are alike, and removing both does what removing the original did. After the planted cases of section 11
in the benchmark of causal tools [I].
"""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from whyprune.causal.refutation.subject import Subject
from whyprune.interventions.places import Indices, places_left
from whyprune.interventions.worlds import Worlds
from whyprune.results import Refutation
from whyprune.structure.network import Network
from whyprune.structure.operations import bind, shape_of
from whyprune.structure.remove import zeroed
from whyprune.structure.state import State
from whyprune.structure.units import Unit

ALIKE = 0.05
NOTHING = 1e-4


def dead_unit(subject: Subject) -> Refutation:
    """Negative control: units are disconnected, and must be judged to have no effect, or the smallest score."""
    name = "dead unit"
    largest = _largest(subject)
    found = subject.on(_without(subject, largest), subject.units)
    value, spread = found[largest], float(np.abs(found.mean).max())
    if found.estimand == "score" or not np.isfinite(found.interval[0]).all():
        passed = value <= float(found.mean.min()) + NOTHING * spread
        said = "ranked last" if passed else "not ranked last"
        return Refutation(
            name=name,
            passed=passed,
            value=value,
            limit=float(found.mean.min()),
            sentence=f"{largest.name}, cut off from the network, is {said} among {len(found.units)} units.",
        )
    low, high = (float(bound[found.units.index(largest.name)]) for bound in found.interval)
    slack = NOTHING * spread
    passed = low - slack <= 0 <= high + slack
    said = "no effect" if passed else "an effect"
    return Refutation(
        name=name,
        passed=passed,
        value=value,
        limit=slack,
        sentence=f"{largest.name}, cut off from the network, is said to have {said} ({value:.3g}).",
    )


def duplicates(subject: Subject) -> Refutation:
    """Positive control: two copies of a unit must be judged alike, and both together must be seen to matter."""
    name = "planted duplicate"
    original = _largest(subject)
    twin = next((u for u in subject.units if u.group == original.group and u is not original), None)
    state = None if twin is None else with_copy(subject, original, twin)
    if twin is None or state is None:
        return Refutation(
            name=name, passed=None, sentence=f"No unit could be made a copy of {original.name}: they share weights."
        )
    found = subject.on(state, [original, twin])
    first, second = found[original], found[twin]
    gap = abs(first - second) / max(abs(first), abs(second), 1e-30)
    worlds = Worlds(state, subject.batches, outcome=subject.outcome, units=[original, twin])
    both, one = (float(worlds.joint(np.array(mask)).mean()) for mask in ([True, True], [True, False]))
    passed = gap <= ALIKE and both > one
    alike = "alike" if gap <= ALIKE else f"{100 * gap:.0f}% apart"
    return Refutation(
        name=name,
        passed=passed,
        value=gap,
        limit=ALIKE,
        sentence=f"{twin.name}, made a copy of {original.name}, is judged {alike}; without both, the outcome is "
        f"{both:.3g}, without one {one:.3g}.",
    )


def _without(subject: Subject, unit: Unit) -> State:
    """The state with all of a unit's weights at zero, running variances left alone."""
    if subject.state.is_dense and subject.state.model is subject.state.network.model:
        return State.of(replace(subject.state.network, model=zeroed(subject.state.network, [unit])))

    def change(model: nn.Module, gone: Mapping[tuple[str, int], Indices]) -> None:
        tensors = _tensors(model)
        with torch.no_grad():
            for piece in unit.slices:
                if piece.parameter in tensors and not piece.parameter.endswith("running_var"):
                    tensors[piece.parameter].index_fill_(piece.axis, torch.from_numpy(places_left(piece, gone)), 0)

    return subject.changed(change)


def with_copy(subject: Subject, original: Unit, twin: Unit) -> State | None:
    """The state in which `twin` does what `original` does, and both are read with half its weights.

    None where the two units' slices do not have the same shape.
    """
    network = subject.state.network
    read = _read_axes(network)
    pairs = list(zip(original.slices, twin.slices, strict=False))
    if len(original.slices) != len(twin.slices) or any(
        (a.parameter, a.axis, len(a.indices)) != (b.parameter, b.axis, len(b.indices)) for a, b in pairs
    ):
        return None

    def change(model: nn.Module, gone: Mapping[tuple[str, int], Indices]) -> None:
        tensors = _tensors(model)
        with torch.no_grad():
            for a, b in pairs:
                if a.parameter not in tensors:
                    continue  # it lies in a bypassed block
                tensor, axis = tensors[a.parameter], a.axis
                here, there = (torch.from_numpy(places_left(piece, gone)) for piece in (a, b))
                ours = tensor.index_select(axis, here)
                if axis == read.get(a.parameter):
                    ours = ours / 2
                    tensor.index_copy_(axis, here, ours)
                tensor.index_copy_(axis, there, ours)

    return subject.changed(change)


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers, by name."""
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


def _largest(subject: Subject) -> Unit:
    """The unit of the sample that is judged to matter most: its controls are the hardest to pass by chance."""
    return subject.units[int(np.argmax(subject.judged.mean))]


def _read_axes(network: Network) -> dict[str, int]:
    """Weight of a layer that reads channels -> the axis along which it does, where that is no axis that it writes."""
    axes = {}
    for reader in network.readers:
        if reader.affine:
            bound = bind(reader.node)
            name, shape = bound["weight"].name, shape_of(bound["weight"])
            transposed = "output_padding" in bound
            whole_groups = transposed and bound["groups"] > 1 and bound["groups"] ** 2 >= shape[0]
            if not whole_groups:
                axes[network.graph.state_names.get(name, name)] = 0 if transposed else 1
    return axes
