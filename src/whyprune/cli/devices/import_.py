"""`whyprune devices import`: what a bundle brought back, checked and shown."""

from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from whyprune.cli.options import JsonOption
from whyprune.cli.screen import Screen
from whyprune.devices import Measurement, latency_ratio, read_results
from whyprune.results import LatencyRatio

MEBIBYTE = 2**20


def import_results(
    record: Annotated[
        Path,
        typer.Argument(
            metavar="RECORD",
            help="record.json with outputs.npz beside it, or the folder or .tar.gz that holds both.",
            show_default=False,
        ),
    ],
    *,
    bundle: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH",
            help="The bundle as it was written; default: its files came back with the record.",
            show_default=False,
        ),
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="What the device is called; default: its CPU.", show_default=False),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Reads what a device measured, checks it against the bundle and against PyTorch, and shows it."""
    screen = Screen(as_json=as_json)
    found = read_results(record, bundle, device=device)
    screen.show(_table(found))
    ratios = {
        f"{a} over {b}": _ratio(found, a, b) for a, b in pairwise(found.samples_ms) if len(found.samples_ms[a]) > 1
    }
    for name, ratio in ratios.items():
        low, high = ratio.interval
        screen.show(f"{name}: x{ratio.speedup:.2f} (95%: {low:.2f} to {high:.2f})")
    kept = {k: v for k, v in asdict(found).items() if k not in ("samples_ms", "latency")}
    screen.emit(
        {
            **kept,
            "latency": {name: latency.model_dump() for name, latency in found.latency.items()},
            "samples_ms": {name: times.tolist() for name, times in found.samples_ms.items()},
            "ratios": {name: ratio.model_dump() for name, ratio in ratios.items()},
        }
    )


def _table(found: Measurement) -> Table:
    kind = "" if found.kind == "measured" else f" ({found.kind})"
    table = Table(title=f"{found.device}{kind}", title_justify="left", title_style="bold", box=None, pad_edge=False)
    columns = ("network", "p50 ms", "p90 ms", "p99 ms", "cold start ms", "peak MiB", "file MiB", "off by")
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number else "left", overflow="fold")
    for name, latency in found.latency.items():
        cold, peak, size = (d.get(name) for d in (found.cold_start_ms, found.peak_memory_bytes, found.size_bytes))
        table.add_row(
            Text(name),
            *(f"{v:.4g}" for v in (latency.p50_ms, latency.p90_ms, latency.p99_ms)),
            "not measured" if cold is None else f"{cold:.4g}",
            "not measured" if peak is None else f"{peak / MEBIBYTE:.1f}",
            "not measured" if size is None else f"{size / MEBIBYTE:.2f}",
            f"{found.max_abs_difference[name]:.1e}",
        )
    return table


def _ratio(found: Measurement, one: str, other: str) -> LatencyRatio:
    first, second = found.calm_ms(one, other)
    return latency_ratio(first, second)
