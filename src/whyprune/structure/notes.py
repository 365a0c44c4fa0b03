"""What a trace could not see or count, in sentences: for notes of a run and for `whyprune inspect`."""

from collections.abc import Collection, Sequence

from whyprune.structure.network import Network
from whyprune.structure.products import stepped
from whyprune.structure.unproven import unproven

NAMED = 4


def notes_on(network: Network) -> list[str]:
    """Sentences about a network that hold whatever is removed from it."""
    said = []
    if network.cost.uncounted:
        said.append(
            f"MACs of {listed(network.cost.uncounted)} are not counted: a budget on MACs bounds those of all else, and "
            "the network as a whole keeps a larger share; bound params, bytes or latency as well."
        )
    if steps := stepped(network.graph):
        said.append(
            f"MACs of {listed(steps)} are counted for as many steps as the example inputs have: those of longer "
            "sequences grow in proportion, and their share of the whole may."
        )
    if network.unread:
        said.append(f"The example inputs do not run, neither in evaluation nor in training: {listed(network.unread)}.")
    if network.graph.fixed_branches:
        said.append(
            "The model branches on values of tensors: only the code that the example inputs run was traced and proven."
        )
    return said


def widths_not_proven(network: Network, groups: Collection[str] | None = None) -> list[str]:
    """A sentence about integers that equal a width of these groups (default: all), where there are any."""
    found = unproven(network, groups)
    if not found:
        return []
    return [
        f"Attributes that equal a width that changes, and keep their value: {listed(found)}. What the example inputs "
        "run does not need them; other code that reads them may."
    ]


def listed(names: Sequence[str]) -> str:
    """The first few names, and how many more there are."""
    more = len(names) - NAMED
    return ", ".join(names[:NAMED]) + (f" and {more} more" if more > 0 else "")
