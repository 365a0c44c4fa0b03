"""Pruning methods: frozen compositions of a scorer, an allocation, a schedule, a repair and a penalty, by name."""

from whyprune.methods.method import Method
from whyprune.methods.registry import METHODS, causal_method, causal_scorer, method_named, method_names
from whyprune.methods.schedule import Schedule

__all__ = ["METHODS", "Method", "Schedule", "causal_method", "causal_scorer", "method_named", "method_names"]
