"""Attempts to refute the effects behind a plan; each can fail, and says so in a sentence."""

from whyprune.causal.refutation.suite import refute

__all__ = ["refute"]
