"""Repair without labels or gradient steps: closed-form refits, and batch-norm re-estimation as a baseline."""

from whyprune.repair.batch_norm import reestimate_batch_norm
from whyprune.repair.refit import repair

__all__ = ["reestimate_batch_norm", "repair"]
