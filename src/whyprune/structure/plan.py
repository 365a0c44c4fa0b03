"""`Plan`: which units go, in terms that need no tracing to replay, and how it is written to `plan.json`."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from torch import nn

from whyprune.errors import FormatError
from whyprune.models.weights import architecture_fingerprint
from whyprune.structure.axes import Axis
from whyprune.structure.blocks import lies_in, state_of
from whyprune.structure.capture import first_line
from whyprune.structure.changes import CORRUPT, AttributeChange, Frozen, Index, checked_attributes, shapes_of
from whyprune.structure.intact import misfit
from whyprune.structure.network import Network
from whyprune.structure.remove import Removed, cut, removal_of
from whyprune.structure.units import Unit
from whyprune.structure.widening import Widening, replay_widening


class RemovedIndices(Frozen):
    """Indices that go from one axis of one parameter or buffer."""

    parameter: str
    axis: Annotated[int, Field(ge=0, le=7)]
    indices: tuple[Index, ...]


class Plan(Frozen):
    """The units to remove, with what was predicted of it.

    Attributes:
        architecture: fingerprint of the model the plan is for (names, shapes and dtypes of its state).
        units: names of the removed units.
        removed: what that means per parameter and axis.
        attributes: integers in user modules that follow.
        blocks: residual blocks that go as a whole, by path; `removed` and `attributes` leave out what lies in them.
        widening: how the model was widened before anything was removed; None where it was not. `architecture`,
            `removed` and `attributes` are then those of the widened model.
        method: how the units were chosen.
        budget: the budget as asked for.
        predicted: the joint effect predicted from the plan's parts; None where a method predicts none.
        macs: of the pruned network, per sample.
        params: of the pruned network.
        bytes: of the pruned network's parameters and buffers.
    """

    schema_version: Literal[1] = 1
    architecture: str
    units: tuple[str, ...]
    removed: tuple[RemovedIndices, ...]
    attributes: tuple[AttributeChange, ...] = ()
    blocks: tuple[str, ...] = ()
    widening: Widening | None = None
    method: str = ""
    budget: dict[str, Any] = Field({})
    predicted: float | None = None
    macs: Annotated[int, Field(ge=0)]
    params: Annotated[int, Field(ge=0)]
    bytes: Annotated[int, Field(ge=0)]

    def removed_per_group(self) -> dict[str, int]:
        """Group name -> how many of its units go."""
        counts: dict[str, int] = {}
        for name in self.units:
            group = name.rpartition(":")[0]
            counts[group] = counts.get(group, 0) + 1
        return counts

    def __repr__(self) -> str:
        kept = f"{self.macs:,} MACs and {self.params:,} params stay"
        whole = f", {len(self.blocks)} blocks as a whole" if self.blocks else ""
        wider = f", {sum(self.widening.groups.values())} came before" if self.widening else ""
        return f"Plan({self.method}: {len(self.units)} units go{whole}{wider}, {kept})"

    __str__ = __repr__


def make_plan(network: Network, units: Iterable[Unit | str], **about: Any) -> Plan:
    """The plan that removes `units`; `about` fills method, budget and predicted.

    Raises:
        InputError: a unit is unknown, or an axis would be left without channels.
    """
    chosen = network.select(units)
    cost, removal = network.cost(chosen), removal_of(network, chosen)
    return Plan(
        architecture=architecture_fingerprint(network.model),
        units=tuple(u.name for u in chosen),
        removed=tuple(
            RemovedIndices(parameter=name, axis=axis, indices=tuple(indices.tolist()))
            for (name, axis), indices in sorted(removal.removed.items())
        ),
        attributes=tuple(AttributeChange(module=m, attribute=a, place=p, value=v) for m, a, p, v in removal.attributes),
        blocks=removal.blocks,
        macs=cost.macs,
        params=cost.params,
        bytes=cost.bytes,
        **about,
    )


def replay_plan(model: nn.Module, plan: Plan) -> nn.Module:
    """Cuts a fresh instance of the plan's model, widened first where the plan says so.

    Nothing is traced and nothing of the plan is executed.

    What is cut has to leave layers whose parts fit each other, and integers only shrink. Whether it is a removal of
    whole units is for `check_plan`, which needs a trace.

    Raises:
        FormatError: the plan is for another architecture, or names something the model does not have.
    """
    own = architecture_fingerprint(model)
    if plan.widening is not None and own != plan.architecture:
        model = replay_widening(model, plan.widening)
        own = architecture_fingerprint(model)
    if own != plan.architecture:
        raise FormatError(
            f"the plan is for another model (its fingerprint is {plan.architecture[:12]}, not {own[:12]}): "
            "build the model exactly as it was before pruning"
        )
    blocks = _checked_blocks(model, plan.blocks)
    shapes = {name: shape for name, shape in shapes_of(model).items() if not lies_in(name, blocks)}
    removed = _checked_indices(plan.removed, shapes)
    attributes = checked_attributes(model, plan.attributes, lambda old, new: new <= old, "shrink")
    try:
        pruned = cut(model, removed, attributes, blocks)
        broken = misfit(model, pruned) or _not_as_written(shapes, removed, shapes_of(pruned))
    except (ArithmeticError, AttributeError, IndexError, RuntimeError, TypeError, ValueError) as error:
        raise FormatError(f"the plan cannot be carried out on this model ({first_line(error)}): {CORRUPT}") from error
    if broken:
        raise FormatError(f"the plan leaves {broken!r} with parts that do not fit: {CORRUPT}")
    return pruned


def check_plan(network: Network, plan: Plan) -> None:
    """Checks a plan from a file against a trace: it must be a removal of whole units, with all that follows.

    Args:
        network: the traced model that the plan is for.
        plan: any plan that `replay_plan` accepts.

    Raises:
        FormatError: it cuts parts of units or other things, or its attributes or costs are not those of the removal.
    """
    gone = {(entry.parameter, entry.axis): set(entry.indices) for entry in plan.removed}
    whole = state_of(block for block in network.blocks if block.name in plan.blocks)

    def goes(unit: Unit) -> bool:
        return all(s.parameter in whole or gone.get(s[:2], set()).issuperset(s.indices) for s in unit.slices)

    honest = make_plan(network, [unit for unit in network.units if goes(unit)])
    for name, mine, truth in (
        ("blocks", set(plan.blocks), set(honest.blocks)),
        ("indices", gone, {(entry.parameter, entry.axis): set(entry.indices) for entry in honest.removed}),
        ("attributes", set(plan.attributes), set(honest.attributes)),
        ("costs", (plan.macs, plan.params, plan.bytes), (honest.macs, honest.params, honest.bytes)),
    ):
        if mine != truth:
            raise FormatError(f"the plan's {name} are not those of a removal of whole units of this model: {CORRUPT}")


def _not_as_written(before: Mapping[str, tuple[int, ...]], removed: Removed, after: Mapping[str, Any]) -> str:
    """The first parameter that lost something else than it should; a parametrised one is computed anew."""
    for name, shape in before.items():
        lost = [len(removed.get((name, axis), ())) for axis in range(len(shape))]
        if after.get(name) != tuple(np.subtract(shape, lost)):
            return name
    return ""


def _checked_blocks(model: nn.Module, blocks: Sequence[str]) -> tuple[str, ...]:
    paths = {path for path, _ in model.named_modules() if path}
    for block in blocks:
        if block not in paths or sum(lies_in(block, [other]) for other in blocks) > 1:
            raise FormatError(f"the plan bypasses {block!r}, which is no module of its own in this model: {CORRUPT}")
    return tuple(blocks)


def _checked_indices(
    entries: Sequence[RemovedIndices], shapes: Mapping[str, tuple[int, ...]]
) -> dict[Axis, NDArray[np.int64]]:
    removed: dict[Axis, NDArray[np.int64]] = {}
    for entry in entries:
        shape = shapes.get(entry.parameter)
        if shape is None or entry.axis >= len(shape):
            raise FormatError(f"the plan cuts {entry.parameter!r} (axis {entry.axis}), which the model does not have")
        indices = np.array(entry.indices, dtype=np.int64)
        valid = len(indices) and len(np.unique(indices)) == len(indices) < shape[entry.axis]
        if (entry.parameter, entry.axis) in removed or not valid or indices.max() >= shape[entry.axis]:
            raise FormatError(
                f"the plan's indices for {entry.parameter!r} (axis {entry.axis}, size {shape[entry.axis]}) "
                f"are not distinct, in range and fewer than all: {CORRUPT}"
            )
        removed[entry.parameter, entry.axis] = np.sort(indices)
    return removed
