"""Options follow from configurations: a new field is a new flag, and what is written reaches the field."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
import typer
from pydantic import BaseModel, Field
from typer.testing import CliRunner

from whyprune.cli.app import app
from whyprune.cli.build import Options, with_options
from whyprune.fields import OneOf
from whyprune.pipeline.settings import Settings
from whyprune.recovery import Recovery


@dataclass(frozen=True)
class Kitchen:
    """What is cooked.

    Attributes:
        dish: what there
            is [hot or cold].
        spice: what makes it hot.
        cooks: who cooks.
        oven: whether it is on.
        salt: grams of it.
        lid: whether one is on; default: the cook knows.
        names: of the guests.
        tables: who sits together.
        prices: one per course.
        portions: how much everybody gets.
        seats: how many, or which.
        recipe: where it stands.
    """

    dish: str
    spice: Literal["mild", "hot"] = "mild"
    cooks: Annotated[int, Field(ge=1)] = 2
    oven: bool = True
    salt: Annotated[float, Field(ge=0, lt=10)] = 0.5
    lid: bool | None = None
    names: tuple[str, ...] = ()
    tables: tuple[tuple[str, ...], ...] = ()
    prices: Sequence[float] | None = None
    portions: int | Mapping[str, int] | None = None
    seats: int | str = 4
    recipe: Path | None = None


class Drinks(BaseModel):
    """What is drunk.

    Attributes:
        rounds: how often.
        kind: of drink.
        strength: share of alcohol.
    """

    rounds: int = Field(3, ge=1)
    kind: Annotated[str | None, OneOf(("tea", "wine"))] = None
    strength: float = Field(0.1, ge=0, le=1)


def served(*arguments):
    """What a command made of the two configurations gets, and what it printed."""
    got: dict[str, Any] = {}

    @with_options
    def serve(
        ctx: typer.Context,
        *,
        kitchen: Annotated[Kitchen, Options("Kitchen", panels={"lid": "Late"})],
        table: str = "round",
        drinks: Annotated[Drinks | None, Options("Drinks", names={"rounds": "drinking_rounds"}, switch="rounds")],
        toast: Annotated[
            Drinks | None, Options("Toast", prefix="toast_", only=("rounds",), switch="rounds", shared=("kind",))
        ],
    ) -> None:
        """Serves."""
        got.update(kitchen=kitchen, table=table, drinks=drinks, toast=toast)

    program = typer.Typer()
    program.command()(serve)
    result = CliRunner().invoke(program, list(arguments))
    return got, result


def test_defaults_are_those_of_the_configuration():
    got, result = served("--dish", "soup")
    assert result.exit_code == 0, result.output
    assert got == {"kitchen": Kitchen("soup"), "table": "round", "drinks": None, "toast": None}


def test_every_kind_of_value_reaches_its_field():
    arguments = (
        *("--dish", "soup", "--spice", "hot", "--cooks", "3", "--no-oven", "--salt", "2.5", "--no-lid"),
        *("--names", "ann", "--names", "bob", "--tables", "ann, bob", "--tables", "cy,di", "--prices", "1.5,2"),
        *("--portions", "ann=1,bob=2", "--seats", "0,2", "--recipe", "book.txt", "--table", "long"),
    )
    got, result = served(*arguments)
    assert result.exit_code == 0, result.output
    assert got["table"] == "long"
    assert got["kitchen"] == Kitchen(
        dish="soup",
        spice="hot",
        cooks=3,
        oven=False,
        salt=2.5,
        lid=False,
        names=("ann", "bob"),
        tables=(("ann", "bob"), ("cy", "di")),
        prices=[1.5, 2.0],
        portions={"ann": 1, "bob": 2},
        seats="0,2",
        recipe=Path("book.txt"),
    )
    whole = served("--dish", "soup", "--portions", "7", "--seats", "3")[0]["kitchen"]
    assert (whole.portions, whole.seats) == (7, 3)


def test_a_switch_decides_whether_there_is_a_configuration():
    got, _ = served("--dish", "soup", "--drinking-rounds", "2", "--kind", "tea", "--strength", "0")
    assert (got["drinks"], got["toast"]) == (Drinks(rounds=2, kind="tea", strength=0), None)
    got, _ = served("--dish", "soup", "--toast-rounds", "1", "--kind", "wine")
    assert (got["drinks"], got["toast"]) == (None, Drinks(rounds=1, kind="wine"))


def test_options_that_do_nothing_are_refused():
    _, result = served("--dish", "soup", "--kind", "tea")
    assert str(result.exception) == "--kind does nothing without --drinking-rounds: give both or neither"
    _, result = served("--dish", "soup", "--kind", "wine", "--strength", "0.2", "--toast-rounds", "1")
    assert str(result.exception).startswith("--strength does nothing without --drinking-rounds")
    assert served("--dish", "soup", "--drinking-rounds", "0")[1].exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--spice", "fiery"), "there is no 'fiery': choose from mild, hot"),
        (("--drinking-rounds", "1", "--kind", "gin"), "there is no 'gin': choose from tea, wine"),
        (("--cooks", "0"), "greater than or equal to 1"),
        (("--prices", "cheap"), "'cheap': give numbers"),
        ((), "Missing option '--dish'"),
    ],
)
def test_wrong_values_are_refused(arguments, message):
    got, result = served(*(("--dish", "soup") if arguments else ()), *arguments)
    assert result.exit_code == 2
    assert message in " ".join(result.output.replace("│", " ").split())
    assert not got


def test_help_says_what_the_documentation_says(monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    text = " ".join(served("--help")[1].output.split())
    for words in (
        "What there is [hot or cold].",
        "What makes it hot. One of mild, hot.",
        "Of drink. One of tea, wine.",
        "X [0<=x<10]",
        "How often; 0 for none.",
    ):
        assert words in text
    panels = ("Kitchen", "Drinks", "Toast", "Late")
    places = [text.index(f"─ {panel} ─") for panel in panels]
    assert places == sorted(places)


def parameters():
    return {parameter.name for parameter in typer.main.get_command(app).commands["prune"].params}


def test_every_field_of_the_configurations_has_a_flag():
    asked = {"epochs": "finetune_epochs"}
    assert {asked.get(name, name) for name in Recovery.model_fields} <= parameters()
    assert {field.name for field in fields(Settings)} <= parameters()
