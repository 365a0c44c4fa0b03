"""`whyprune methods`: every method by name, and what it says of itself."""

from typing import Annotated, Any

import typer
from rich.console import Console, Group
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
BELOW = (
    "`prune --causal` takes the causal variant of {having}. "
    "Labels that are not listed are needed only if the outcome needs them. "
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
        screen.show(_one(facts))
        screen.emit(facts)
        return
    every = [method_named(one).facts() for one in method_names()]
    screen.show(_all(every))
    screen.emit({"methods": every})


def _all(every: list[dict[str, Any]]) -> Group:
    wide = Console().width >= WIDE
    table = Table(box=None, pad_edge=False)
    table.add_column("method", no_wrap=True, style="bold")
    table.add_column("what it does", ratio=1)
    table.add_column("needs")
    for column in ("rounds", "allocation") if wide else ():
        table.add_column(column, no_wrap=True)
    for facts in every:
        parts = (facts["schedule"], facts["allocation"]) if wide else ()
        table.add_row(facts["name"], Text(facts["summary"]), _needs(facts), *parts)
    having = ", ".join(facts["name"] for facts in every if facts["causal"])
    return Group(table, "", Text(BELOW.format(having=having)))


def _needs(facts: dict[str, Any]) -> str:
    always = {
        "images": facts["images"],
        "labels": facts["labels"] == "yes",
        "gradients": facts["gradients"],
        "training": facts["training"],
    }
    return ", ".join(name for name, needed in always.items() if needed) or "nothing"


def _one(facts: dict[str, Any]) -> Group:
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    rows = {
        "scorer": facts["scorer"],
        "estimand": facts["estimand"],
        "allocation": facts["allocation"],
        "schedule": facts["schedule"],
        "repair": facts["repair"],
        "decides": ", ".join(facts["kinds"]),
        "images": _yes(facts["images"]),
        "labels": LABELS[facts["labels"]],
        "gradients": _yes(facts["gradients"]),
        "training": _yes(facts["training"]),
        "causal variant": facts["causal"] or "none",
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
