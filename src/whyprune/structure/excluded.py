"""Operations that mix channels without a weight per channel, run without some of the channels."""

import operator
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx

from whyprune.structure.axes import Extent
from whyprune.structure.network import Network
from whyprune.structure.operations import functional
from whyprune.structure.precise import arguments_at_least
from whyprune.structure.schedule import adjusted


class Exclusion:
    """Leaves channels out of layer norm, softmax, means and products, while the tensors keep their size.

    The operation runs on the kept indices of its inputs; in its output the others are zero.
    """

    def __init__(self, network: Network, labels: frozenset[int], precision: torch.dtype | None = None) -> None:
        self._network, self._labels, self._precision = network, labels, precision
        readers = [r for r in network.readers if not r.affine and not labels.isdisjoint(r.labels.tolist())]
        self.nodes = frozenset(r.node for r in readers)

    def __contains__(self, node: fx.Node) -> bool:
        return node in self.nodes

    def step(self, node: fx.Node, resolve: Callable[[Any], Any]) -> Any:
        """The value of one operation; `resolve` gives the values of its arguments."""
        given = adjusted(node, self._network.sites_of.get(node, ()), self._labels)
        args, kwargs = arguments_at_least(*given, self._precision)

        def reduced(value: Any) -> Any:
            if isinstance(value, list | tuple):
                return type(value)(reduced(v) for v in value)
            found = resolve(value)
            if isinstance(value, fx.Node) and isinstance(found, Tensor):
                for dim, keep in self._kept(value):
                    found = found.index_select(dim, keep.to(found.device))
            return found

        small = functional(node.target)(*map(reduced, args), **{k: reduced(v) for k, v in kwargs.items()})
        if isinstance(small, list | tuple):
            parts = {user.args[1]: user for user in node.users if user.target is operator.getitem}
            return type(small)([self._spread(parts[i], x) if i in parts else x for i, x in enumerate(small)])
        return self._spread(node, small) if isinstance(small, Tensor) else small

    def _spread(self, node: fx.Node, small: Tensor) -> Tensor:
        for dim, keep in self._kept(node):
            size = list(small.shape)
            size[dim] = len(dict(self._extent(node))[dim])
            full = small.new_zeros(size)
            small = full.index_copy_(dim, keep.to(small.device), small)
        return small

    def _extent(self, node: fx.Node) -> Extent:
        return self._network.extents.get(node, ())

    def _kept(self, node: fx.Node) -> list[tuple[int, Tensor]]:
        """Along which dimensions a tensor loses indices, and those that it keeps."""
        gone = list(self._labels)
        held = [(dim, np.flatnonzero(~np.isin(labels, gone))) for dim, labels in self._extent(node)]
        lengths = {dim: len(labels) for dim, labels in self._extent(node)}
        return [(dim, torch.from_numpy(keep)) for dim, keep in held if len(keep) < lengths[dim]]
