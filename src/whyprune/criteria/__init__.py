"""Criteria: scores per unit that are no measured effects, for comparison."""

from whyprune.criteria.magnitude import magnitude
from whyprune.criteria.random_scores import random_scores
from whyprune.criteria.taylor import taylor

__all__ = ["magnitude", "random_scores", "taylor"]
