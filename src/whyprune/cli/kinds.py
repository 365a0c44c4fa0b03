"""How a field's type is written on the command line, and how what is written is read."""

import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from whyprune.cli.texts import numbers, per_group, ties


def _same(_: str, value: Any) -> Any:
    return value


@dataclass(frozen=True)
class Kind:
    """One kind of option.

    Attributes:
        hint: the type that typer reads.
        metavar: what stands for a value in the help.
        read: (flag, what typer read) -> the field's value.
        shown: the field's default -> the option's.
        note: how several values are given, for the help.
    """

    hint: Any
    metavar: str | None
    read: Callable[[str, Any], Any] = _same
    shown: Callable[[Any], Any] = lambda value: value
    note: str = ""


def kind_of(annotation: Any) -> Kind:
    """The kind of option for a field of that type.

    Raises:
        TypeError: a type that has no option: the configuration has to leave it out.
    """
    parts = _parts(annotation)
    for known, kind in KINDS:
        if parts == known:
            return kind
    if all(get_origin(part) is Literal for part in parts):
        return Kind(str, "NAME")
    raise TypeError(f"there is no option for {annotation}: name it in `without`, or add its kind")


def _parts(annotation: Any) -> frozenset[Any]:
    union = get_args(annotation) if get_origin(annotation) in (Union, types.UnionType) else (annotation,)
    return frozenset(union) - {type(None)}


def _given(value: Any) -> Any:
    return value or None


def _for_groups(number: type[int] | type[float], metavar: str) -> Kind:
    note = "For some groups or modules only: NAME=NUMBER, with commas between them."
    return Kind(str, metavar, lambda flag, text: per_group(flag, text, number), note=note)


_NAMES = Kind(list[str], "NAME", lambda _, given: tuple(given), _given, "Repeat it for several.")
_SETS = Kind(
    list[str],
    "NAME,NAME",
    lambda _, given: ties(given),
    _given,
    "Give names with commas between them; repeat it for several sets.",
)
KINDS: tuple[tuple[frozenset[Any], Kind], ...] = (
    (frozenset({bool}), Kind(bool, None)),
    (frozenset({int}), Kind(int, "N")),
    (frozenset({float}), Kind(float, "X")),
    (frozenset({str}), Kind(str, "NAME")),
    (frozenset({Path}), Kind(Path, "FILE")),
    (frozenset({str, Path}), Kind(Path, "FILE")),
    (frozenset({int, str}), Kind(str, "NAME", lambda _, text: int(text) if text.isdecimal() else text, str)),
    (frozenset({Sequence[float]}), Kind(str, "NUMBERS", lambda _, text: numbers(text))),
    (frozenset({tuple[str, ...]}), _NAMES),
    (frozenset({tuple[tuple[str, ...], ...]}), _SETS),
    (frozenset({int, Mapping[str, int]}), _for_groups(int, "N|NAME=N")),
    (frozenset({float, Mapping[str, float]}), _for_groups(float, "X|NAME=X")),
)
