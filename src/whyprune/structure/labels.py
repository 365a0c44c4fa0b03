"""Labels for channel indices, and which of them must live or die together.

Every index of every axis of every parameter is an *atom*. Rules carry atoms through the network's operations
and unite those that belong to one channel; the classes that remain are the removable units: the connected
components of all unions.

A tensor has *labellings*. A labelling has as many dimensions as the tensor, each of full size or of size 1 where the
label does not depend on it; its entries are atoms, or `NONE`. An element of the tensor goes when its atom in any
labelling goes. A labelling over one dimension is the usual case: channels. A labelling over several is one whose
channels a reshape has spread (heads and their width), which moves through any operation as the values do.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor

Labels = NDArray[np.int64]
Labellings = tuple[Tensor, ...]
NONE = -1


@dataclass(frozen=True)
class Pin:
    """Atoms that must stay, where in the user's code, and why; `named` ones are told even if no layer writes them."""

    labels: Tensor
    where: str
    reason: str
    named: bool = False


@dataclass
class LabelSpace:
    """All atoms of a network, their unions and pins."""

    count: int = 0
    pins: list[Pin] = field(default_factory=list)
    _edges: list[Tensor] = field(default_factory=list)
    _uniform: list[Tensor] = field(default_factory=list)
    _roots: Tensor | None = None
    _unions: int = 0

    @property
    def state(self) -> tuple[int, int]:
        """A pair of numbers that changes with every union and pin."""
        return self._unions, len(self.pins)

    def save(self) -> "LabelSpace":
        """A copy to come back to: what is united or pinned from now on is not in it."""
        return replace(self, pins=list(self.pins), _edges=list(self._edges), _uniform=list(self._uniform))

    def restore(self, saved: "LabelSpace") -> None:
        """Forgets all unions and pins since `save`."""
        unions = self._unions + 1
        self.__dict__.update(saved.save().__dict__)
        self._unions = unions  # no state comes twice

    def fresh(self, count: int) -> Tensor:
        """`count` new atoms."""
        start, self.count, self._roots = self.count, self.count + count, None
        return torch.arange(start, start + count)

    def uniform(self, count: int) -> Tensor:
        """New atoms for indices that all hold one value, so that they can follow any channels they meet."""
        atoms = self.fresh(count)
        self._uniform.append(atoms)
        return atoms

    def is_uniform(self, labelling: Tensor) -> bool:
        """Whether a labelling's atoms are those of `uniform`."""
        first = int(labelling.flatten()[0])
        return any(int(atoms[0]) <= first <= int(atoms[-1]) for atoms in self._uniform)

    def unite(self, left: Tensor, right: Tensor) -> None:
        """Unites two arrays of atoms entry by entry, with broadcasting; `NONE` unites with nothing."""
        left, right = together(left, right)
        pairs = torch.stack([left.reshape(-1), right.reshape(-1)])
        pairs = pairs[:, (pairs >= 0).all(0) & (pairs[0] != pairs[1])]
        if pairs.shape[1]:
            self._edges.append(pairs)
            self._unions += 1
            self._roots = None

    def tie(self, labelling: Tensor, dims: Iterable[int], where: str) -> Tensor:
        """Unites all entries along `dims`, so that the labelling no longer depends on them; returns it without them."""
        for dim in dims:
            if labelling.shape[dim] > 1:
                first = labelling.amax(dim, keepdim=True)  # an atom where there is one: NONE is the smallest entry
                self.unite(labelling, first)
                lost = (labelling < 0).any(dim, keepdim=True) & (first >= 0)
                self.pin(first[lost], where, "they share an index with values that are no channels")
                labelling = first
        return labelling

    def pin(self, labels: Tensor | None, where: str, reason: str, *, named: bool = False) -> None:
        """Keeps these atoms' classes whole."""
        if labels is not None and bool((labels >= 0).any()):
            self.pins.append(Pin(labels[labels >= 0], where, reason, named))

    def roots(self, labels: Tensor) -> Tensor:
        """The representatives of many atoms: the smallest atom of each class; `NONE` stays."""
        if self._roots is None:
            self._roots = self._components()
        found = self._roots[labels.clamp_min(0)] if self.count else labels
        return torch.where(labels >= 0, found, NONE)

    def _components(self) -> Tensor:
        if not self._edges:
            return torch.arange(self.count)
        pairs = torch.cat(self._edges, 1).numpy()
        self._edges = [torch.from_numpy(pairs)]
        graph = coo_array((np.ones(pairs.shape[1], dtype=np.int8), (pairs[0], pairs[1])), (self.count, self.count))
        number, component = connected_components(graph, directed=False)
        first = np.full(number, self.count, dtype=np.int64)
        np.minimum.at(first, component, np.arange(self.count))
        return torch.from_numpy(first[component])


def together(left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    """Two arrays of labels, broadcast to one shape.

    Raises:
        ValueError: they cannot be, which means that a rule is wrong.
    """
    shape = np.broadcast_shapes(tuple(left.shape), tuple(right.shape))
    return left.expand(shape), right.expand(shape)


def distinct(labels: Tensor) -> list[int]:
    """The different labels, ascending."""
    return [int(x) for x in np.unique(labels.numpy())]


def support(labelling: Tensor) -> frozenset[int]:
    """The dimensions on which a labelling's labels depend."""
    return frozenset(d for d, size in enumerate(labelling.shape) if size > 1)


def compressed(labelling: Tensor) -> Tensor:
    """The labelling with size 1 along every dimension on which its labels do not depend."""
    for dim, size in enumerate(labelling.shape):
        if size > 1:
            first = labelling.narrow(dim, 0, 1)
            if labelling.stride(dim) == 0 or bool((labelling == first).all()):
                labelling = first
    return labelling


def along(labels: Tensor, dim: int, rank: int) -> Tensor:
    """A vector of labels as a labelling of a tensor of `rank` dimensions."""
    return labels.reshape([-1 if d == dim % rank else 1 for d in range(rank)])


def varies(labelling: Tensor, dims: Iterable[int]) -> bool:
    """Whether labels differ along any of `dims`."""
    return any(labelling.shape[d] > 1 and not bool((labelling == labelling.narrow(d, 0, 1)).all()) for d in dims)


def vector(labelling: Tensor, dim: int) -> Tensor:
    """The labels along one dimension, at the first index of all others."""
    return labelling.movedim(dim, -1).reshape(-1, labelling.shape[dim])[0]
