"""`trace`: from a model and example inputs to a `Network`."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from whyprune.data.batches import Batch
from whyprune.data.outputs import logits_of
from whyprune.errors import TraceError
from whyprune.structure.attributes import restates_its_shape
from whyprune.structure.capture import Graph, as_example, capture, module_path
from whyprune.structure.cost import cost_model
from whyprune.structure.labels import Axes, Labels, LabelSpace
from whyprune.structure.network import AttributeRule, Network
from whyprune.structure.remove import masked, remove
from whyprune.structure.replay import Replay
from whyprune.structure.rules import Context, WidthSite, propagate
from whyprune.structure.rules.base import bind, name_of, where
from whyprune.structure.units import derive

PROBE_TOLERANCE = 1e-3


def trace(model: nn.Module, example_inputs: Any) -> Network:
    """Finds the removable units of `model`, what each costs, and what must be kept whole.

    Channel indices are carried through every ATen operation of the captured graph and united where they must
    live or die together. A number in user code that names a width (`view(-1, 4096)`, `F.pad(..., 8)`) is
    tried out: one unit is removed and the model is run; if it fails, the channels behind it are refused.

    Args:
        model: in evaluation mode; it is not changed.
        example_inputs: a tensor, a tuple of positional inputs or a dict of keyword inputs, batch first.

    Raises:
        InputError: the model is in training mode or does not run on the inputs.
        TraceError: the computation cannot be captured, or what was captured is not what the model computes.
    """
    example = as_example(example_inputs)
    graph = capture(model, example)
    labelled = _Labelled(model, example, graph)
    network = labelled.network()
    _check_capture(network)
    for site in labelled.to_probe():
        if _probe_fails(network, [labelled.space.roots(side) for side in site.sides]):
            labelled.refuse(site, f"{name_of(site.node)} there names a width as a constant")
            network = labelled.network()
    return network


@dataclass
class _Labelled:
    """A captured model whose channels have labels; refusing some of them gives another network."""

    model: nn.Module
    example: Batch
    graph: Graph
    space: LabelSpace = field(default_factory=LabelSpace)
    state: dict[str, Axes] = field(init=False)
    ctx: Context = field(init=False)
    rules: list[AttributeRule] = field(init=False)

    def __post_init__(self) -> None:
        self.state = _label_state(self.model, self.space)
        self.ctx = propagate(self.graph, self.space, self.state)
        self.rules = [rule for site in self.ctx.sites for rule in self._follow(site)]

    def network(self) -> Network:
        """The network that the labels and pins of this moment say."""
        space, ctx = self.space, self.ctx
        first: dict[int, str] = {}
        for node, labels in ctx.writers:
            weight = self.graph.state_names[bind(node)["weight"].name]
            for root in space.roots(labels).tolist():
                first.setdefault(root, weight)
        groups, refusals = derive(space, self.state, first)
        return Network(
            model=self.model,
            example=self.example,
            graph=self.graph,
            groups=groups,
            refusals=refusals,
            readers=tuple(replace(r, labels=space.roots(r.labels)) for r in ctx.readers),
            written={node: space.roots(labels) for node, labels in ctx.writers},
            cost=cost_model(self.model, self.graph),
            attributes=tuple(replace(r, labels=frozenset(space.find(a) for a in r.labels)) for r in self.rules),
            sites=tuple(replace(s, sides=tuple(map(space.roots, s.sides))) for s in ctx.sites),
        )

    def refuse(self, site: WidthSite, reason: str) -> None:
        """Keeps the channels that a site's numbers count."""
        self.space.pin(np.concatenate(site.sides), where(site.node), reason)

    def to_probe(self) -> list[WidthSite]:
        """The sites whose numbers may not follow a removal, fixed numbers first."""
        sites = [s for s in self.ctx.sites if not restates_its_shape(self._module(s))]
        return sorted(sites, key=lambda s: s.adjustable)

    def _module(self, site: WidthSite) -> nn.Module:
        return self.model.get_submodule(module_path(site.node))

    def _follow(self, site: WidthSite) -> list[AttributeRule]:
        """Finds the integer attributes that hold a site's numbers; without them its channels are refused.

        Attributes are matched by value in the order in which the module defines them; the probe proves it.
        """
        if not site.adjustable:
            return []
        attributes = vars(self._module(site)).items()
        free = [(n, v) for n, v in attributes if type(v) is int and not n.startswith("_")]
        rules: list[AttributeRule] = []
        for side, value in zip(site.sides, site.values, strict=True):
            if not len(side):
                continue
            match = next((pair for pair in free if pair[1] == value), None)
            if match is None:
                self.refuse(site, f"{name_of(site.node)} there counts channels with the constant {value}")
                return []
            free.remove(match)
            rules.append(AttributeRule(module_path(site.node), match[0], value, frozenset(side.tolist())))
        return rules


def _label_state(model: nn.Module, space: LabelSpace) -> dict[str, Axes]:
    """Every index of every axis of parameters and of buffers gets an atom; scalars and kernels get none."""
    state: dict[str, Axes] = {}
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        channels = min(tensor.dim(), 2)
        state[name] = tuple(space.fresh(n) if d < channels else None for d, n in enumerate(tensor.shape))
    return state


def _check_capture(network: Network) -> None:
    """The captured operations must give what the model gives."""
    replay = Replay(network)
    found = pytree.tree_leaves(replay.output(replay.run(network.example, keep=())))
    with torch.inference_mode():
        expected = pytree.tree_leaves(network.example.call(network.model))
    for left, right in zip(found, expected, strict=True):
        if isinstance(right, Tensor) and not _agree(left, right):
            raise TraceError(
                f"the captured operations do not give the model's output{_partial_write(network.graph)}: do "
                "not change parts of tensors in place, and draw nothing at random in evaluation mode"
            )


def _agree(left: Tensor, right: Tensor) -> bool:
    scale = float(right.abs().max()) if right.numel() and right.is_floating_point() else 0.0
    return torch.allclose(left, right, rtol=0, atol=PROBE_TOLERANCE * max(scale, 1.0), equal_nan=True)


def _partial_write(graph: Graph) -> str:
    """Where the first in-place operation on a view is, as far as there is one."""
    for node in graph.operations:
        source = node.args[0] if node.args else None
        if _alias(node, is_write=True) and _alias(source, is_write=False):
            return f"; {where(node)} writes to a part of a tensor"
    return ""


def _alias(node: Any, *, is_write: bool) -> bool:
    schema = getattr(getattr(node, "target", None), "_schema", None)
    alias = schema.returns[0].alias_info if schema is not None and schema.returns else None
    return alias is not None and alias.is_write == is_write


def _probe_fails(network: Network, sides: Sequence[Labels]) -> bool:
    """Removes one unit behind each of a site's numbers and compares with the masked original."""
    for side in sides:
        roots = set(side.tolist())
        unit = next((u for u in network.units if u.label in roots), None)
        if unit is None:
            continue
        try:
            pruned, reference = remove(network, [unit]), masked(network, [unit])
            with torch.no_grad():
                difference = _distance(network.example, pruned, reference)
        except Exception:  # noqa: BLE001 - whatever the user's code raises, the answer is the same: it cannot follow
            return True
        if not difference <= PROBE_TOLERANCE:
            return True
    return False


def _distance(batch: Batch, left: nn.Module, right: nn.Module) -> float:
    first, second = logits_of(batch.call(left)), logits_of(batch.call(right))
    if first.shape != second.shape:
        return float("inf")
    return float((first - second).abs().max() / second.abs().max().clamp_min(1.0))
