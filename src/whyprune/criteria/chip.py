"""CHIP: channel independence, how much the nuclear norm of all maps of a layer shrinks when one map is zeroed.

Sui et al., NeurIPS 2021. [P] CI_c = |A|_* - |A with row c zeroed|_*, where A (channels, places) holds the maps of one
image, averaged over images; small meaning that the others span it. [C] on raw maps of five batches. [I] Singular values
come from the smaller of the two Gram matrices in float64, of which one row is one downdate.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from whyprune.criteria.feature_maps import affordable, flat, scored_maps
from whyprune.data.batches import Batch
from whyprune.effects.effects import Effects
from whyprune.scoring.contract import Question, scorer
from whyprune.structure.network import Network
from whyprune.structure.state import State
from whyprune.structure.units import Unit

MATRICES = 2**24
"""Numbers in one batch of Gram matrices: 128 MiB in float64."""


def chip(
    start: Network | State,
    data: Iterable[Any],
    *,
    units: Sequence[Unit | str] | None = None,
    reduction: str | None = None,
) -> Effects:
    """The mean channel independence of every unit, as its readers see it.

    Args:
        start: a traced model, or a state of it.
        data: batches; labels are not used.
        units: which units (default: all that are there).
        reduction: over the tensors in which a unit is read: `mean` (default), `sum` or `max`.

    Raises:
        InputError: there is no data, another reduction, or an unknown unit.
    """
    return scored_maps(start, data, units, independence, reduction, method="chip")


def independence(maps: Tensor) -> Tensor:
    """Channel independence (images, channels) of maps (images, channels, *places)."""
    found = []
    for rows in flat(maps):  # one image: (channels, places)
        channels, places = rows.shape
        wide = places >= channels
        gram = rows @ rows.T if wide else rows.T @ rows
        side, left = len(gram), []
        for chunk in torch.split(torch.arange(channels), max(1, MATRICES // side**2)):
            if wide:
                stay = torch.ones(len(chunk), channels, dtype=gram.dtype)
                stay[torch.arange(len(chunk)), chunk] = 0
                without = gram * stay[:, :, None] * stay[:, None, :]
            else:
                own = rows[chunk]
                without = gram - own[:, :, None] * own[:, None, :]
            left.append(_nuclear(without))
        found.append((_nuclear(gram) - torch.cat(left)).clamp_min(0))
    return torch.stack(found)


def _nuclear(gram: Tensor) -> Tensor:
    """Nuclear norms of matrices whose Gram matrices these are."""
    norms: Tensor = torch.linalg.eigvalsh(gram).clamp_min(0).sqrt().sum(dim=-1)
    return norms


@scorer(
    "chip",
    kind="criterion",
    summary="how much the nuclear norm of a layer's maps shrinks without the channel",
    estimand="score",
    cost="one forward pass, and one eigenvalue decomposition per channel and image",
    guarantee="none",
    paper="Sui et al., NeurIPS 2021",
    labels="no",
    reduces=True,
    most_images=64,
    scaling="proportional",
    duplicates="alike",
)
def chip_scores(state: State, batches: Sequence[Batch], question: Question) -> Effects:
    """Channel independence on the images given."""
    return chip(state, affordable(batches, question), units=question.units, reduction=question.reduction)
