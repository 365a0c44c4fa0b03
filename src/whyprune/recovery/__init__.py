"""Trains a network before pruning or after it: with labels, the dense network as its teacher, penalties and masks."""

from whyprune.recovery.config import Recovery
from whyprune.recovery.coupled import CoupledWeights
from whyprune.recovery.features import MatchedLayer, matched_layers
from whyprune.recovery.masks import UnitMasks, masking
from whyprune.recovery.penalty import PENALTIES, Penalty, PenaltyFactory, penalty
from whyprune.recovery.run import RecoveryResult, recover
from whyprune.recovery.split import Splittable

__all__ = [
    "PENALTIES",
    "CoupledWeights",
    "MatchedLayer",
    "Penalty",
    "PenaltyFactory",
    "Recovery",
    "RecoveryResult",
    "Splittable",
    "UnitMasks",
    "masking",
    "matched_layers",
    "penalty",
    "recover",
]
