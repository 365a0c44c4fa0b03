"""Made-up effects, response curves and networks."""

import numpy as np
import torch
from torch import nn

from whyprune.allocation import Budget, allocate_curves
from whyprune.effects.effects import Effects, ResponseCurve
from whyprune.structure.remove import remove
from whyprune.structure.state import State
from whyprune.structure.trace import trace

COSTS = ("macs", "params", "bytes")


def some_effects(network, seed=0, curves=True, estimand="single") -> Effects:
    """Made-up effects, and convex or crooked curves over all units but one of every group."""
    rng = np.random.default_rng(seed)
    mean = rng.gamma(1.0, size=len(network.units))
    return Effects(
        units=tuple(u.name for u in network.units),
        groups=tuple(u.group for u in network.units),
        mean=mean,
        standard_error=0 * mean,
        samples=9,
        outcome="logit-shift",
        intervention="zero",
        estimand=estimand,
        method="made up",
        curves={g.name: a_curve(g, rng) for g in network.groups} if curves else {},
    )


def a_curve(group, rng) -> ResponseCurve:
    order = [u.name for u in group.units]
    rng.shuffle(order)
    removed = np.arange(len(order))
    effect = np.r_[0.0, np.cumsum(rng.gamma(0.5, size=len(order) - 1))]
    return ResponseCurve(group.name, tuple(order[:-1]), removed, effect, 0 * effect)


def plan_along(network, curves, budget: Budget, *, removed=(), **about):
    """The plan along curves, from a network that lacks `removed` on."""
    state = State(network, remove(network, removed), tuple(removed)) if removed else State.of(network)
    return allocate_curves(state, curves, budget, method="made up", **about)


def chain(widths):
    """A traced chain of 3x3 convolutions of these widths, with a linear layer behind."""
    layers_of, before = [], 3
    for width in widths:
        layers_of += [nn.Conv2d(before, width, 3, padding=1), nn.ReLU()]
        before = width
    return trace(
        nn.Sequential(*layers_of, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(before, 4)).eval(),
        torch.zeros(2, 3, 8, 8),
    )
