"""How concepts are learnt and judged, and how a budget is shared out."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from whyprune.errors import InputError


@dataclass(frozen=True)
class ConceptDesign:
    """Choices of the method; all of them ours [I] but for the kinds of losses and of effects.

    Attributes:
        share: codes per channel of a layer; at least 2 codes.
        steps: Adam steps per autoencoder; 0 leaves it at its start, the principal components.
        batch: images per step.
        learning_rate: of Adam.
        deep: weight of the KL divergence of class probabilities.
        interpretability: weight of the codes' entropy over places and total variation.
        runs: intervened runs per layer, from which the Bayesian network is fitted.
        drop: probability with which a code is set to zero in such a run.
        bins: values of a code in the Bayesian network.
        model: its conditionals: `logistic` regression, or `boosted` trees.
        effects: what a code is weighted by: `expected`, the expected causal effect in the fitted Bayesian network; or
            `measured`, the class probabilities' change when the code is set to zero in the real network.
    """

    share: float = 0.5
    steps: int = 60
    batch: int = 64
    learning_rate: float = 0.01
    deep: float = 1.0
    interpretability: float = 0.01
    runs: int = 256
    drop: float = 0.25
    bins: int = 3
    model: Literal["logistic", "boosted"] = "logistic"
    effects: Literal["expected", "measured"] = "expected"

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1 or not 0 < self.drop < 1 or self.bins < 2:
            raise InputError(f"{self}: share is in (0, 1], drop in (0, 1), bins at least 2")
        if self.model not in ("logistic", "boosted") or self.effects not in ("expected", "measured"):
            raise InputError(f"{self}: model is logistic or boosted, effects are expected or measured")

    def codes(self, channels: int) -> int:
        """How many codes a layer of this many channels gets."""
        return min(channels, max(2, round(self.share * channels)))


def step_cost(share: float) -> float:
    """One image in one step: a forward pass, and forward and backward once more behind the layer."""
    return 1.0 + 3.0 * share


def affordable(design: ConceptDesign, shares: Sequence[float], images: int, budget: float | None) -> ConceptDesign:
    """The design with as many runs and steps as a budget pays for; runs come first.

    Args:
        design: what is wanted.
        shares: of every layer, which part of the network's MACs lies behind it.
        images: how many images there are.
        budget: in dense forward passes of one image; None for no limit.

    Raises:
        InputError: the budget pays for no runs at all.
    """
    if budget is None:
        return design
    fixed = 2.0 * images + sum((1 + s) * images for s in shares)
    left = budget - fixed
    runs = min(design.runs, int(left / 2 / sum(1 + s for s in shares)))
    if runs < MIN_RUNS:
        need = fixed + 2 * MIN_RUNS * sum(1 + s for s in shares)
        raise InputError(
            f"{budget:g} forward passes do not pay for concepts of {len(shares)} layers on {images} images: "
            f"give at least {need + 1:.0f}"
        )
    left -= runs * sum(1 + s for s in shares)
    steps = min(design.steps, int(left / (design.batch * sum(map(step_cost, shares)))))
    return replace(design, runs=runs, steps=steps)


MIN_RUNS = 8
