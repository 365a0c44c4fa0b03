"""Integers in the user's modules that equal a width that changes, and that nothing which ran was seen to need."""

from collections.abc import Collection, Iterator

from torch import nn

from whyprune.structure.network import Network


def unproven(network: Network, groups: Collection[str] | None = None) -> tuple[str, ...]:
    """`module.attribute (value, as the group)` of every such integer, in modules whose parameters are cut.

    An attribute that follows a removal is none of them, nor one of PyTorch's own modules. What the example inputs run
    was proven to be right as they are; code that reads them elsewhere could not be tried.

    Args:
        network: a traced network.
        groups: names of the groups that lose units; default: all.
    """
    follow = {(rule.module, rule.attribute) for rule in network.attributes}
    modules = dict(network.model.named_modules())
    found: dict[tuple[str, str], str] = {}
    for group in network.groups:
        if groups is not None and group.name not in groups:
            continue
        for path in _touched(group.axes):
            for attribute, value in _integers(modules.get(path)):
                if value == group.width and (path, attribute) not in follow:
                    name = f"{path}.{attribute}" if path else f"the model's {attribute}"
                    found.setdefault((path, attribute), f"{name} ({value}, as {group.name})")
    return tuple(found.values())


def _touched(axes: tuple[tuple[str, int, int], ...]) -> Iterator[str]:
    """The modules that hold a group's parameters, and those around them."""
    paths: dict[str, None] = {}
    for parameter, _, _ in axes:
        parts = parameter.split(".")[:-1]
        paths.update(dict.fromkeys(".".join(parts[:length]) for length in range(len(parts), -1, -1)))
    yield from paths


def _integers(module: nn.Module | None) -> Iterator[tuple[str, int]]:
    """The integers, and those in tuples and lists, among the attributes of a module of the user's own."""
    if module is None or type(module).__module__.startswith("torch."):
        return
    for name, value in vars(module).items():
        held = value if isinstance(value, tuple | list) else [value]
        if not name.startswith("_"):
            yield from ((name, number) for number in held if type(number) is int)
