"""`whyprune methods`: every method by name, and what it says of itself."""

from typing import Annotated, Any

import typer
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from whyprune.cli.options import JsonOption
from whyprune.cli.screen import Screen
from whyprune.methods import method_named, method_names

NameArgument = Annotated[
    str | None, typer.Argument(metavar="NAME", help="A method; default: all of them.", show_default=False)
]
WIDE = 100
"""So many columns hold the whole table; below that it is cut down to what fits."""
NEEDS = len("gradients, training")
"""Columns of what a method needs: more of it goes to a second line, so that what it does has room."""
BELOW = (
    "What is not listed under needs is not needed. `prune --causal` takes the causal variant of {having}. "
    "`whyprune methods NAME` says what one of them is made of, costs and promises."
)
LABELS = {"no": "no", "outcome": "if the outcome needs them", "yes": "yes"}


def methods(name: NameArgument = None, as_json: JsonOption = False) -> None:
    """Lists the pruning methods: what each is made of, needs, costs and promises.

    Example: whyprune methods causal --json
    """
    screen = Screen(quiet=False, as_json=as_json)
    if name is not None:
        facts = method_named(name).facts()
        screen.show(_one(facts, [one for one in method_names() if method_named(one).variant == facts["name"]]))
        screen.emit(facts)
        return
    every = [method_named(one).facts() for one in method_names()]
    screen.show(_all(every))
    screen.emit({"methods": every})


def _all(every: list[dict[str, Any]]) -> Group:
    """A row for every method, and below it what it costs and promises, in sentences over the whole width."""
    wide = Console().width >= WIDE
    columns = ["method", "what it does", "needs", *(("rounds", "allocation") if wide else ())]
    rows = [[facts["name"], facts["summary"], _needs(facts), facts["schedule"], facts["allocation"]] for facts in every]
    widths = [max(map(len, cells)) for cells in zip(columns, *(row[: len(columns)] for row in rows), strict=True)]
    widths[2] = min(widths[2], NEEDS)
    parts: list[RenderableType] = [_row(columns, widths)]
    for facts, row in zip(every, rows, strict=True):
        parts += [_row(row[: len(columns)], widths), Padding(Text(_about(facts)), (0, 0, 0, 4))]
    having = ", ".join(facts["name"] for facts in every if facts["causal"])
    return Group(*parts, "", Text(BELOW.format(having=having)))


def _row(cells: list[str], widths: list[int]) -> Table:
    """One row; the second column takes what the others leave."""
    table = Table.grid(padding=(0, 2), pad_edge=False, expand=True)
    for number, width in enumerate(widths):
        if number == 1:
            table.add_column(ratio=1)
        else:
            table.add_column(width=width, no_wrap=number != 2, style="bold" if number == 0 else "")
    table.add_row(*(Text(cell) for cell in cells))
    return table


def _about(facts: dict[str, Any]) -> str:
    """What it costs, promises, where it comes from, and what it wants that not all do."""
    said = [
        "Labels if the outcome needs them." if facts["labels"] == "outcome" else "",
        f"Cost: {facts['cost']}.",
        f"Guarantee: {facts['guarantee']}.",
        f"Paper: {facts['paper']}." if facts["paper"] else "",
        f"Causal variant: {facts['causal']}." if facts["causal"] else "",
        f"Extra: {facts['extra']}." if facts["extra"] else "",
    ]
    return " ".join(filter(None, said))


def _needs(facts: dict[str, Any]) -> str:
    always = {
        "images": facts["images"],
        "labels": facts["labels"] == "yes",
        "gradients": facts["gradients"],
        "training": facts["training"],
    }
    return ", ".join(name for name, needed in always.items() if needed) or "nothing"


def _one(facts: dict[str, Any], variant_of: list[str]) -> Group:
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    rows = {
        "scorer": facts["scorer"],
        "estimand": facts["estimand"],
        "allocation": facts["allocation"],
        **({"fitness": facts["fitness"], "plans": f"{facts['search_plans']:,} at most"} if facts["fitness"] else {}),
        "schedule": facts["schedule"],
        "repair": facts["repair"],
        "decides": ", ".join(facts["kinds"]),
        "images": _yes(facts["images"]),
        "labels": LABELS[facts["labels"]],
        "gradients": _yes(facts["gradients"]),
        "training": _yes(facts["training"]),
        "causal variant": facts["causal"] or (f"it is that of {', '.join(variant_of)}" if variant_of else "none"),
        "cost": facts["cost"],
        "guarantee": facts["guarantee"],
        "paper": facts["paper"] or "none stated",
        "extra": f"pip install 'whyprune[{facts['extra']}]'" if facts["extra"] else "none",
    }
    for title, value in rows.items():
        table.add_row(title, Text(value))
    return Group(Text(f"{facts['name']}: {facts['summary']}"), "", table)


def _yes(value: bool) -> str:
    return "yes" if value else "no"
