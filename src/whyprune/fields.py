"""What the fields of a configuration say of themselves: said once, for its checks, its documentation and its options.

Words stand under `Attributes:` in the docstring of the class; ranges in `Field(ge=..., lt=...)`, in the field's type
by `Annotated` or as the default of a pydantic field; choices in a `Literal` type or, for registries, in `OneOf`.
"""

import dataclasses
import inspect
import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from numbers import Real
from operator import ge, gt, le, lt
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from whyprune.errors import InputError

RULES = {"ge": ge, "gt": gt, "le": le, "lt": lt}
MISSING = dataclasses.MISSING


@dataclass(frozen=True)
class OneOf:
    """A field takes one of these names; a registry is read only when it is asked."""

    names: Iterable[str]


@dataclass(frozen=True)
class About:
    """One field of a configuration.

    Attributes:
        name: of the field.
        kind: its type, without what is annotated.
        default: `MISSING` for none.
        words: what the documentation says of it.
        choices: the names it takes; None for any.
        rules: of its range: `ge`, `gt`, `le`, `lt` -> number.
    """

    name: str
    kind: Any
    default: Any
    words: str
    choices: OneOf | None
    rules: dict[str, float]


def fields_of(configuration: type) -> Iterator[About]:
    """The fields of a dataclass or a pydantic model, in order."""
    words = attribute_docs(configuration)
    if issubclass(configuration, BaseModel):
        for name, field in configuration.model_fields.items():
            default = MISSING if field.is_required() else field.get_default(call_default_factory=True)
            yield _about(name, field.annotation, default, words, field.metadata)
        return
    hints = get_type_hints(configuration, include_extras=True)
    for one in dataclasses.fields(configuration):  # type: ignore[arg-type]
        hint = hints[one.name]
        kind, *marks = get_args(hint) if get_origin(hint) is Annotated else (hint,)
        default = one.default if one.default_factory is MISSING else one.default_factory()
        yield _about(one.name, kind, default, words, marks)


def attribute_docs(configuration: type) -> dict[str, str]:
    """Attribute -> its words in the class's docstring, in one line."""
    _, _, section = (inspect.getdoc(configuration) or "").partition("Attributes:\n")
    section = re.split(r"\n(?=\S)", section)[0]
    entries = re.findall(r"^    (\w+): (.*(?:\n {5,}.*)*)", section, flags=re.MULTILINE)
    return {name: " ".join(text.split()) for name, text in entries}


def check_fields(configuration: Any) -> None:
    """Checks choices and ranges of a dataclass; None is always allowed, and a number with a range is finite.

    Raises:
        InputError: an unknown name, or a number out of range.
    """
    for field in fields_of(type(configuration)):
        value = getattr(configuration, field.name)
        if value is None:
            continue
        if field.choices is not None and value not in field.choices.names:
            known = ", ".join(filter(None, field.choices.names))
            raise InputError(f"no {field.name} named {value!r}: choose from {known}")
        finite = not isinstance(value, bool) and isinstance(value, Real) and math.isfinite(value)
        if field.rules and not (finite and all(RULES[r](value, at) for r, at in field.rules.items())):
            raise InputError(f"{field.name}={value!r:.60}: give a finite number x with {ranged(field.rules)}")


def ranged(rules: dict[str, float]) -> str:
    """`x>=1` or `0<=x<1`."""
    low = next(((rule, rules[rule]) for rule in ("ge", "gt") if rule in rules), None)
    high = next((f"{sign}{rules[rule]:g}" for rule, sign in (("le", "<="), ("lt", "<")) if rule in rules), "")
    if low is None:
        return f"x{high}"
    if not high:
        return f"x{'>=' if low[0] == 'ge' else '>'}{low[1]:g}"
    return f"{low[1]:g}{'<=' if low[0] == 'ge' else '<'}x{high}"


def _about(name: str, kind: Any, default: Any, words: dict[str, str], marks: Iterable[Any]) -> About:
    flat = [part for mark in marks for part in (mark.metadata if isinstance(mark, FieldInfo) else (mark,))]
    literals = [get_args(part) for part in (kind, *get_args(kind)) if get_origin(part) is Literal]
    choices = next((mark for mark in (*flat, *map(OneOf, literals)) if isinstance(mark, OneOf)), None)
    rules = {rule: getattr(mark, rule) for mark in flat for rule in RULES if getattr(mark, rule, None) is not None}
    return About(name, kind, default, words.get(name, ""), choices, rules)
