"""What every operation of a network computes and moves, for any widths that stay.

MACs alone do not tell how long an operation takes: what it reads and writes counts, and which loop runs it. A batch
norm or an activation that runtimes fold into the operation in front of it does not count apart; views cost nothing.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from torch import Tensor, fx

from whyprune.structure.axes import Axis, Extent
from whyprune.structure.blocks import Block, operations_of
from whyprune.structure.capture import Graph
from whyprune.structure.cost import Product, Sizes, product_of, sized
from whyprune.structure.labels import Labels
from whyprune.structure.network import Network
from whyprune.structure.operations import CONVOLUTIONS, TRANSPOSED, bind, name_of, sizes
from whyprune.structure.products import terms_of
from whyprune.structure.units import Group, Unit

OperationKind = Literal["winograd", "spatial", "pointwise", "grouped", "depthwise", "linear", "product", "elementwise"]
KINDS: tuple[OperationKind, ...] = get_args(OperationKind)

_FREE = {
    *(
        "view",
        "reshape",
        "flatten",
        "unflatten",
        "squeeze",
        "unsqueeze",
        "expand",
        "permute",
        "transpose",
        "t",
        "detach",
    ),
    *("getitem", "chunk", "split", "split_with_sizes", "slice", "select", "unbind", "contiguous", "alias", "dropout"),
    *("_assert_tensor_metadata", "sym_size", "to", "_to_copy", "lift_fresh_copy", "numpy_T", "feature_dropout"),
}
_FOLDED = {
    "relu",
    "relu6",
    "hardtanh",
    "clamp",
    "clamp_min",
    "leaky_relu",
    "batch_norm",
    "_native_batch_norm_legit_no_training",
}
_FOLDS_INTO = {
    *CONVOLUTIONS,
    *TRANSPOSED,
    "linear",
    "addmm",
    "add",
    "batch_norm",
    "_native_batch_norm_legit_no_training",
}


@dataclass(frozen=True)
class OperationCost:
    """One operation on one sample.

    Attributes:
        name: the operation's.
        kind: the loop that runs it: a convolution of 3x3 places and stride 1 (`winograd`), of one place (`pointwise`),
            in groups of several channels or of one each (`grouped`, `depthwise`), any other (`spatial`), a `linear`
            layer, a `product` of two tensors, or all else (`elementwise`): sums, activations, pooling, normalisation.
        macs: multiply-accumulates.
        reads: numbers read, without weights.
        writes: numbers written.
        weights: numbers of weights read.
        channels: input channels of a group, output channels of all groups; (1, 1) where there are none.
    """

    name: str
    kind: OperationKind
    macs: int
    reads: int
    writes: int
    weights: int = 0
    channels: tuple[int, int] = (1, 1)


@dataclass(frozen=True)
class OperationFormula:
    """An operation whose sizes follow the widths that stay."""

    name: str
    kind: OperationKind
    macs: tuple[Product, ...]
    reads: tuple[Product, ...]
    writes: Product
    weights: Product | None
    channels: tuple[Product, Product] | None

    def at(self, size_of: Callable[[Product], int]) -> OperationCost:
        """Its cost at some widths, as `size_of` tells them; groups that are down to one channel are depthwise."""
        channels = (1, 1) if self.channels is None else (size_of(self.channels[0]), size_of(self.channels[1]))
        return OperationCost(
            self.name,
            "depthwise" if self.kind == "grouped" and channels[0] == 1 else self.kind,
            sum(size_of(p) for p in self.macs),
            sum(size_of(p) for p in self.reads),
            size_of(self.writes),
            0 if self.weights is None else size_of(self.weights),
            channels,
        )


@dataclass(frozen=True)
class OperationCostModel:
    """What the operations of a network cost, as a function of what is removed.

    Attributes:
        operations: in execution order.
        shapes: shape of every parameter and buffer.
        blocks: residual blocks, whose operations run no more once they are bypassed.
    """

    operations: tuple[OperationFormula, ...]
    shapes: Mapping[str, tuple[int, ...]]
    blocks: tuple[Block, ...] = ()

    def __call__(self, removed: Iterable[Unit] = ()) -> list[OperationCost]:
        """Their costs without some units."""
        gone: dict[Axis, int] = {}
        for unit in removed:
            for piece in unit.slices:
                key = (piece.parameter, piece.axis)
                gone[key] = gone.get(key, 0) + len(piece.indices)
        return self.of_sizes(gone)

    def of_groups(self, counts: Mapping[Group, int]) -> list[OperationCost]:
        """Their costs when `counts[group]` units of each group are gone, whichever they are."""
        gone: dict[Axis, int] = {}
        for group, count in counts.items():
            for parameter, axis, per_unit in group.axes:
                gone[parameter, axis] = gone.get((parameter, axis), 0) + count * per_unit
        return self.of_sizes(gone)

    def of_sizes(self, gone: Sizes) -> list[OperationCost]:
        """Their costs when `gone[parameter, axis]` indices are removed."""
        idle = operations_of(self.blocks, gone)
        left = (operation for operation in self.operations if operation.name not in idle)
        return [operation.at(lambda product: sized(product, self.shapes, gone)) for operation in left]


def kind_of_convolution(channels_in: int, groups: int, kernel: Iterable[int], stride: Iterable[int]) -> OperationKind:
    """The loop that runs a convolution with `channels_in` input channels in every one of `groups`."""
    if groups > 1:
        return "depthwise" if channels_in == 1 else "grouped"
    if all(k == 1 for k in kernel):
        return "pointwise"
    return "winograd" if all(k == 3 for k in kernel) and all(s == 1 for s in stride) else "spatial"


def operation_cost_model(network: Network) -> OperationCostModel:
    """What the operations of a traced network cost, for any widths."""
    state = {**dict(network.model.named_parameters()), **dict(network.model.named_buffers())}
    shapes = {name: tuple(t.shape) for name, t in state.items()}
    found = _operations(network.graph, lambda node: network.extents.get(node, ()), network.axis_of)
    return OperationCostModel(tuple(found), shapes, network.cost.blocks)


def operation_costs(graph: Graph) -> list[OperationCost]:
    """What the operations of a captured graph cost at the widths it has."""
    return OperationCostModel(tuple(_operations(graph, lambda _: (), lambda _: None)), {}).of_sizes({})


def _operations(
    graph: Graph, extent: Callable[[fx.Node], Extent], axis_of: Callable[[Labels], tuple[Axis, int, int] | None]
) -> Iterator[OperationFormula]:
    samples = graph.batch_size or 1
    constants = {*graph.state_names, *graph.constants}

    def product(terms: list[tuple[fx.Node, list[int]]], per: int = samples) -> Product:
        return product_of("", terms, per, extent, axis_of)

    for node in graph.operations:
        if not isinstance(node.meta.get("val"), Tensor) or name_of(node) in _FREE or _is_folded(node):
            continue
        weight = _weight(node)
        read = [n for n in node.all_input_nodes if n.name not in constants and isinstance(n.meta.get("val"), Tensor)]
        yield OperationFormula(
            name=node.name,
            kind=_kind(node),
            macs=tuple(product(terms) for terms in terms_of(node)),
            reads=tuple(product([(n, _dims(n))]) for n in read if n is not weight),
            writes=product([(node, _dims(node))]),
            weights=None if weight is None else product([(weight, _dims(weight))], 1),
            channels=None if weight is None else _channels(node, weight, product),
        )


def _kind(node: fx.Node) -> OperationKind:
    name, bound = name_of(node), bind(node)
    if name in CONVOLUTIONS:
        weight = sizes(bound["weight"])
        strides = bound["stride"] if isinstance(bound["stride"], list | tuple) else [bound["stride"]]
        return kind_of_convolution(weight[1], bound["groups"], weight[2:], strides)
    if name in TRANSPOSED:
        return "spatial"
    if name == "linear" or (name == "addmm" and _weight(node) is not None):
        return "linear"
    return "product" if terms_of(node) else "elementwise"


def _weight(node: fx.Node) -> fx.Node | None:
    """The parameter that an operation multiplies with."""
    found = bind(node).get("weight") if name_of(node) in {*CONVOLUTIONS, *TRANSPOSED, "linear"} else None
    return found if isinstance(found, fx.Node) else None


def _channels(
    node: fx.Node, weight: fx.Node, product: Callable[[list[tuple[fx.Node, list[int]]], int], Product]
) -> tuple[Product, Product]:
    inputs, outputs = (0, 1) if name_of(node) in TRANSPOSED else (1, 0)
    return product([(weight, [inputs])], 1), product([(weight, [outputs])], 1)


def _is_folded(node: fx.Node) -> bool:
    """Whether runtimes compute this within the operation that gives its input."""
    if name_of(node) not in _FOLDED or not node.all_input_nodes:
        return False
    before = node.all_input_nodes[0]
    return before.op == "call_function" and name_of(before) in _FOLDS_INTO


def _dims(node: fx.Node) -> list[int]:
    return list(range(len(sizes(node))))
