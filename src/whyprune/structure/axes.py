"""Axes of parameters, and of tensors, along which channels lie."""

from whyprune.structure.labels import Labels

Axis = tuple[str, int]
"""A parameter's name, and which of its axes."""

Extent = tuple[tuple[int, Labels], ...]
"""For one tensor: dimensions along which channels lie, each with the class of every index."""
