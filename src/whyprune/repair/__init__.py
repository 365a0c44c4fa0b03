"""Repair without labels: closed-form refits, reconstructed branches, constants in biases, batch-norm re-estimation."""

from whyprune.repair.batch_norm import reestimate_batch_norm
from whyprune.repair.constants import fold_constants, repair_constants
from whyprune.repair.coverage import Unrefitted, unrefitted
from whyprune.repair.merging import merge
from whyprune.repair.reconstruction import reconstruct
from whyprune.repair.refit import repair

__all__ = [
    "Unrefitted",
    "fold_constants",
    "merge",
    "reconstruct",
    "reestimate_batch_norm",
    "repair",
    "repair_constants",
    "unrefitted",
]
