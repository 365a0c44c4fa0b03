"""`package.module:factory`: data, or a model, from the user's own code."""

import importlib
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from whyprune.data.source import DataSource
from whyprune.data.splits import DatasetSplit, Split
from whyprune.errors import InputError, WhypruneError

_SPEC = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")


def is_factory_spec(spec: str) -> bool:
    """Whether `spec` is written as `package.module:factory`."""
    return _SPEC.fullmatch(spec) is not None


def call_factory(spec: str, arguments: Callable[[Callable[..., Any]], dict[str, Any]] = lambda _: {}) -> Any:
    """Imports and calls `package.module:factory`; the current directory is importable meanwhile.

    Args:
        spec: the module and the callable's name in it.
        arguments: gives the keyword arguments for the callable; none by default.

    Raises:
        InputError: there is no such module or callable, or it raised an error of its own.
    """
    module_name, _, name = spec.partition(":")
    with _current_directory_importable():
        try:
            factory: Any = importlib.import_module(module_name)
            for part in name.split("."):
                factory = getattr(factory, part)
        except Exception as error:
            raise InputError(f"{spec} failed ({_in_short(error)}): give an importable callable") from error
        try:
            return factory(**arguments(factory))
        except WhypruneError:
            raise
        except Exception as error:
            raise InputError(
                f"{spec} was imported, and failed when it was called ({_in_short(error)}): mend it, or name one that "
                "needs no other arguments"
            ) from error


def _in_short(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def load_factory_source(spec: str) -> DataSource:
    """Data from a factory that takes no arguments.

    It returns a `DataSource`, or a pair `(train, test)` of map-style datasets of `(image, label)`.
    Class names are the train dataset's `classes`, as torchvision's have; without them they are unknown.

    Raises:
        InputError: the factory failed or returned something else.
    """
    made = call_factory(spec)
    if isinstance(made, DataSource):
        return made
    if not isinstance(made, tuple | list) or len(made) != 2:
        raise InputError(f"{spec} returned a {type(made).__name__}: return a DataSource or a pair (train, test)")
    train, test = (
        d if isinstance(d, Split) else DatasetSplit(f"{spec} {part}", d)
        for part, d in zip(("train", "test"), made, strict=True)
    )
    return DataSource(spec, train, test, tuple(map(str, getattr(made[0], "classes", ()))))


@contextmanager
def _current_directory_importable() -> Iterator[None]:
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        yield
    finally:
        if here in sys.path:
            sys.path.remove(here)
