"""What a command prints: results on standard output, all else on standard error."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console, RenderableType


@dataclass(frozen=True)
class Screen:
    """Where a command's words go.

    Attributes:
        quiet: print nothing but errors and JSON.
        as_json: print one JSON object instead of tables.
    """

    quiet: bool = False
    as_json: bool = False

    @property
    def progress(self) -> bool:
        """Whether to show progress bars."""
        return not self.quiet

    def note(self, text: str) -> None:
        """A line about the work under way."""
        if not self.quiet:
            Console(stderr=True).print(text, soft_wrap=True, markup=False, highlight=False)

    def show(self, *parts: RenderableType) -> None:
        """A part of the result, for people."""
        if not (self.quiet or self.as_json):
            console = Console()
            for part in parts:
                # Names and paths are the user's: their brackets are no markup, their lines are not broken.
                console.print(part, soft_wrap=isinstance(part, str), markup=False, highlight=False)

    def emit(self, result: dict[str, Any]) -> None:
        """The result, for machines."""
        if self.as_json:
            print(json.dumps(result, default=_plain, allow_nan=False))


def complain(*lines: str) -> None:
    """Lines on standard error, never broken."""
    for line in lines:
        Console(stderr=True).print(line, soft_wrap=True, markup=False, highlight=False)


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{type(value).__name__} is no JSON")
