"""Recurrent layers and cells: hidden unit i goes from all gates, layers and directions at once."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, fx

from whyprune.structure.labels import Labellings, along
from whyprune.structure.operations import name_of, sizes, where
from whyprune.structure.rules.base import Arguments, Context, Value, rule, vector_labellings
from whyprune.structure.rules.linear import STRANGERS

_GATES = {"lstm": 4, "gru": 3}
_OUTSIDE = "the state of a recurrent layer is no channel of its own"


@rule("lstm", "gru", "rnn_tanh", "rnn_relu")
def recurrent(ctx: Context, node: fx.Node, args: Arguments) -> Value:
    """Parameters are (w_ih, w_hh[, b_ih, b_hh]) for every layer and direction, all of one hidden width."""
    data, params = args.get("input"), list(args["params"])
    ways, layers = 2 if args.get("bidirectional") else 1, int(args.get("num_layers") or 0)
    per = 4 if args["has_biases"] else 2
    if data is None or len(params) != layers * ways * per:
        return None  # packed sequences, or a projection of the hidden state
    hidden = ctx.channels(params[1], 1, node)
    if hidden is None:
        return None
    below = _input(ctx, node, data)
    for number in range(layers * ways):
        layer = params[number * per : (number + 1) * per]
        _gates(ctx, node, layer, hidden, below if number < ways else hidden.repeat(ways))
        ctx.loops.append((node, layer[1], hidden))  # what multiplies hidden units inside, where no reader stands
        if number >= ways:
            ctx.loops.append((node, layer[0], hidden.repeat(ways)))
    states = args["hx"] if isinstance(args["hx"], list | tuple) else [args["hx"]]
    _states(ctx, node, states, hidden)
    rank = len(sizes(data))
    out = vector_labellings(hidden.repeat(ways), rank - 1, rank)
    return [out, *([vector_labellings(hidden, rank - 1, rank)] * len(states))]


@rule("lstm_cell", "gru_cell", "rnn_tanh_cell", "rnn_relu_cell")
def cell(ctx: Context, node: fx.Node, args: Arguments) -> Value:
    """One step; the state is a tensor like any other."""
    layer = [args[name] for name in ("w_ih", "w_hh", "b_ih", "b_hh") if args[name] is not None]
    hidden = ctx.channels(args["w_hh"], 1, node)
    if hidden is None:
        return None
    _gates(ctx, node, layer, hidden, _input(ctx, node, args["input"]))
    states = args["hx"] if isinstance(args["hx"], list | tuple) else [args["hx"]]
    _states(ctx, node, states, hidden)
    for state in states:
        rank = len(sizes(state))
        ctx.reads(node, state, along(hidden, rank - 1, rank), {rank - 1}, affine=True)
    out: Labellings = vector_labellings(hidden, len(sizes(states[0])) - 1, len(sizes(states[0])))
    return [out] * len(states) if len(states) > 1 else out


def _input(ctx: Context, node: fx.Node, data: fx.Node) -> Tensor | None:
    """The labels of the features that go in, which the operation reads at every step."""
    rank = len(sizes(data))
    ctx.rigid(data, range(rank - 1), node, "a recurrent layer goes over these channels step by step")
    labels = ctx.channels(data, rank - 1, node)
    if labels is not None:
        ctx.reads(node, data, along(labels, rank - 1, rank), {rank - 1}, affine=True)
    return labels


def _gates(ctx: Context, node: fx.Node, layer: Sequence[fx.Node], hidden: Tensor, below: Tensor | None) -> None:
    """Every row of the weights and biases goes with its hidden unit, every column with what it multiplies."""
    gates = _GATES.get(name_of(node).removesuffix("_cell"), 1)
    for parameter in layer:
        rows = ctx.channels(parameter, 0, node)
        if rows is not None:
            ctx.meet(rows, hidden.repeat(gates), node)
        else:
            ctx.space.pin(hidden, where(node), "its weights are no parameters")
    columns = ctx.channels(layer[1], 1, node)
    if columns is not None:
        ctx.meet(columns, hidden, node)
    columns = ctx.channels(layer[0], 1, node)
    if columns is not None and below is not None:
        ctx.meet(columns, below, node)
    else:
        for labels in (columns, below):
            ctx.space.pin(labels, where(node), STRANGERS)
    ctx.writers.append((node, hidden))
    ctx.marked.append((node, hidden))


def _states(ctx: Context, node: fx.Node, states: Sequence[Any], hidden: Tensor) -> None:
    """What the operation starts from has the hidden units as its channels."""
    for state in states:
        rank = len(sizes(state))
        ctx.rigid(state, range(rank - 1), node, "a recurrent layer goes over these channels step by step")
        own = ctx.channels(state, rank - 1, node)
        if own is None:
            ctx.space.pin(hidden, where(node), _OUTSIDE)
        else:
            ctx.meet(own, hidden, node)
