"""Random scores: the baseline that every criterion must beat at the same budget, repair and recovery."""

import numpy as np

from whyprune.effects.effects import Effects, from_scores
from whyprune.structure.network import Network


def random_scores(network: Network, *, seed: int = 0) -> Effects:
    """Uniform random scores in [0, 1)."""
    scores = np.random.default_rng(seed).random(len(network.units))
    return from_scores(network.units, scores, method="random")
