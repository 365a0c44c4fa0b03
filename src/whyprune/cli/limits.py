"""The options of `whyprune prune` that bound widths, and the `Constraints` they make."""

from collections.abc import Callable, Sequence
from typing import Annotated, Any, TypeVar

import typer

from whyprune.allocation.constraints import Constraints
from whyprune.errors import InputError

Number = TypeVar("Number", int, float)


def _option(text: str, metavar: str) -> Any:
    return typer.Option(help=text, metavar=metavar, rich_help_panel="What must stay", show_default=False)


IgnoreOption = Annotated[
    list[str] | None, _option("Group or module whose channels are kept; repeat it for several.", "NAME")
]
RoundToOption = Annotated[
    str | None,
    _option("Widths are multiples of N; of some groups or modules only, as NAME=N with commas.", "N|NAME=N"),
]
MinWidthOption = Annotated[
    str | None, _option("Channels that stay at least; of some groups only, as NAME=N with commas.", "N|NAME=N")
]
MaxShareOption = Annotated[
    str | None,
    _option("Of a group's units, at most this share goes, 0 to 1; or NAME=X with commas.", "X|NAME=X"),
]
TogetherOption = Annotated[
    list[str] | None,
    _option("Groups that lose the same units, with commas between them; repeat it for several sets.", "NAME,NAME"),
]


def constraints_of(
    ignore: Sequence[str] | None,
    round_to: str | None,
    min_width: str | None,
    max_share: str | None,
    together: Sequence[str] | None,
) -> Constraints:
    """The constraints that the options' texts state.

    Raises:
        InputError: a text that cannot be read, or a value out of range.
    """
    return Constraints(
        ignore=tuple(ignore or ()),
        round_to=_per_group("round-to", round_to, int),
        min_width=_per_group("min-width", min_width, int),
        max_share=_per_group("max-share", max_share, float),
        together=tuple(tuple(name.strip() for name in names.split(",")) for names in together or ()),
    )


def _per_group(flag: str, text: str | None, read: Callable[[str], Number]) -> Number | dict[str, Number] | None:
    """`8`, or `stem=8,head=4`."""
    if text is None:
        return None
    named: dict[str, Number] = {}
    try:
        if "=" not in text:
            return read(text)
        for part in text.split(","):
            name, _, number = (word.strip() for word in part.rpartition("="))
            if not name or name in named:
                raise ValueError
            named[name] = read(number)
    except ValueError:
        raise InputError(f"--{flag} {text!r}: give a number, or NAME=NUMBER once per name, with commas") from None
    return named
