"""The proof: pruned == the original under do(removed := 0), on real inputs, before anything is repaired."""

import random
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from whyprune.data.batches import Batch, as_batches
from whyprune.data.outputs import logits_of
from whyprune.errors import VerificationError
from whyprune.results import Verification
from whyprune.structure.network import Network
from whyprune.structure.remove import masked, remove
from whyprune.structure.replay import Replay
from whyprune.structure.rules.base import where
from whyprune.structure.units import Unit

TOLERANCE = 1e-4
MAX_IMAGES = 64


def verify(
    network: Network,
    pruned: nn.Module,
    units: Iterable[Unit | str],
    data: Iterable[Any] | None = None,
    *,
    tolerance: float = TOLERANCE,
    stress: bool = True,
    seed: int = 0,
) -> Verification:
    """Compares the pruned network's logits with the masked original's.

    Args:
        network: the traced original.
        pruned: the network without `units`, before repair.
        units: what was removed.
        data: batches to compare on (at most 64 images are used; default: the inputs the network was traced on).
        tolerance: largest absolute difference of logits, relative to the largest logit where that is above 1.
        stress: compare a second, random removal of half of every group as well.
        seed: of that random removal.

    Raises:
        VerificationError: they differ; the message names the first operation at which they part.
    """
    chosen = network.select(units)
    batches = list(_first_images(network, data))
    difference = _compare(network, pruned, chosen, batches, tolerance)
    second = None
    if stress and network.units:
        drawn = _half_of_each(network, seed)
        second = _compare(network, remove(network, drawn), drawn, batches, tolerance)
    return Verification(
        max_abs_difference=difference,
        tolerance=tolerance,
        inputs=sum(len(b) for b in batches),
        stress_max_abs_difference=second,
    )


def _first_images(network: Network, data: Iterable[Any] | None) -> Iterable[Batch]:
    if data is None:
        yield network.example
        return
    left = MAX_IMAGES
    for batch in as_batches(data, network.positional):
        yield batch[slice(0, left)]
        left -= len(batch)
        if left <= 0:
            return


def _compare(
    network: Network, pruned: nn.Module, units: Sequence[Unit], batches: Iterable[Batch], tolerance: float
) -> float:
    reference = masked(network, units)
    was_training = pruned.training
    pruned.eval()
    worst = 0.0
    try:
        with torch.inference_mode():
            for batch in batches:
                expected = logits_of(batch.call(reference))
                found = logits_of(batch.call(pruned))
                difference = _distance(found, expected)
                if not difference <= tolerance * max(1.0, float(expected.abs().max())):
                    raise VerificationError(_explain(network, pruned, reference, units, batch, difference, tolerance))
                worst = max(worst, difference)
    finally:
        pruned.train(was_training)
    return worst


def _distance(found: Tensor, expected: Tensor) -> float:
    return float("inf") if found.shape != expected.shape else float((found - expected).abs().max())


def _explain(
    network: Network,
    pruned: nn.Module,
    reference: nn.Module,
    units: Sequence[Unit],
    batch: Batch,
    difference: float,
    tolerance: float,
) -> str:
    place = _first_parting(network, pruned, reference, units, batch, tolerance)
    return (
        f"the pruned network differs from the masked original by {difference:.3g} (tolerance {tolerance:.3g}); "
        f"{place}; do not use the pruned network, and keep the channels there (see network.refusals)"
    )


def _first_parting(
    network: Network, pruned: nn.Module, reference: nn.Module, units: Sequence[Unit], batch: Batch, tolerance: float
) -> str:
    """The first reader whose outputs differ where both networks should agree."""
    try:
        small, full = Replay(network, pruned, units).run(batch), Replay(network, reference).run(batch)
    except RuntimeError as error:
        return f"an operation fails on the pruned network: {str(error).splitlines()[0]}"
    gone = [u.label for u in units]
    for reader in network.readers:
        keep = torch.tensor([label not in gone for label in reader.labels.tolist()])
        expected = full[reader.data].index_select(reader.dim, keep.nonzero().flatten())
        if _distance(small[reader.data], expected) > tolerance * max(1.0, float(expected.abs().max())):
            return f"they part before {where(reader.node)}"
    return "they part after the last layer that reads channels, or the module does not compute what was traced"


def _half_of_each(network: Network, seed: int) -> list[Unit]:
    generator = random.Random(seed)
    return [u for group in network.groups for u in generator.sample(group.units, len(group.units) // 2)]
