"""Finds residual blocks by trial: modules that hand on what they get once their parameters are zero."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.func import functional_call

from whyprune.data.outputs import tensors_of
from whyprune.structure.axes import Axis
from whyprune.structure.blocks import Block, state_of
from whyprune.structure.copies import duplicate, unused
from whyprune.structure.network import Network
from whyprune.structure.probe import relative, small, tolerance
from whyprune.structure.units import Group, Unit


def with_blocks(network: Network) -> Network:
    """The same network, which knows the residual blocks that can go as a whole.

    A block is a module that is called once, with one tensor, gives one of the same shape, and is the identity when all
    its parameters are zero; the smallest such modules count. Groups must lie inside it, with no channel on their axes
    that is kept, and the model must run without it as it runs with its parameters at zero.
    """
    found = tuple(_blocks(network))
    if found and not _follows(network, found):
        found = tuple(block for block in found if _follows(network, [block]))
    return replace(network, blocks=found, cost=replace(network.cost, blocks=found))


def units_of(network: Network, blocks: Iterable[Block]) -> list[Unit]:
    """All units inside blocks."""
    return [unit for block in blocks for name in block.groups for unit in network.group(name).units]


def _follows(network: Network, blocks: Sequence[Block]) -> bool:
    """Whether the model runs without blocks as it runs with their parameters at zero."""
    example, state = small(network).example, state_of(blocks)
    zeros = {name: torch.zeros_like(p) for name, p in network.model.named_parameters() if name in state}
    bypassed = duplicate(network.model, sharing=True)
    for block in blocks:
        bypassed.set_submodule(block.name, nn.Identity())
    try:
        with torch.no_grad():
            found = tensors_of(example.call(bypassed))
            expected = tensors_of(functional_call(unused(network.model), zeros, example.args, example.kwargs))
    except Exception:  # noqa: BLE001  whatever the user's code raises: it does not run without the blocks
        return False
    return all(relative(a, b) <= tolerance(network) for a, b in zip(found, expected, strict=True))


def _blocks(network: Network) -> Iterator[Block]:
    modules = dict(network.model.named_modules())
    inner = {path: groups for path in modules if path and (groups := _inside(network, path))}
    if not inner:
        return
    seen = _inputs(network, inner)
    found: list[str] = []
    for path in sorted(inner, key=lambda p: (-p.count("."), p)):
        if any(other.startswith(f"{path}.") for other in found):
            continue
        if path in seen and _is_identity(modules[path], seen[path]):
            found.append(path)
    for path in (p for p in modules if p in found):
        block = _block(network, path, inner[path])
        if block is not None:
            yield block


def _inside(network: Network, path: str) -> list[Group]:
    """The groups of which every axis belongs to a module, if nothing is left of these axes without their units."""
    groups = [g for g in network.groups if all(name.startswith(f"{path}.") for name, _, _ in g.axes)]
    covered: Counter[Axis] = Counter()
    for group in groups:
        covered.update({(name, axis): per_unit * len(group.units) for name, axis, per_unit in group.axes})
    return groups if all(covered[g.home] == network.cost.shapes[g.home[0]][g.home[1]] for g in groups) else []


def _inputs(network: Network, paths: Mapping[str, Any]) -> dict[str, Tensor]:
    """What each module gets, of those that are called once with one tensor and give one of the same shape."""
    model = unused(network.model)
    seen: dict[str, list[Tensor | None]] = {path: [] for path in paths}
    with ExitStack() as stack:
        for path in paths:
            module = model.get_submodule(path)

            def before(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], path: str = path) -> None:
                plain = len(args) == 1 and isinstance(args[0], Tensor) and all(v is None for v in kwargs.values())
                seen[path].append(args[0].clone() if plain else None)  # the module may write over what it gets

            def after(_: nn.Module, __: Any, result: Any, path: str = path) -> None:
                given = seen[path][-1]
                alike = isinstance(result, Tensor) and given is not None and result.shape == given.shape
                if not alike:
                    seen[path][-1] = None

            for handle in (
                module.register_forward_pre_hook(before, with_kwargs=True),
                module.register_forward_hook(after),
            ):
                stack.callback(handle.remove)
        with torch.no_grad():
            small(network).example.call(model)
    return {path: found[0] for path, found in seen.items() if len(found) == 1 and found[0] is not None}


def _is_identity(module: nn.Module, given: Tensor) -> bool:
    """Whether a module with all parameters at zero hands on what it gets."""
    zeros = {name: torch.zeros_like(p) for name, p in module.named_parameters()}
    try:
        with torch.no_grad():
            return torch.equal(functional_call(module, zeros, (given.clone(),)), given)
    except Exception:  # noqa: BLE001  whatever the user's code raises: it is no block
        return False


def _block(network: Network, path: str, groups: list[Group]) -> Block | None:
    """The block, if what it computes can be told from the rest of the graph, and its parameters are its own."""
    graph, model = network.graph, network.model
    region = {n for n in graph.operations if _belongs(n, path)}
    within = {name for name, _ in (*model.named_parameters(), *model.named_buffers()) if name.startswith(f"{path}.")}
    state = {n for n in graph.nodes if n.op == "placeholder" and graph.state_names.get(n.name) in within}
    fixed = {n for n in graph.nodes if n.op == "placeholder" and n.name in graph.constants} | state
    sources = {a for n in region for a in n.all_input_nodes if isinstance(a.meta.get("val"), Tensor)} - region - fixed
    results = {n for n in region if any(user not in region for user in n.users)}
    shared = any(user not in region for n in state for user in n.users)
    if len(sources) != 1 or len(results) != 1 or shared:
        return None
    result = results.pop()
    axes = tuple((g.home, network.cost.shapes[g.home[0]][g.home[1]]) for g in groups)
    names = tuple(g.name for g in groups)
    return Block(path, names, axes, sources.pop(), result, frozenset(region - {result}), frozenset(within))


def _belongs(node: fx.Node, path: str) -> bool:
    stack = (node.meta.get("nn_module_stack") or {}).values()
    return any(str(entry[0]) == path for entry in stack)
