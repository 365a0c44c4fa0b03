"""`Block`: a residual block, which can go as a whole: without what it computes it hands on what it gets."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from torch import fx

from whyprune.structure.axes import Axis


@dataclass(frozen=True)
class Block:
    """A module that is the identity once its parameters are zero, and what lies inside it.

    It is bypassed when all units of all groups inside it are gone.

    Attributes:
        name: dotted path of the module.
        groups: the groups that lie inside it altogether.
        axes: (axis, its size) of those groups; with all of their units gone nothing is left of them.
        source: the tensor that the block gets.
        result: the tensor that it gives.
        inside: the operations between the two.
        state: names of its parameters and buffers.
    """

    name: str
    groups: tuple[str, ...]
    axes: tuple[tuple[Axis, int], ...]
    source: fx.Node
    result: fx.Node
    inside: frozenset[fx.Node]
    state: frozenset[str]

    def bypassed(self, gone: Mapping[Axis, int]) -> bool:
        """Whether the block is gone when axes lose so many indices."""
        return all(gone.get(axis, 0) >= size for axis, size in self.axes)

    @property
    def operations(self) -> frozenset[str]:
        """Names of the operations that go with it."""
        return frozenset(node.name for node in (*self.inside, self.result))

    def __repr__(self) -> str:
        return f"Block({self.name})"


def operations_of(blocks: Iterable[Block], gone: Mapping[Axis, int]) -> frozenset[str]:
    """Names of all operations that run no more when axes lose so many indices."""
    return frozenset().union(*(block.operations for block in blocks if block.bypassed(gone)))


def state_of(blocks: Iterable[Block]) -> frozenset[str]:
    """Names of the parameters and buffers of blocks."""
    return frozenset().union(*(block.state for block in blocks))


def lies_in(path: str, blocks: Collection[str]) -> bool:
    """Whether a module, parameter or buffer is one of the modules `blocks` or belongs to one."""
    return any(path == block or path.startswith(f"{block}.") for block in blocks)
