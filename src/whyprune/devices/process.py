"""A specification for the worker, and the worker as a process of its own."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from whyprune import errors
from whyprune.data.batches import Batch
from whyprune.devices import runner, worker
from whyprune.errors import VerificationError, WhypruneError


def write_spec(folder: Path, networks: Mapping[str, Path], batch: Batch, **settings: Any) -> Path:
    """Writes `spec.json` and `inputs.npz`.

    Args:
        folder: where; the networks' files lie there already.
        networks: the file of each network, by name.
        batch: the inputs of every call.
        settings: the other fields of a specification (`runner.SPEC`).
    """
    arrays: dict[str, Any] = {str(i): t.detach().cpu().numpy() for i, t in enumerate(batch.tensors())}
    np.savez(folder / "inputs.npz", **arrays)

    def described(path: Path) -> dict[str, str]:
        return {"path": path.name, "sha256": runner.sha256(path)}

    spec = {
        "schema_version": runner.SCHEMA_VERSION,
        "networks": {name: described(path) for name, path in networks.items()},
        "inputs": described(folder / "inputs.npz"),
        **settings,
    }
    path = folder / "spec.json"
    path.write_text(json.dumps(spec), encoding="utf-8")
    return path


def run_worker(spec: Path, device: str, environment: Mapping[str, str], timeout_s: float) -> dict[str, Any]:
    """Measures what a specification asks for.

    Args:
        spec: its path; the record and the outputs will lie beside it.
        device: the device's name, for messages.
        environment: variables beside this process's own.
        timeout_s: an end for a runtime that hangs.

    Returns:
        The record.

    Raises:
        WhypruneError: the one that the worker names; `VerificationError` if it dies or hangs.
    """
    try:
        done = subprocess.run(
            [sys.executable, worker.__file__, str(spec)],
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise VerificationError(f"{device} gave no answer in {timeout_s:g} s: it was ended") from error
    if done.returncode != 0:
        raise _named(device, done.stderr.strip().splitlines()[-1:])
    record: dict[str, Any] = json.loads((spec.parent / "record.json").read_text(encoding="utf-8"))
    return record


def _named(device: str, said: list[str]) -> WhypruneError:
    """The error that the worker names in its last line."""
    last = said[0] if said else "it ended without a word"
    kind, _, message = last.partition(": ")
    wanted = getattr(errors, kind, None)
    if isinstance(wanted, type) and issubclass(wanted, WhypruneError):
        return wanted(f"{device}: {message}")
    return VerificationError(f"{device} failed: {last}")
