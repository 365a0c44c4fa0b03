"""`trace`: from a model and example inputs to a `Network`."""

import copy
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from whyprune.data.outputs import logits_of
from whyprune.structure.capture import as_example, capture, module_path
from whyprune.structure.cost import cost_model
from whyprune.structure.labels import Axes, LabelSpace
from whyprune.structure.network import AttributeRule, Network
from whyprune.structure.remove import masked, remove
from whyprune.structure.rules import Context, WidthSite, propagate
from whyprune.structure.rules.base import bind, name_of, where
from whyprune.structure.units import derive

PROBE_TOLERANCE = 1e-3


def trace(model: nn.Module, example_inputs: Any) -> Network:
    """Finds the removable units of `model`, what each costs, and what must be kept whole.

    Channel indices are carried through every ATen operation of the captured graph and united where they must live or
    die together. A number in user code that names a width (`view(-1, 4096)`, `F.pad(..., 8)`) is tried out: one unit
    is removed and the model is run; if it fails, the channels behind the number are refused.

    Args:
        model: in evaluation mode; it is not changed.
        example_inputs: a tensor, a tuple of positional inputs or a dict of keyword inputs, batch first.

    Raises:
        InputError: the model is in training mode or does not run on the inputs.
        TraceError: the computation cannot be captured.
    """
    example = as_example(example_inputs)
    graph = capture(model, example)
    space = LabelSpace()
    state = _label_state(model, space)
    ctx = propagate(graph, space, state)
    attributes = [rule for site in ctx.sites for rule in _follow(model, ctx, site)]
    suspects = [site for site in ctx.sites if not site.adjustable]
    network = _network(model, example, graph, ctx, state, attributes)
    for site in suspects + [s for s in ctx.sites if s.adjustable]:
        if _probe_fails(network, ctx, site):
            for side in site.sides:
                space.pin(side, where(site.node), f"{name_of(site.node)} there names a width as a constant")
            network = _network(model, example, graph, ctx, state, attributes)
    return network


def _label_state(model: nn.Module, space: LabelSpace) -> dict[str, Axes]:
    """Every index of every axis of parameters and of buffers gets an atom; scalars and kernels get none."""
    state: dict[str, Axes] = {}
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        channels = min(tensor.dim(), 2)
        state[name] = tuple(space.fresh(n) if d < channels else None for d, n in enumerate(tensor.shape))
    return state


def _network(
    model: nn.Module, example: Any, graph: Any, ctx: Context, state: dict[str, Axes], rules: list[AttributeRule]
) -> Network:
    space = ctx.space
    first: dict[int, str] = {}
    for node, labels in ctx.writers:
        weight = graph.state_names[bind(node)["weight"].name]
        for root in space.roots(labels).tolist():
            first.setdefault(root, weight)
    groups, refusals = derive(space, state, first)
    readers = tuple(replace(r, labels=space.roots(r.labels)) for r in ctx.readers)
    sites = tuple(replace(s, sides=tuple(space.roots(side) for side in s.sides)) for s in ctx.sites)
    written = {node: space.roots(labels) for node, labels in ctx.writers}
    resolved = tuple(
        AttributeRule(r.module, r.attribute, r.value, frozenset(space.find(a) for a in r.labels)) for r in rules
    )
    return Network(model, example, graph, groups, refusals, readers, written, cost_model(model, graph), resolved, sites)


def _follow(model: nn.Module, ctx: Context, site: WidthSite) -> list[AttributeRule]:
    """Finds the integer attributes that hold a site's numbers; without them its channels are refused.

    Attributes are matched by value in the order in which the module defines them; the probe proves the match.
    """
    if not site.adjustable:
        return []
    path = module_path(site.node)
    module = model.get_submodule(path)
    free = [(n, v) for n, v in vars(module).items() if type(v) is int and not n.startswith("_")]
    rules: list[AttributeRule] = []
    for side, value in zip(site.sides, site.values, strict=True):
        match = next((pair for pair in free if pair[1] == value), None)
        if match is None:
            for own in site.sides:
                reason = f"{name_of(site.node)} there counts channels with the constant {value}"
                ctx.space.pin(own, where(site.node), reason)
            return []
        free.remove(match)
        rules.append(AttributeRule(path, match[0], value, frozenset(side.tolist())))
    return rules


def _probe_fails(network: Network, ctx: Context, site: WidthSite) -> bool:
    """Removes one unit behind each of a site's numbers and compares with the masked original."""
    for side in site.sides:
        roots = set(np.unique(ctx.space.roots(side)).tolist())
        unit = next((u for u in network.units if u.label in roots), None)
        if unit is None:
            continue
        try:
            pruned, reference = remove(network, [unit]), masked(network, [unit])
            with torch.no_grad():
                difference = _distance(network, pruned, reference)
        except Exception:  # noqa: BLE001 - whatever the user's code raises, the answer is the same: it cannot follow
            return True
        if not difference <= PROBE_TOLERANCE:
            return True
    return False


def _distance(network: Network, left: nn.Module, right: nn.Module) -> float:
    batch = copy.copy(network.example)
    first: Tensor = logits_of(batch.call(left))
    second: Tensor = logits_of(batch.call(right))
    if first.shape != second.shape:
        return float("inf")
    return float((first - second).abs().max() / second.abs().max().clamp_min(1.0))
