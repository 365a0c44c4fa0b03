"""Labels for channel indices, and which of them must live or die together.

Every index of every axis of every parameter is an *atom*. Rules carry atoms through the network's operations
and unite those that belong to one channel; the classes that remain are the removable units. Uniting is
union-find with path halving (Tarjan & van Leeuwen 1984).
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Labels = NDArray[np.int64]
Axes = tuple[Labels | None, ...]
"""Labels of one tensor: per dimension the atom of every index, or None where indices are no channels."""


@dataclass(frozen=True)
class Pin:
    """Atoms that must stay, where in the user's code, and why."""

    labels: Labels
    where: str
    reason: str


@dataclass
class LabelSpace:
    """All atoms of a network, their unions and pins."""

    parent: list[int] = field(default_factory=list)
    pins: list[Pin] = field(default_factory=list)

    def fresh(self, count: int) -> Labels:
        """`count` new atoms."""
        start = len(self.parent)
        self.parent.extend(range(start, start + count))
        return np.arange(start, start + count, dtype=np.int64)

    def find(self, atom: int) -> int:
        """The representative of an atom's class."""
        parent = self.parent
        while parent[atom] != atom:
            parent[atom] = parent[parent[atom]]
            atom = parent[atom]
        return atom

    def roots(self, labels: Labels) -> Labels:
        """The representatives of many atoms."""
        return np.fromiter((self.find(a) for a in labels.tolist()), dtype=np.int64, count=len(labels))

    def unite(self, left: Labels, right: Labels) -> Labels:
        """Unites two arrays of atoms index by index and returns one of them.

        Raises:
            ValueError: the arrays differ in length, which means that a rule is wrong.
        """
        if len(left) != len(right):
            raise ValueError(f"cannot unite {len(left)} with {len(right)} channels")
        for a, b in zip(left.tolist(), right.tolist(), strict=True):
            root_a, root_b = self.find(a), self.find(b)
            if root_a != root_b:
                self.parent[max(root_a, root_b)] = min(root_a, root_b)
        return left

    def pin(self, labels: Labels | None, where: str, reason: str) -> None:
        """Keeps these atoms' classes whole."""
        if labels is not None and len(labels):
            self.pins.append(Pin(labels, where, reason))

    def pin_all(self, axes: Axes | None, where: str, reason: str) -> None:
        """Keeps every labelled dimension of a tensor whole."""
        for labels in axes or ():
            self.pin(labels, where, reason)
