"""Gathers one layer's least-squares rows from the two networks in lock-step."""

import torch
from torch import Tensor

from whyprune.repair.lockstep import StreamedActivations
from whyprune.repair.rows import sample_places
from whyprune.repair.targets import RefitTarget


def rows_for(
    dense: StreamedActivations, pruned: StreamedActivations, job: RefitTarget, features: int, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Features, targets and what the other branch adds, at sampled places of all images."""
    dense.advance(job.aim)
    for needed in (job.data, job.other):
        if needed is not None:
            pruned.advance(needed)
    inputs, aims = pruned.of(job.data), [pruned.replay.kept(job.aim, t) for t in dense.of(job.aim)]
    others = None if job.other is None else pruned.of(job.other)
    images = sum(len(t) for t in inputs)
    x, t, s = [], [], []
    for k, value in enumerate(inputs):
        places = sample_places(job.node, features, images, generator, aims[k])
        x.append(job.layout.features(value, places))
        t.append(job.layout.values(aims[k], places))
        if others is not None:
            s.append(job.layout.values(others[k], places))
    dense.release(job.aim)
    return torch.cat(x), torch.cat(t), torch.cat(s) if s else None
