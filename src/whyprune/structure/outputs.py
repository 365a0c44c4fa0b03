"""`OutputLayout`: which tensors of what a model returns count, and one flat row of numbers per image for all of them.

Everything that compares two networks compares *rows*, (B, F): the tensors that count, each brought to batch first,
flattened and put side by side. A tensor of logits (B, K) is its own rows. `raw` turns rows back into what the model
returns: the same dict, tuple or dataclass, with tensors of the same shape.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, fx
from torch.utils import _pytree as pytree

from whyprune.errors import InputError
from whyprune.structure.capture import Graph

Named = str | int
SINGLE = "output"
"""The name of a tensor that is all that a model returns."""
LOGITS = "logits"


@dataclass(frozen=True)
class Place:
    """Where the images lie in a tensor: along which dimension, and how many parts each image has there, one by one."""

    dim: int
    parts: int = 1


@dataclass(frozen=True)
class OutputTensor:
    """One tensor of what a model returns.

    Attributes:
        name: the way to it: `out`, `0`, `boxes.1`; `output` where it is all that the model returns.
        index: its place among the leaves of what is returned.
        node: what computes it.
        shape: on the example inputs.
        dtype: its type.
        place: where the images lie; None where it holds none.
        because: why it does not count; empty where it does.
    """

    name: str
    index: int
    node: fx.Node
    shape: tuple[int, ...]
    dtype: torch.dtype
    place: Place | None
    because: str = ""

    @property
    def counts(self) -> bool:
        """Whether outcomes see it."""
        return not self.because

    @property
    def sizes(self) -> tuple[int, ...]:
        """Its sizes for one image."""
        if self.place is None:
            return self.shape
        rest = (*self.shape[: self.place.dim], *self.shape[self.place.dim + 1 :])
        return (self.place.parts, *rest) if self.place.parts > 1 else rest

    @property
    def columns(self) -> int:
        """How many numbers of a row are its own."""
        count = 2 if self.dtype.is_complex else 1
        for size in self.sizes:
            count *= size
        return count

    @property
    def shown(self) -> str:
        """Its sizes in words, such as `(B, 4, 12, 12)`."""
        sizes = [str(size) for size in self.shape]
        if self.place is not None:
            sizes[self.place.dim] = "B" if self.place.parts == 1 else f"{self.place.parts}B"
        return f"({', '.join(sizes)}{',' if len(sizes) == 1 else ''})"

    def rows(self, value: Tensor) -> Tensor:
        """(B, columns), in single precision or better."""
        assert self.place is not None
        value = torch.view_as_real(value) if value.is_complex() else value
        if not value.is_floating_point() or value.dtype in (torch.float16, torch.bfloat16):
            value = value.float()
        value = value.movedim(self.place.dim, 0) if self.place.dim else value
        if value.dim() == 2 and self.place.parts == 1:
            return value
        return value.reshape(len(value) // self.place.parts, -1)

    def raw(self, rows: Tensor) -> Tensor:
        """From its columns of rows to the tensor as the model gives it, in the rows' precision."""
        assert self.place is not None
        rest = [*self.shape[: self.place.dim], *self.shape[self.place.dim + 1 :]]
        value = rows.reshape(len(rows) * self.place.parts, *rest, *([2] if self.dtype.is_complex else []))
        value = value.movedim(0, self.place.dim)
        if self.dtype.is_complex:
            return torch.view_as_complex(value.contiguous())
        return value if self.dtype.is_floating_point else value.round().to(self.dtype)


