"""What every benchmark shares: data, records, quick mode. WHYPRUNE_DATA names the folder with the data."""

import argparse
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from whyprune.atomic import atomic_file
from whyprune.data import DataSource, Loader, Normalization, calibration_indices, load_source
from whyprune.devices import library_versions, machine_state
from whyprune.models import load_model, load_weights

RESULTS = Path(__file__).parent / "results"


def arguments(description: str) -> argparse.ArgumentParser:
    """A parser with the switches that every benchmark has."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help="the same code on less data, under 10 minutes on 2 cores")
    parser.add_argument("--seeds", type=int, default=3, help="how many calibration seeds")
    parser.add_argument("--output", type=Path, help="where the JSON record goes")
    return parser


def data_folder() -> Path:
    """The folder with `cifar10/` and `checkpoints/`; ends the program kindly without it."""
    folder = os.environ.get("WHYPRUNE_DATA")
    if not folder or not (Path(folder) / "cifar10").is_dir():
        sys.exit("set WHYPRUNE_DATA to a folder with cifar10/ (parquet) and checkpoints/ (safetensors with cards)")
    return Path(folder)


def cifar10() -> DataSource:
    """CIFAR-10."""
    return load_source(f"parquet:{data_folder() / 'cifar10'}")


def trained(name: str) -> tuple[nn.Module, Normalization]:
    """A trained CIFAR network and its normalisation, from the checkpoint's card."""
    stem = data_folder() / "checkpoints" / f"cifar10-{name}"
    model = load_model(name, num_classes=10, image_shape=(3, 32, 32))
    load_weights(model, stem.with_suffix(".safetensors"))
    return model, Normalization.from_card(stem.with_suffix(".json"))


def calibration(source: DataSource, normalization: Normalization, images: int, seed: int) -> Loader:
    """Calibration images drawn from the training split by seed."""
    return Loader(source.train, normalization, 128, calibration_indices(len(source.train), images, seed))


def test_images(source: DataSource, normalization: Normalization, images: int | None = None) -> Loader:
    """The first `images` test images (all by default)."""
    return Loader(source.test, normalization, 250, None if images is None else np.arange(images))


def fingerprint(source: DataSource) -> str:
    """SHA-256 over the labels and some pixels of both splits."""
    digest = hashlib.sha256()
    for split in (source.train, source.test):
        images, labels = split.batch(np.arange(0, len(split), max(1, len(split) // 100)))
        digest.update(images.numpy().tobytes())
        digest.update(labels.numpy().tobytes())
    return digest.hexdigest()


def write_record(
    name: str,
    options: argparse.Namespace,
    headline: dict[str, Any],
    rows: Sequence[dict[str, Any]],
    **more: Any,
) -> Path:
    """Writes the JSON record of a benchmark and prints its headline as the last line."""
    record = {
        "benchmark": name,
        "command": command_of(name),
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "git_commit": commit(),
        "versions": library_versions(),
        "machine": machine_state(),
        "quick": bool(options.quick),
        "headline": headline,
        "rows": list(rows),
        **more,
    }
    path = options.output or RESULTS / f"{name}{'-quick' if options.quick else ''}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as temporary:
        temporary.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    print(f"headline: {json.dumps(headline)}", flush=True)
    return path


def command_of(name: str) -> str:
    """The command that runs, as a row or a record names it."""
    return " ".join(["python", "-m", f"benchmarks.{name}", *_arguments(sys.argv[1:])])


def _arguments(given: Sequence[str]) -> list[str]:
    """The arguments but for where the record goes, which is a place on one machine."""
    skipped = {i for i, a in enumerate(given) for i in (i, i + 1) if a == "--output"}
    return [a for i, a in enumerate(given) if i not in skipped and not a.startswith("--output=")]


@contextmanager
def at_most(seconds: float) -> Iterator[None]:
    """Raises `TimeoutError` when what runs in it computes for longer, whatever else the machine does."""

    def stop(*_: object) -> None:
        raise TimeoutError(f"stopped after {seconds:g} s")

    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def merged(path: Path, new: Sequence[dict[str, Any]], fields: Sequence[str]) -> list[dict[str, Any]]:
    """The record's rows with `new` ones added or put in place of older ones that agree in `fields`, in their order."""
    old = json.loads(path.read_text())["rows"] if path.exists() else []
    rows = {tuple(r[f] for f in fields): r for r in [*old, *new]}
    return [rows[key] for key in sorted(rows)]


def commit() -> str:
    """The commit of the code that runs; `-dirty` where files were changed since."""
    shown = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--abbrev=12"], capture_output=True, text=True, check=False
    )
    return shown.stdout.strip() or "unknown"


class Stopwatch:
    """Seconds since it was made."""

    def __init__(self) -> None:
        self._start = time.perf_counter()

    @property
    def seconds(self) -> float:
        """Elapsed."""
        return time.perf_counter() - self._start
