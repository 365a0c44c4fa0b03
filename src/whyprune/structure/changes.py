"""What files say of changes to a model: records against a closed schema, and integers that follow, checked."""

from collections.abc import Callable, Sequence
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field
from torch import nn

from whyprune.errors import FormatError
from whyprune.structure.intact import may_count
from whyprune.structure.remove import AttributeValue

CORRUPT = "the file is corrupt or for another model"
Index = Annotated[int, Field(ge=0, le=2**31)]


class Frozen(BaseModel):
    """A frozen record that refuses unknown fields and values of other kinds."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class AttributeChange(Frozen):
    """An integer of a user's module that counts channels, and its new value.

    Attributes:
        module: dotted path of the module.
        attribute: the name of an integer, or of a tuple or list of integers.
        place: the place in that tuple; 0 for a lone integer.
        value: the new number.
    """

    module: str
    attribute: str
    place: Annotated[int, Field(ge=0, le=15)] = 0
    value: Index


def shapes_of(model: nn.Module) -> dict[str, tuple[int, ...]]:
    """The shape of every parameter and buffer."""
    return {n: tuple(t.shape) for n, t in (*model.named_parameters(), *model.named_buffers())}


def checked_attributes(
    model: nn.Module, changes: Sequence[AttributeChange], fits: Callable[[int, int], bool], how: str
) -> list[AttributeValue]:
    """The changes as values to set.

    Args:
        model: whose modules they are of.
        changes: from a file.
        fits: whether a number may become another.
        how: what it could do to become that, for the message.

    Raises:
        FormatError: one is of no integer that may count channels, or does not fit.
    """
    modules = dict(model.named_modules())
    places: set[tuple[str, str, int]] = set()
    for change in changes:
        place = change.module, change.attribute, change.place
        number = _number_at(modules.get(change.module), change)
        if number is None or not fits(number, change.value) or place in places:
            raise FormatError(
                f"the plan sets {f'{change.module}.{change.attribute}'!r} to {change.value}, which is no integer "
                f"of the model that could {how} to it: {CORRUPT}"
            )
        places.add(place)
    return [(c.module, c.attribute, c.place, c.value) for c in changes]


def _number_at(module: nn.Module | None, change: AttributeChange) -> int | None:
    """The number that an attribute of a module holds, if it may count channels."""
    held = None if module is None else vars(module).get(change.attribute)
    numbers = list(held) if isinstance(held, tuple | list) else [held]
    number = numbers[change.place] if change.place < len(numbers) else None
    counts = type(number) is int and module is not None and may_count(module, change.attribute)
    return number if counts else None