@dataclass(frozen=True)
class OutputLayout:
    """What a model returns, and which of it counts.

    Attributes:
        tensors: every tensor among the leaves.
        leaves: the leaves as the example inputs gave them: what does not depend on images is the same for all.
        spec: how leaves fold into what the model returns.
        whole: whether rows hold all that depends on images, for outcomes that are shown everything.
        asked: whether the user chose what counts.
    """

    tensors: tuple[OutputTensor, ...]
    leaves: tuple[Any, ...] = field(repr=False, compare=False)
    spec: Any = field(repr=False, compare=False)
    whole: bool = False
    asked: bool = False

    @cached_property
    def counting(self) -> tuple[OutputTensor, ...]:
        """The tensors that count."""
        return tuple(t for t in self.tensors if t.counts)

    @cached_property
    def held(self) -> tuple[OutputTensor, ...]:
        """The tensors whose numbers are in rows: those that count, and for `whole` all others that hold images."""
        rest = tuple(t for t in self.tensors if not t.counts and t.place is not None)
        return self.counting + (_without_doubles(self.counting, rest) if self.whole else ())

    @cached_property
    def slices(self) -> tuple[tuple[OutputTensor, slice], ...]:
        """The columns of every tensor that rows hold."""
        found, start = [], 0
        for tensor in self.held:
            found.append((tensor, slice(start, start + tensor.columns)))
            start += tensor.columns
        return tuple(found)

    @property
    def columns(self) -> int:
        """F, how many numbers a row has."""
        return sum(tensor.columns for tensor in self.held)

    @property
    def is_logits(self) -> bool:
        """Whether one vector of at least two numbers per image counts, (B, K), and nothing else."""
        if len(self.counting) != 1:
            return False
        only = self.counting[0]
        place = only.place
        return place == Place(0) and len(only.shape) == 2 and only.shape[1] >= 2 and not only.dtype.is_complex

    def for_all(self, whole: bool = True) -> "OutputLayout":
        """The same layout, whose rows hold everything that depends on images, or only what counts."""
        needed = whole and any(not t.counts and t.place is not None for t in self.tensors)
        return self if needed == self.whole else replace(self, whole=needed)

    def rows(self, get: Callable[[fx.Node], Any]) -> Tensor:
        """(B, F) from the values of nodes.

        Raises:
            InputError: nothing that the model returns counts.
        """
        if not self.held:
            raise InputError(f"the network returns no numbers per image: {self.describe()}; return a floating tensor")
        if len(self.held) == 1:
            return self.held[0].rows(get(self.held[0].node))
        return torch.cat([tensor.rows(get(tensor.node)) for tensor in self.held], dim=1)

    def logits(self, output: Any) -> Tensor:
        """The logits (B, K) in what a model of this layout returns."""
        return self.counting[0].rows(pytree.tree_leaves(output)[self.counting[0].index])

    def rows_of(self, output: Any) -> Tensor:
        """(B, F) from what a model of this layout returns."""
        leaves = pytree.tree_leaves(output)
        return self.rows({tensor.node: leaves[tensor.index] for tensor in self.tensors}.__getitem__)

    def raw(self, rows: Tensor) -> Any:
        """From rows (B, F) to what the model returns; needs `whole` where not everything counts."""
        if len(rows) and rows.shape[1] != self.columns:
            raise InputError(f"rows of {rows.shape[1]} numbers: this network's have {self.columns}")
        made = {tensor.node: tensor.raw(rows[:, place]) for tensor, place in self.slices}
        nodes = {tensor.index: tensor.node for tensor in self.tensors}
        leaves = [made.get(nodes[k], leaf) if k in nodes else leaf for k, leaf in enumerate(self.leaves)]
        return pytree.tree_unflatten(leaves, self.spec)

    def chosen(self, names: Named | Iterable[Named] | None) -> "OutputLayout":
        """The same layout, in which the tensors of these names or numbers count, and no others.

        Raises:
            InputError: a name that no tensor has, or a tensor of which no outcome can be made.
        """
        if names is None:
            return self
        wanted = [names] if isinstance(names, str | int) or not isinstance(names, Iterable) else list(names)
        if strange := [name for name in wanted if isinstance(name, bool) or not isinstance(name, str | int)]:
            raise InputError(f"outputs holds {strange[0]!r:.60}: give names or numbers, out of {self._names}")
        picked = {self._of(name).index for name in wanted}
        if not picked:
            raise InputError(f"outputs names nothing: choose from {self._names}")
        tensors = []
        for tensor in self.tensors:
            reason = _no_number(tensor)
            if tensor.index in picked and reason:
                raise InputError(f"output {tensor.name!r} cannot count: {reason}; choose from {self._names}")
            tensors.append(replace(tensor, because="" if tensor.index in picked else "it was not chosen"))
        return replace(self, tensors=tuple(tensors), asked=True)

    def describe(self) -> str:
        """What the model returns, in words."""
        if not self.tensors:
            return "no tensor"
        if len(self.tensors) == 1:
            return f"one tensor {self.tensors[0].shown}"
        return f"{len(self.tensors)} tensors: " + ", ".join(f"{t.name!r} {t.shown}" for t in self.tensors)

    def notes(self) -> list[str]:
        """Sentences on what counts, where that does not go without saying."""
        left = [t for t in self.tensors if not t.counts]
        if len(self.tensors) < 2 or not self.counting:
            return []
        names = ", ".join(f"{t.name!r} {t.shown}" for t in self.counting)
        verb = "counts" if len(self.counting) == 1 else "count"
        said = f"Of what the network returns, the output {names} {verb}."
        if len(self.counting) > 1:
            said = f"Of what the network returns, the outputs {names} {verb}, each over its own variance."
        if left:
            said += " Not counted: " + "; ".join(f"{t.name!r} {t.shown}, {t.because}" for t in left) + "."
        return [said if self.asked or not left else said + " Choose others with outputs=…."]

    def no_logits(self) -> str:
        """Why there are no classes to predict, to go on a sentence with."""
        names = ", ".join(f"{t.name!r} {t.shown}" for t in self.counting)
        return f"the network's output is {names or self.describe()}, not one vector of logits (B, K) per image"

    @property
    def _names(self) -> str:
        return ", ".join(repr(tensor.name) for tensor in self.tensors)

    def _of(self, name: Named) -> OutputTensor:
        found = [t for t in self.tensors if t.name == str(name)]
        if not found and str(name).isdecimal() and int(name) < len(self.tensors):
            found = [self.tensors[int(name)]]
        if not found:
            raise InputError(f"no output is named {name!r}: the network returns {self._names}")
        return found[0]


