"""Gathers one layer's least-squares rows from the two networks in lock-step."""

import math

import torch
from torch import Tensor

from whyprune.repair.lockstep import StreamedActivations
from whyprune.repair.rows import sample_places
from whyprune.repair.targets import RefitTarget


def rows_for(
    dense: StreamedActivations, pruned: StreamedActivations, job: RefitTarget, features: int, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Features, targets and what the other branch adds, at sampled places of all images; split into groups.

    Args:
        dense: the original, not behind the aim yet.
        pruned: the network that is refitted, not behind the layer yet.
        job: what is refitted.
        features: of one group.
        generator: of the places.
    """
    dense.advance(job.aim)
    for needed in (job.data, job.other):
        if needed is not None:
            pruned.advance(needed)
    inputs, aims = pruned.of(job.data), [pruned.replay.kept(job.aim, t) for t in dense.of(job.aim)]
    others = None if job.other is None else pruned.of(job.other)
    how, images = job.layout, sum(len(t) for t in inputs)
    x, t, s = [], [], []
    for k, value in enumerate(inputs):
        places = sample_places(
            math.prod(how.sizes(value)), features, images, generator, groups=how.groups, every=how.kernel is None
        )
        x.append(how.features(value, places))
        t.append(how.values(aims[k], places))
        if others is not None:
            s.append(how.values(others[k], places))
    dense.release(job.aim)
    return how.split(torch.cat(x)), how.split(torch.cat(t)), how.split(torch.cat(s)) if s else None
