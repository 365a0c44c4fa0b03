"""Progress on standard error: shown on a terminal, silent in files and pipes, gone when the work is done."""

from collections.abc import Iterable, Iterator, Sized
from types import TracebackType
from typing import Self, TypeVar

from rich import progress
from rich.console import Console

T = TypeVar("T")


class Progress:
    """A context with any number of progress bars; does nothing when not enabled or not on a terminal.

    Example:
        >>> with Progress(enabled=False) as bars:
        ...     units = bars.add("units", total=3)
        ...     bars.advance(units)
    """

    def __init__(self, enabled: bool = True) -> None:
        console = Console(stderr=True)
        self._bars = progress.Progress(
            progress.TextColumn("{task.description}"),
            progress.BarColumn(),
            progress.MofNCompleteColumn(),
            progress.TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not (enabled and (console.is_terminal or console.is_jupyter)),
        )

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def add(self, description: str, total: float | None = None, completed: int = 0) -> progress.TaskID:
        """A new bar; `total` None is an amount of work that is not known."""
        return self._bars.add_task(description, total=total, completed=completed)

    def advance(self, bar: progress.TaskID, by: float = 1, description: str | None = None) -> None:
        """`by` more of a bar's work is done; a description replaces the one shown."""
        self._bars.update(bar, advance=by, description=description)


def track(iterable: Iterable[T], description: str, total: float | None = None, enabled: bool = True) -> Iterator[T]:
    """The same items, with a bar that counts them; `total` is the iterable's length where it has one."""
    if total is None and isinstance(iterable, Sized):
        total = len(iterable)
    with Progress(enabled) as bars:
        bar = bars.add(description, total)
        for item in iterable:
            yield item
            bars.advance(bar)
