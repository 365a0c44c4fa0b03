"""Networks pruned to some widths and channels and taken through two steps; differences are paired over seeds.

The seed draws the calibration images. Whatever is compared is paired by it: one cell of widths and channels with the
reference after the same step, and the second step of a cell with its first.
"""

import argparse
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

import whyprune as wp
from benchmarks.causal_pruning import KEY, STREAM, Seed, paired
from benchmarks.common import RESULTS, arguments, calibration, cifar10, fingerprint, merged, trained, write_record
from whyprune.data import DataSource, Normalization
from whyprune.structure.units import Unit

REFERENCE = ("curves", "magnitude-l2")
CELLS = (("curves", "elimination"), REFERENCE, ("curves", "random"), ("uniform", "magnitude-l2"))
"""(widths, channels) that are compared."""
Row = Callable[[Seed, Sequence[Unit], DataSource, Normalization], dict[str, Any]]
"""What is measured of one network; fields `<step>_top1_percent` among it."""


def parser_of(text: str, ratios: Sequence[float]) -> argparse.ArgumentParser:
    """The switches that comparisons of steps share."""
    parser = arguments(text)
    parser.add_argument("--only-seeds", nargs="+", type=int, help="instead of all seeds")
    parser.add_argument("--cells", nargs="+", type=int, default=range(len(CELLS)), help="which of the comparison")
    parser.add_argument("--ratios", nargs="+", type=float, default=ratios, help="how many times fewer MACs")
    return parser


def compare(name: str, options: argparse.Namespace, steps: tuple[str, str], row: Row, **about: Any) -> None:
    """Runs the cells that are not in the record yet, and writes the record after each."""
    quick, source = options.quick, cifar10()
    model, normalization = trained("resnet20" if quick else "resnet56")
    options.output = path = options.output or RESULTS / f"{name}{'-quick' if quick else ''}.json"
    about |= {"data_fingerprint": fingerprint(source)}
    done = {tuple(r[field] for field in KEY) for r in merged(path, [], KEY)}
    seeds = options.only_seeds or range(1 if quick else options.seeds)
    wanted = [(r, *CELLS[k], s) for s in seeds for r in options.ratios for k in options.cells]
    seed: Seed | None = None
    for ratio, widths, channels, number in (cell for cell in wanted if cell not in done):
        if seed is None or seed.seed != number:
            loader = calibration(source, normalization, 256 if quick else 1024, number)
            seed = Seed(wp.trace(model, next(iter(loader))[0][:2]).ignoring(STREAM), loader, number, quick)
        units = seed.channels(channels, seed.widths(widths, wp.Budget(macs=1 / ratio)))
        cost, dense = seed.network.cost(units), seed.network.cost()
        found = {
            **dict(zip(KEY, (ratio, widths, channels, number), strict=True)),
            "macs_ratio": cost.macs / dense.macs,
            "params_ratio": cost.params / dense.params,
            **row(seed, units, source, normalization),
        }
        print(found, flush=True)
        rows = merged(path, [found], KEY)
        write_record(name, options, differences(rows, steps), rows, **about)
    rows = merged(path, [], KEY)
    write_record(name, options, differences(rows, steps), rows, **about)


def differences(rows: Sequence[Mapping[str, Any]], steps: tuple[str, str]) -> dict[str, Any]:
    """Means, in percent, and differences, in points: cells less the reference, and the second step less the first."""
    table = {tuple(r[field] for field in KEY): r for r in rows}
    result: dict[str, Any] = {}
    for ratio, widths, channels in dict.fromkeys(key[:3] for key in table):
        mine = {key[3]: r for key, r in table.items() if key[:3] == (ratio, widths, channels)}
        cell = f"{widths}_{channels}_{ratio:g}x"
        for step in steps:
            field = f"{step}_top1_percent"
            result[f"{step}_{cell}_top1_percent"] = float(np.mean([r[field] for r in mine.values()]))
            theirs = {s: table[key] for s in mine if (key := (ratio, *REFERENCE, s)) in table}
            if (widths, channels) != REFERENCE and theirs:
                result |= _paired(
                    f"{step}_{cell}_less_reference", [mine[s][field] - r[field] for s, r in theirs.items()]
                )
        before, after = (f"{step}_top1_percent" for step in steps)
        result |= _paired(f"{steps[1]}_{cell}_gain", [r[after] - r[before] for r in mine.values()])
    return result


def _paired(name: str, gaps: Sequence[float]) -> dict[str, Any]:
    mean, span = paired(np.array(gaps))
    return {f"{name}_points": mean} | ({f"{name}_interval_points": span} if span else {})
