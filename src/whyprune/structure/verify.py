"""The proof: pruned == the original under do(removed := 0), on real inputs, before anything is repaired."""

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, overload

import torch
from torch import Tensor, nn

from whyprune.data.batches import Batch
from whyprune.data.outputs import tensors_of
from whyprune.errors import InputError, VerificationError
from whyprune.results import Verification
from whyprune.structure.capture import first_line
from whyprune.structure.copies import duplicate
from whyprune.structure.entry import entered
from whyprune.structure.network import Network
from whyprune.structure.operations import name_of, where
from whyprune.structure.precise import doubled, in_double, operations_in_double
from whyprune.structure.probe import tolerance as tolerance_of
from whyprune.structure.remove import Excluding, masked, remove
from whyprune.structure.replay import Replay
from whyprune.structure.state import State
from whyprune.structure.units import Unit

TOLERANCE = 1e-4
MAX_IMAGES = 64


@overload
def verify(
    start: State,
    data: Iterable[Any] | None = None,
    *,
    tolerance: float = TOLERANCE,
    stress: bool = True,
    seed: int = 0,
) -> Verification: ...
@overload
def verify(
    start: Network,
    pruned: nn.Module,
    units: Iterable[Unit | str],
    data: Iterable[Any] | None = None,
    *,
    tolerance: float = TOLERANCE,
    stress: bool = True,
    seed: int = 0,
) -> Verification: ...
def verify(start: Network | State, *parts: Any, **options: Any) -> Verification:
    """Compares the pruned network's outputs with the masked original's.

    Called with a state and data, or with a network, a module that is said to be that network without `units`, these
    units, and data. Where the outputs differ, both are compared again in double precision: a network that amplifies
    rounding to more than the tolerance says nothing in its own precision.

    Args:
        start: the pruned network, before repair; or the traced original.
        parts: of a state the data; of a network `pruned`, `units` and the data. At most 64 images are used; default:
            the inputs of `trace`.
        options: `tolerance`: largest absolute difference of an output, relative to its largest value where that is
            above 1; `stress`: compare a second, random removal of half of every group as well; `seed`: of that random
            removal; and any of the parts by name.

    Raises:
        InputError: there is no data, or a unit is unknown.
        VerificationError: they differ; the message names the first operation at which they part.
    """
    if isinstance(start, State):
        return _verified(start.network, start.model, start.removed, *parts, **options)
    return _verified(State.of(start).network, *parts, **options)


def _verified(
    network: Network,
    pruned: nn.Module,
    units: Iterable[Unit | str],
    data: Iterable[Any] | None = None,
    *,
    tolerance: float = TOLERANCE,
    stress: bool = True,
    seed: int = 0,
) -> Verification:
    chosen = network.select(units)
    batches = list(_first_images(network, data))
    if not batches:
        raise InputError("there is no image to verify on: give at least one batch, or none to use the traced inputs")
    second = None
    difference, precise = _worst(_Comparison(network, pruned, chosen, tolerance), batches)
    if stress and network.units:
        drawn = _half_of_each(network, seed)
        second, again = _worst(_Comparison(network, remove(network, drawn), drawn, tolerance), batches)
        precise = precise or again
    return Verification(
        max_abs_difference=difference,
        tolerance=tolerance,
        inputs=sum(len(b) for b in batches),
        stress_max_abs_difference=second,
        in_double=precise,
    )


def _worst(comparison: "_Comparison", batches: Sequence[Batch]) -> tuple[float, bool]:
    """(the largest difference, whether it took double precision to tell it from rounding)."""
    try:
        return comparison.worst(batches), False
    except VerificationError as error:
        try:
            return comparison.in_double().worst([doubled(b) for b in batches]), True
        except VerificationError:  # wrong there as well
            raise error from None
        except RuntimeError:  # code that insists on its own precision
            found = comparison.worst_of_operations(batches)
            if found is None:
                raise error from None
            return found, True


def _first_images(network: Network, data: Iterable[Any] | None) -> Iterable[Batch]:
    if data is None:
        yield network.example
        return
    left = MAX_IMAGES
    for batch in entered(data, network):
        yield batch[slice(0, left)]
        left -= len(batch)
        if left <= 0:
            return


