"""Plans that a search has measured, in a file: an interrupted search goes on without measuring them again.

A search asks for the same plans in the same order, so numbers are all that it needs. Each stands under the question
that it answers (weights, images, what is asked) and under the units that go: what is of another question is not used.
"""

import hashlib
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import Field, ValidationError
from torch import Tensor
from torch.utils import _pytree as pytree

from whyprune.atomic import atomic_file
from whyprune.data.batches import Batch
from whyprune.errors import InputError
from whyprune.models.weights import fingerprint
from whyprune.results import Record
from whyprune.structure.state import State

Finite = Annotated[float, Field(allow_inf_nan=False)]
INTERVAL_S = 10.0
"""At most so many seconds of measuring are lost."""


class KeptRecord(Record):
    """The file: question -> set of units -> harm (null where it is infinite) and passes."""

    version: Literal[1] = 1
    questions: dict[str, dict[str, tuple[Finite | None, Finite]]] = Field(default_factory=dict)


class KeptPlans:
    """Measured plans in a file that is written whole, every few seconds and at the end.

    Example:
        >>> kept = KeptPlans(Path("run.partial/search.json"), resume=True)  # doctest: +SKIP
        >>> with kept:  # doctest: +SKIP
        ...     evaluator = MeasuredEffects(state, batches, kept=kept)
    """

    def __init__(self, path: Path, *, resume: bool = False, interval_s: float = INTERVAL_S) -> None:
        """Reads what an interrupted search left, if that is to be resumed; a file that is damaged is not used.

        Args:
            path: the file; its folder is made when it is first written.
            resume: use what is there; else it is written over.
            interval_s: between two writings; 0 writes every plan.
        """
        self.path, self.taken, self.measured = path, 0, 0
        self._interval_s, self._damage, self._unwritten = interval_s, "", ""
        self._found = self._read() if resume and path.is_file() else {}
        self._all = {question: dict(plans) for question, plans in self._found.items()}
        self._written, self._changed = time.monotonic(), False

    def get(self, question: str, units: Sequence[str]) -> tuple[float, float] | None:
        """(harm, passes) of a plan that an interrupted search has measured; None for others."""
        found = self._found.get(question, {}).get(_name(units))
        if found is None:
            return None
        self.taken += 1
        return (np.inf if found[0] is None else found[0]), found[1]

    def put(self, question: str, units: Sequence[str], harm: float, passes: float) -> None:
        """Keeps a plan that has been measured; a file that cannot be written ends no search, `notes` says so."""
        kept = self._all.setdefault(question, {})
        kept[_name(units)] = (harm if np.isfinite(harm) else None, passes)
        self.measured, self._changed = self.measured + 1, True
        if time.monotonic() - self._written >= self._interval_s:
            self._try_to_write()

    def write(self) -> None:
        """Writes the file, where there is anything new.

        Raises:
            InputError: it cannot be written.
        """
        if self._changed:
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise InputError(f"cannot make {self.path.parent}: {error.strerror or error}") from error
            with atomic_file(self.path) as path:
                path.write_text(KeptRecord(questions=self._all).model_dump_json(indent=1), encoding="utf-8")
            self._written, self._changed = time.monotonic(), False

    def notes(self) -> Iterator[str]:
        """Sentences on what was taken from the file, what was not, and what could not be kept."""
        if self._unwritten:
            yield f"Measured plans could not be kept for a --resume: {self._unwritten}."
        if self._damage:
            yield f"{self.path.name} is damaged ({self._damage}): all plans were measured again."
        elif self.taken:
            yield f"{self.taken} measured plans were taken from the interrupted search, {self.measured} are new."
        elif self._found:
            yield (
                f"{self.path.name} holds plans of another search (other weights, images or settings): all plans were "
                "measured again."
            )

    def _read(self) -> dict[str, dict[str, tuple[float | None, float]]]:
        try:
            return KeptRecord.model_validate_json(self.path.read_bytes()).questions
        except (OSError, ValidationError) as error:
            problem = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
            self._damage = problem.splitlines()[0]
            return {}

    def __enter__(self) -> "KeptPlans":
        return self

    def __exit__(self, *_: object) -> None:
        self._try_to_write()

    def _try_to_write(self) -> None:
        """Writes; what stands in the way is said in the end, and tried again no sooner than the next writing is due."""
        try:
            self.write()
            self._unwritten = ""
        except InputError as error:
            self._unwritten, self._written = str(error), time.monotonic()


def question_of(*parts: object) -> str:
    """SHA-256 (hex) of states, batches, and what has a text of its own, in order."""
    digest = hashlib.sha256()
    for part in _flat(parts):
        if isinstance(part, State):
            names = "\0".join(unit.name for unit in part.removed)
            digest.update(f"{fingerprint(part.network.model)}{fingerprint(part.model)}{names}\1".encode())
        elif isinstance(part, Batch):
            for leaf in pytree.tree_leaves((part.args, part.kwargs, part.labels)):
                _add(digest, leaf)
        else:
            digest.update(f"{part}\1".encode())
    return digest.hexdigest()


def _flat(parts: Sequence[object]) -> Iterator[object]:
    for part in parts:
        if isinstance(part, list | tuple):
            yield from _flat(part)
        else:
            yield part


def _add(digest: "hashlib._Hash", leaf: object) -> None:
    if not isinstance(leaf, Tensor):
        digest.update(f"{leaf!r:.200}\1".encode())
        return
    digest.update(f"{leaf.dtype}{tuple(leaf.shape)}\1".encode())
    digest.update(leaf.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())


def _name(units: Sequence[str]) -> str:
    return hashlib.sha256("\0".join(units).encode()).hexdigest()