def layout_of(graph: Graph) -> OutputLayout:
    """The layout of a captured model's output: what counts by default.

    One tensor counts. Of several, `logits` does, where there are any; else all that hold images and numbers.
    """
    flat, spec = list(graph.output.args[0]), graph.out_spec  # type: ignore[arg-type]
    leaves = pytree.tree_leaves(graph.returned)
    names = names_of(graph.returned)
    weighted = _behind_weights(graph)
    places = placing(graph)
    tensors: list[OutputTensor] = []
    for index, (node, leaf) in enumerate(zip(flat, leaves, strict=True)):
        if not isinstance(node, fx.Node) or not isinstance(leaf, Tensor):
            continue
        tensor = OutputTensor(names[index], index, node, tuple(leaf.shape), leaf.dtype, places(node, leaf))
        because = _no_number(tensor) or ("" if node in weighted else "no weight acts on it")
        double = next((t.name for t in tensors if t.node is node), "")
        tensors.append(replace(tensor, because=because or (f"it is {double!r} again" if double else "")))
    logits = next((t for t in tensors if t.name == LOGITS and t.counts), None)
    if logits is not None:
        why = "only 'logits' do"
        tensors = [t if t is logits or t.because else replace(t, because=why) for t in tensors]
    constant = tuple(leaf.detach() if isinstance(leaf, Tensor) else leaf for leaf in leaves)
    return OutputLayout(tuple(tensors), constant, spec)


def names_of(output: Any) -> list[str]:
    """A name for every leaf of what a model returns: the way to it."""
    leaves = pytree.tree_leaves(output)
    if len(leaves) == 1 and leaves[0] is output:
        return [SINGLE]
    names = [".".join(way) for way in _ways(output, ())]
    return names if len(names) == len(leaves) else [str(k) for k in range(len(leaves))]