def _half_of_each(network: Network, seed: int) -> list[Unit]:
    generator = random.Random(seed)
    return [u for group in network.groups for u in generator.sample(group.units, len(group.units) // 2)]


@dataclass(frozen=True)
class _Comparison:
    """A pruned network beside the masked original without the same units."""

    network: Network
    pruned: nn.Module
    units: Sequence[Unit]
    tolerance: float

    @cached_property
    def reference(self) -> nn.Module:
        return masked(self.network, self.units)

    def in_double(self) -> "_Comparison":
        """The same in double precision."""
        return _Comparison(in_double(self.network), duplicate(self.pruned).double().eval(), self.units, self.tolerance)

    def worst(self, batches: Iterable[Batch]) -> float:
        """The largest difference of logits over all batches; an error where it is too large."""
        was_training = self.pruned.training
        self.pruned.eval()
        try:
            return max(self._difference(batch) for batch in batches)
        finally:
            self.pruned.train(was_training)

    def worst_of_operations(self, batches: Iterable[Batch]) -> float | None:
        """The largest difference of what the traced operations give in double precision; None where it is too large.

        The model's own code must agree as far as its precision tells.
        """
        network = operations_in_double(self.network)
        exact = _Comparison(network, duplicate(self.pruned).double().eval(), self.units, self.tolerance)
        small, full, worst = Replay(network, exact.pruned, self.units), exact._full(), 0.0
        try:
            replace(self, tolerance=tolerance_of(self.network)).worst(batches)
        except VerificationError:
            return None
        for batch in map(doubled, batches):
            pairs = [tensors_of(r.output(r.run(batch, keep=()))) for r in (small, full)]
            for mine, truth in zip(*pairs, strict=True):
                difference = _distance(mine, truth)
                if not self._close(difference, truth):
                    return None
                worst = max(worst, difference)
        return worst

    def _difference(self, batch: Batch) -> float:
        with torch.inference_mode():
            expected = tensors_of(batch.call(self.reference))
            try:
                found = tensors_of(batch.call(self.pruned))
            except (RuntimeError, ValueError, AssertionError) as error:
                raise self._error(f"does not run: {first_line(error)}", batch) from error
        worst = 0.0
        for mine, truth in zip(found, expected, strict=True):
            difference = _distance(mine, truth)
            if not self._close(difference, truth):
                what = f"differs from the masked original by {difference:.3g} (tolerance {self.tolerance:.3g})"
                raise self._error(what, batch)
            worst = max(worst, difference)
        return worst

    def _close(self, difference: float, expected: Tensor) -> bool:
        scale = float(expected.abs().max()) if expected.numel() else 0.0
        return difference <= self.tolerance * max(1.0, scale)

    def _error(self, what: str, batch: Batch) -> VerificationError:
        return VerificationError(
            f"the pruned network {what}; {self._parting(batch)}; do not use the pruned network, and keep the "
            "channels there (see network.refusals); a repaired or trained network differs by nature: verify before that"
        )

    def _parting(self, batch: Batch) -> str:
        """The first operation whose values differ where both networks should agree."""
        try:
            pruned = Replay(self.network, self.pruned, self.units)
            small = pruned.run(batch)
            full = self._full().run(batch)
        except (RuntimeError, InputError) as error:
            return f"the traced operations do not run on it either: {first_line(error)}"
        for node in self.network.graph.operations:
            expected, found = full.get(node), small.get(node)
            if not isinstance(expected, Tensor) or not expected.is_floating_point() or not isinstance(found, Tensor):
                continue
            expected = pruned.kept(node, expected)
            if not self._close(_distance(found, expected), expected):
                return f"they part at {name_of(node)} in {where(node)}"
        return "the pruned module's own code does not compute what was traced"

    def _full(self) -> Replay:
        if isinstance(self.reference, Excluding):
            return self.reference.replay
        return Replay(self.network, self.reference)


def _distance(found: Tensor, expected: Tensor) -> float:
    if found.shape != expected.shape:
        return float("inf")
    return float((found.double() - expected.double()).abs().max()) if expected.numel() else 0.0
