"""Actual causality in one network: who is responsible for a prediction, and how much."""

from whyprune.causal.responsibility.contingency import Contingency
from whyprune.causal.responsibility.event import Event
from whyprune.causal.responsibility.measure import responsibilities
from whyprune.causal.responsibility.prediction import Cause, Explanation, explain_prediction
from whyprune.causal.responsibility.result import Responsibilities
from whyprune.causal.responsibility.saliency import saliency

__all__ = [
    "Cause",
    "Contingency",
    "Event",
    "Explanation",
    "Responsibilities",
    "explain_prediction",
    "responsibilities",
    "saliency",
]
