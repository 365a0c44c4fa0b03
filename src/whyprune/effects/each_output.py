"""How far each of several outputs is from the dense network's, so that a mean over outputs hides none that is lost."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from whyprune.effects.outcomes import Outcome
from whyprune.effects.output_shift import OutputShift


def each_output(outcome: Outcome, pruned: Sequence[Tensor], dense: Sequence[Tensor]) -> dict[str, float]:
    """Name of an output -> its squared distance over its own variance; empty where there are not several with a scale.

    Args:
        outcome: what harm is, fitted; only `OutputShift` is told apart by output.
        pruned: rows (B, F) of the pruned network, batch by batch.
        dense: of the dense one, on the same samples.
    """
    if not isinstance(outcome, OutputShift) or len(outcome.parts) < 2:
        return {}
    names = [name for name, _, _ in outcome.parts if outcome.weights.get(name, 1.0)]
    found, of_dense, of_pruned = {}, torch.cat(list(dense)), torch.cat(list(pruned))
    for name in names if len(names) > 1 else ():
        alone = replace(outcome, weights={other: float(other == name) for other, _, _ in outcome.parts}, factors=None)
        spans = {n: slice(start, stop) for n, start, stop in outcome.parts}
        if (of_dense[:, spans[name]] != of_dense[:1, spans[name]]).any():  # else it has no variance
            found[name] = float(alone.fit(of_dense)(of_pruned, of_dense, None).mean())
    return found
