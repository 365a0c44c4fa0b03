"""Operations that take parts of a tensor: slices, chunks, single indices."""

from itertools import accumulate

from torch import Tensor, fx

from whyprune.structure.labels import support
from whyprune.structure.operations import bind, position_of, sizes, where
from whyprune.structure.rules.base import Arguments, ChannelCount, Context, Value, compact, rule

CONSTANT = "a constant index reaches into these channels"


@rule("slice", "narrow")
def slice_(ctx: Context, node: fx.Node, args: Arguments) -> Value:
    """A stretch of indices. Equal parts go in step; other bounds count the channels before them."""
    source = args["self"]
    dim, size = args["dim"] % len(sizes(source)), sizes(source)[args["dim"]]
    bounds, out = bounds_of(args, size), []
    for labelling in ctx.labellings(source):
        if labelling.shape[dim] == 1 or bounds == (0, size, 1):
            out.append(labelling)
            continue
        reach(ctx, node, labelling, dim, bounds)
        out.append(ctx.moved(node, source, labelling))
    return compact(out)


def reach(ctx: Context, node: fx.Node, labelling: Tensor, dim: int, bounds: tuple[int, int, int]) -> None:
    """Notes that an operation reaches for some indices of a dimension over which a labelling lies."""
    if support(labelling) != {dim}:
        ctx.rigid_labelling(labelling, frozenset({dim}), node, CONSTANT)
    elif bounds[2] > 1:
        in_step(ctx, labelling, bounds[2], node, interleaved=True)
    else:
        _stretch(ctx, node, labelling, dim, bounds[:2])


def bounds_of(args: Arguments, size: int) -> tuple[int, int, int]:
    """First index, end and step of a slice."""
    if "length" in args:
        start = args["start"] % size if isinstance(args["start"], int) else 0
        return start, start + args["length"], 1
    given = slice(*(v if isinstance(v, int) else None for v in (args["start"], args["end"], args["step"])))
    return given.indices(size)


def _stretch(ctx: Context, node: fx.Node, labelling: Tensor, dim: int, bounds: tuple[int, int]) -> None:
    start, end = bounds
    size = labelling.shape[dim]
    if end > start and size % (end - start) == 0 and start % (end - start) == 0:
        in_step(ctx, labelling, size // (end - start), node)
    ends = (
        {"start": (0, start), "length": (start, end)}
        if "length" in bind(node)
        else {"start": (0, start), "end": (0, end)}
    )
    for name, (first, last) in ends.items():
        written = bind(node)[name]
        if isinstance(written, int) and first < last < size + (name == "length"):
            counted = (
                labelling.narrow(dim, last, size - last) if written < 0 else labelling.narrow(dim, first, last - first)
            )
            ctx.counts.append(ChannelCount(node, position_of(node, name), 0, counted, dim, written))


def in_step(ctx: Context, labelling: Tensor, parts: int, node: fx.Node, *, interleaved: bool = False) -> None:
    """Cuts a vector of channels into equal parts; the same place in every part goes together."""
    labels = labelling.flatten()
    if len(labels) % parts:
        ctx.space.pin(labelling, where(node), "they are cut into parts of unequal size")
        return
    rows = labels.reshape(-1, parts).t() if interleaved else labels.reshape(parts, -1)
    ctx.space.tie(rows, (0,), where(node))


@rule("chunk", "tensor_split", "split", "split_with_sizes")
def split(ctx: Context, node: fx.Node, args: Arguments) -> Value:
    """Several stretches at once. Equal ones go in step; of others, each size counts its own channels."""
    source = args["self"]
    dim = args["dim"] % len(sizes(source))
    widths = [int(v.shape[dim]) if isinstance(v.shape[dim], int) else 0 for v in node.meta["val"]]
    labellings = ctx.labellings(source)
    for labelling in labellings:
        if labelling.shape[dim] == 1:
            continue
        if support(labelling) != {dim}:
            ctx.rigid_labelling(labelling, frozenset({dim}), node, CONSTANT)
        elif len(set(widths)) == 1:
            in_step(ctx, labelling, len(widths), node)
            _sizes(ctx, node, args, labelling, dim, widths)
        elif "split_sizes" in args or isinstance(args.get("split_size"), list):
            _sizes(ctx, node, args, labelling, dim, widths)
        else:
            ctx.space.pin(labelling, where(node), "they are cut into parts of unequal size")
    parts: list[list[Tensor]] = [[] for _ in widths]
    for labelling in labellings:
        for part, piece in zip(parts, ctx.moved(node, source, labelling), strict=True):
            part.append(piece)
    return [compact(part) for part in parts]


def _sizes(ctx: Context, node: fx.Node, args: Arguments, labelling: Tensor, dim: int, widths: list[int]) -> None:
    """The sizes among the arguments of a split, each with the channels that it counts."""
    name = next((n for n in ("split_sizes", "split_size") if n in args), None)
    if name is None:
        return
    numbers = args[name] if isinstance(args[name], list | tuple) else [args[name]]
    for place, (start, width) in enumerate(zip(accumulate([0, *widths]), widths, strict=False)):
        if place < len(numbers) and isinstance(numbers[place], int):
            part = labelling.narrow(dim, start, width)
            ctx.counts.append(ChannelCount(node, position_of(node, name), place, part, dim, width))


@rule("channel_shuffle", "native_channel_shuffle")
def channel_shuffle(ctx: Context, node: fx.Node, args: Arguments) -> Value:
    """The groups stay; the same place in every group goes together."""
    source = args.get("self", args.get("input"))
    labels = ctx.channels(source, 1, node)
    if labels is not None:
        in_step(ctx, labels, int(args["groups"]), node)
    return compact(ctx.moved(node, source, labelling) for labelling in ctx.labellings(source))


@rule("unbind", "select")
def single_index(ctx: Context, node: fx.Node, args: Arguments) -> Value:
    """Single indices: their dimension keeps its size."""
    source = args["self"]
    ctx.rigid(source, (args["dim"],), node, CONSTANT)
    moved = [ctx.moved(node, source, labelling) for labelling in ctx.labellings(source)]
    if isinstance(node.meta["val"], Tensor):
        return compact(moved)
    return [compact(labelling[i] for labelling in moved) for i in range(len(node.meta["val"]))]


@rule("index", "index_select", "gather", "take_along_dim")
def index(ctx: Context, node: fx.Node, args: Arguments) -> Value:
    """Indices from a tensor: the dimensions that they reach into keep their size."""
    source = args["self"]
    indices = args.get("indices")
    dims = [args["dim"]] if indices is None else [d for d, i in enumerate(indices) if i is not None]
    ctx.rigid(source, dims, node, CONSTANT)
    for other in (n for n in node.all_input_nodes if n is not source):
        ctx.pin(other, node, "they are used as indices")
    out = []
    for labelling in ctx.labellings(source):
        try:
            out.append(ctx.moved(node, source, labelling))
        except (RuntimeError, IndexError):  # the indices are masks, whose result has no fixed size
            ctx.space.pin(labelling, where(node), CONSTANT)
    return compact(out)


@rule("glu")
def glu(ctx: Context, node: fx.Node, args: Arguments) -> Value:
    """Halves of one dimension gate each other: channel i goes with i + half."""
    source = args["self"]
    dim = args["dim"] % len(sizes(source))
    half = sizes(source)[dim] // 2
    out = []
    for labelling in ctx.labellings(source):
        if labelling.shape[dim] == 1:
            out.append(labelling)
            continue
        first, second = labelling.narrow(dim, 0, half), labelling.narrow(dim, half, half)
        ctx.meet(first, second, node)
        out.append(first)
    return compact(out)