def output_named(output: Any, name: str) -> Tensor:
    """The tensor of that name in what a model returns.

    Raises:
        InputError: there is none.
    """
    found = dict(zip(names_of(output), pytree.tree_leaves(output), strict=True)).get(name)
    if not isinstance(found, Tensor):
        raise InputError(f"no output is named {name!r}: the network returns {', '.join(map(repr, names_of(output)))}")
    return found


def placing(graph: Graph) -> Callable[[fx.Node, Tensor], Place | None]:
    """Says where the images lie in a node's value, from the symbolic size of the batch; None where they do not."""
    inputs = [n for n in graph.nodes if n.op == "placeholder" and n.name in graph.inputs]
    sizes: list[Any] = [v.shape[0] for n in inputs if isinstance(v := n.meta.get("val"), Tensor) and v.dim()]
    free = [s.node.expr for s in sizes if isinstance(s, torch.SymInt)]

    def place(node: fx.Node, value: Tensor) -> Place | None:
        held = node.meta.get("val")
        known = held if isinstance(held, Tensor) else value
        batch = free[0] if free and graph.batch_size is None else graph.batch_size
        same = dict.fromkeys(free[1:], batch)  # inputs that never meet have sizes of their own: all are the batch's
        found = [_multiple(size, batch, same) for size in known.shape]
        exact = [d for d, parts in enumerate(found) if parts == 1]
        if exact:
            return Place(exact[0])
        return Place(0, found[0]) if found and found[0] else None

    return place


def _multiple(size: Any, batch: Any, same: Mapping[Any, Any]) -> int:
    """How many times the batch a size is; 0 where it is no such number."""
    if isinstance(batch, int):  # the only one that runs
        return int(size) // batch if int(size) > 0 and int(size) % batch == 0 else 0
    if isinstance(size, int) or batch is None:
        return 0
    share = size.node.expr.subs(same) / batch
    return int(share) if share.is_Integer else 0


def _no_number(tensor: OutputTensor) -> str:
    """Why a tensor cannot count, whatever is asked for; empty where it can."""
    if tensor.place is None:
        return "it does not hold the images of the batch"
    if not tensor.dtype.is_floating_point and not tensor.dtype.is_complex:
        return f"it holds {str(tensor.dtype).removeprefix('torch.')}, no real numbers"
    return "" if tensor.columns else "it is empty"


def _without_doubles(first: Sequence[OutputTensor], rest: Iterable[OutputTensor]) -> tuple[OutputTensor, ...]:
    seen = {tensor.node for tensor in first}
    found = []
    for tensor in rest:
        if tensor.node not in seen:
            seen.add(tensor.node)
            found.append(tensor)
    return tuple(found)


def _behind_weights(graph: Graph) -> set[fx.Node]:
    """All nodes that depend on a parameter or buffer."""
    found: set[fx.Node] = set()
    for node in graph.nodes:
        if node.name in graph.state_names or any(n in found for n in node.all_input_nodes):
            found.add(node)
    return found


def _ways(value: Any, way: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """The way to every leaf: keys, numbers and names of fields."""
    parts: list[tuple[str, Any]] | None = None
    if isinstance(value, Mapping):
        parts = [(str(key), entry) for key, entry in value.items()]
    elif is_dataclass(value) and not isinstance(value, type):
        held = [(f.name, getattr(value, f.name)) for f in fields(value)]
        parts = [(name, entry) for name, entry in held if entry is not None]
    elif isinstance(value, tuple) and hasattr(value, "_fields"):
        parts = list(zip(value._fields, value, strict=True))
    elif isinstance(value, Sequence) and not isinstance(value, str | bytes):
        parts = [(str(k), entry) for k, entry in enumerate(value)]
    if parts is None:
        yield way or (SINGLE,)
    else:
        for key, entry in parts:
            yield from _ways(entry, (*way, key))
