"""Things by name: built in, each imported when it is asked for, or registered by other packages as entry points."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from typing import Generic, TypeVar, cast

from whyprune.errors import InputError, MissingDependencyError

Thing = TypeVar("Thing")
LIBRARIES = {"dowhy": "DoWhy", "causallearn": "causal-learn"}
"""Optional libraries whose name is not the one under which they are imported."""


def check_installed(who: str, libraries: Sequence[str], extra: str) -> None:
    """Refuses, before any work, what needs an optional library that is not there.

    Args:
        who: what needs it, for the message.
        libraries: the names under which they are imported.
        extra: the extra of whyprune that brings them.

    Raises:
        MissingDependencyError: one of them is not installed.
    """
    if missing := [LIBRARIES.get(name, name) for name in libraries if not _is_there(name)]:
        raise MissingDependencyError(f"{who} needs {', '.join(missing)}: pip install 'whyprune[{extra}]'")


def _is_there(library: str) -> bool:
    """Whether it could be imported; a finder that forbids an import, or a module without a spec, raises instead."""
    try:
        return find_spec(library) is not None
    except (ImportError, ValueError):
        return False


@dataclass(frozen=True)
class Named(Generic[Thing]):
    """A lazy registry: optional libraries are imported only when what needs them is asked for.

    Attributes:
        kind: what the things are called in messages: `scorer`, `allocator`.
        places: name -> where it is, as `module:attribute`.
        group: the entry-point group by which other packages add theirs; a built-in name cannot be taken over.
    """

    kind: str
    places: Mapping[str, str]
    group: str

    def __call__(self, name: str) -> Thing:
        """The thing of that name.

        Raises:
            InputError: there is none, or an entry point cannot be loaded.
            MissingDependencyError: it needs an optional library.
        """
        if name in self.places:
            module, _, attribute = self.places[name].partition(":")
            return cast(Thing, getattr(import_module(module), attribute))
        point = self._outside.get(name)
        if point is None:
            raise InputError(f"no {self.kind} named {name!r}: choose from {', '.join(self)}")
        try:
            return cast(Thing, point.load())
        except (ImportError, AttributeError) as error:
            raise InputError(f"the {self.kind} {name!r} cannot be loaded from {point.value}: {error}") from error

    def __iter__(self) -> Iterator[str]:
        """The names, those built in first."""
        yield from self.places
        yield from self._outside

    def __contains__(self, name: object) -> bool:
        return name in self.places or name in self._outside

    @cached_property
    def _outside(self) -> dict[str, EntryPoint]:
        found = sorted(entry_points(group=self.group), key=lambda point: point.name)
        return {point.name: point for point in found if point.name not in self.places}
