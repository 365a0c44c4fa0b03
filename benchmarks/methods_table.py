"""All methods beside each other: the same network, budget, images and repairs; with causal insight and without.

Every method of the registry plans once, by the steps of `whyprune prune`, on all groups that it prunes by default.
The cut network is then tested as it is (`plain`: for methods in rounds the plan's units, cut from the dense network),
with its batch norms re-estimated, and refitted (in rounds: as the rounds refitted it). No row is fine-tuned. A seed
draws the calibration images and everything else; there is one checkpoint per network. The first test images are read
for these accuracies alone: no method, search or repair sees them.

Where a method has a causal variant, their difference is paired over images and seeds. Rows are written as they come,
and those that the record has, with the same settings, are not run again; several processes may write one record.
"""

import argparse
import fcntl
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from benchmarks.common import (
    RESULTS,
    arguments,
    at_most,
    cifar10,
    command_of,
    commit,
    fingerprint,
    merged,
    write_record,
)
from benchmarks.methods_table_cell import cell, failed
from benchmarks.methods_table_pairs import differences, headline
from benchmarks.methods_table_subject import Subject, searches
from whyprune.data import DataSource
from whyprune.devices import machine_state
from whyprune.errors import WhypruneError
from whyprune.methods import method_named, method_names

NAME = "methods_table"
NETWORKS = ("resnet20", "resnet56", "vgg16_bn")
KEY = ("network", "fewer_macs", "method", "seed")
QUICK = ("random", "magnitude-l2", "causal")
MACHINE = ("cpu", "cores", "torch_threads", "load_average", "python")


def pairs() -> dict[str, str]:
    """Method -> its causal variant, of those that are registered.

    Where neither searches there is a second pair, of the method with one ranking of all groups (`NAME+global`), as most
    variants have it: so that it is known whether the units or the widths make the difference.
    """
    names = list(method_names())
    found = {name: variant for name in names if (variant := _variant(name))}
    return found | {f"{n}+global": v for n, v in found.items() if not (searches(n) or searches(v))}


def _variant(name: str) -> str:
    try:
        return method_named(name).variant
    except WhypruneError:  # an optional library is missing
        return ""


def runnable() -> list[str]:
    """All methods, and those that pairs need with another allocation."""
    return list(dict.fromkeys([*method_names(), *pairs()]))


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Keeps other processes from the record meanwhile."""
    path.parent.mkdir(parents=True, exist_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)  # a file for the lock would stay behind
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def keep(options: argparse.Namespace, new: Sequence[dict[str, Any]], source: DataSource) -> list[dict[str, Any]]:
    """Adds rows to the record, and gives all that it has."""
    with alone(options.output):
        rows = merged(options.output, new, KEY)
        about = {
            "registered": list(method_names()),
            "causal_variants": pairs(),
            "differences": differences(rows, pairs()),
            "data_fingerprint": fingerprint(source),
        }
        write_record(NAME, options, headline(rows, pairs()), rows, **about)
    return rows


def wanted(options: argparse.Namespace) -> list[tuple[str, float, str, int]]:
    """The cells that were asked for, in the order in which they are run."""
    seeds = options.only_seeds or range(options.seeds)
    return [
        (network, ratio, method, seed)
        for network in options.networks
        for ratio in options.ratios
        for seed in seeds
        for method in options.methods
    ]


def run(options: argparse.Namespace) -> None:
    """Runs the cells that the record has not, and writes it after each."""
    if not options.quick and commit().endswith("-dirty"):
        sys.exit("files were changed since the last commit: a record has to name the code it is of")
    torch.set_num_threads(options.threads)
    options.output = options.output or RESULTS / f"{NAME}{'-quick' if options.quick else ''}.json"
    source = cifar10()
    subjects = {
        name: Subject(
            name, source, options.calibration_images, options.test_images, options.views, options.search_plans
        )
        for name in options.networks
    }
    rows = keep(options, [], source)
    for key in wanted(options):
        network, ratio, method, seed = key
        cell_of = dict(zip(KEY, key, strict=True)) | subjects[network].settings(method)
        if any(all(r.get(f) == v for f, v in cell_of.items()) and "error" not in r for r in rows):
            continue
        machine = machine_state()
        about = cell_of | {
            "git_commit": commit(),
            "command": command_of(NAME),
            "machine": {f: machine.get(f) for f in MACHINE},
        }
        try:
            with at_most(options.most_cpu_seconds):
                found = cell(subjects[network], method, ratio, seed, rows, about)
        except Exception as error:  # noqa: BLE001 - any error is an outcome of the table
            found = failed(about, error)
        shown = [f"{k}={found[k]:.2f}" for k in found if k.endswith("top1_percent") or k == "planning_cpu_s"]
        print(network, f"{ratio:g}x", method, f"seed {seed}", found.get("error") or " ".join(shown), flush=True)
        rows = keep(options, [found], source)


def parsed(given: Sequence[str] | None = None) -> argparse.Namespace:
    """The options; `--quick` has other defaults."""
    parser = arguments(__doc__ or "")
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS[:2]), choices=NETWORKS)
    parser.add_argument("--ratios", nargs="+", type=float, default=[2.0, 3.0, 1.5], help="how many times fewer MACs")
    parser.add_argument("--only-seeds", nargs="+", type=int, help="instead of all seeds")
    parser.add_argument("--methods", nargs="+", default=runnable(), help="rows to run; others are kept")
    parser.add_argument("--test-images", type=int, default=3_000, help="how many, from the first on")
    parser.add_argument("--calibration-images", type=int, default=1_024)
    parser.add_argument("--views", type=int, default=1, help="augmented views of every image in the last repair")
    parser.add_argument("--search-plans", type=int, help="that a search measures at most; default: its own")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--most-cpu-seconds", type=float, default=5_400.0, help="per row; what takes longer is stopped")
    if parser.parse_known_args(given)[0].quick:
        of_pairs = list(dict.fromkeys(name for pair in pairs().items() for name in pair))
        parser.set_defaults(networks=["resnet20"], ratios=[2.0], seeds=1, methods=[*QUICK, *of_pairs])
        parser.set_defaults(test_images=1_000, calibration_images=256, search_plans=16)
    return parser.parse_args(given)


if __name__ == "__main__":
    run(parsed())
