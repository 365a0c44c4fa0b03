"""How what is written on the command line is read."""

from collections.abc import Callable, Sequence
from typing import TypeVar

import typer

from whyprune.errors import InputError

Number = TypeVar("Number", int, float)


def one_of(names: Sequence[str]) -> Callable[[str | None], str | None]:
    """A callback that refuses all other values."""

    def check(value: str | None) -> str | None:
        if value is not None and value not in names:
            raise typer.BadParameter(f"there is no {value!r}: choose from {', '.join(names)}")
        return value

    return check


def numbers(text: str | None) -> list[float] | None:
    """`0.5,0.4` as numbers."""
    if text is None:
        return None
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise typer.BadParameter(f"{text!r}: give numbers with commas between them, one per channel") from None


def sizes(text: str | None) -> list[int] | None:
    """`3,224,224` as integers."""
    if text is None:
        return None
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise typer.BadParameter(f"{text!r}: give whole numbers with commas between them") from None


def per_group(flag: str, text: str, read: Callable[[str], Number]) -> Number | dict[str, Number]:
    """`8`, or `stem=8,head=4`.

    Raises:
        InputError: neither of them.
    """
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
        raise InputError(f"{flag} {text!r}: give a number, or NAME=NUMBER once per name, with commas") from None
    return named


def ties(texts: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    """`a,b` and `c,d` as sets of names."""
    return tuple(tuple(name.strip() for name in names.split(",")) for names in texts)
