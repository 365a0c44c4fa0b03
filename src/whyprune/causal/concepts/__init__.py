"""Autoencoded concepts: few codes per layer, their causal effects on the class, and bottlenecks made of them."""

from whyprune.causal.concepts.bottleneck import Bottleneck, bottleneck
from whyprune.causal.concepts.estimator import Concepts, explain

__all__ = ["Bottleneck", "Concepts", "bottleneck", "explain"]
