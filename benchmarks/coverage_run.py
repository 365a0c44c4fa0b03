"""Networks of the coverage table, measured in a process of their own; `coverage.py` starts it.

The row is written after every stage, so that a crash or a time limit costs only the stage it falls in.
"""

import argparse
import json
import random
import resource
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import whyprune as wp
from benchmarks import coverage_torch_pruning as torch_pruning
from benchmarks.common import Stopwatch, commit
from benchmarks.coverage_check import (
    FORWARD,
    RIGHT,
    TOLERANCE,
    WRONG,
    fresh_inputs,
    judged,
    left,
    outputs,
    said,
    size,
)
from benchmarks.coverage_files import exported, reloaded
from benchmarks.coverage_models import Subject, subjects
from whyprune.data.batches import Batch
from whyprune.errors import TraceError, VerificationError
from whyprune.structure.capture import as_example
from whyprune.structure.precise import doubled, in_double
from whyprune.structure.units import Unit

SEVERITY = (
    RIGHT,
    "no units",
    "refused to trace",
    "crash while tracing",
    "crash while removing",
    FORWARD,
    WRONG,  # it runs, and nobody sees it
)


class Row(dict[str, Any]):
    """A row of the table that is on disk after every stage."""

    def __init__(self, path: Path, **start: Any) -> None:
        super().__init__(start)
        self.path = path

    def stage(self, name: str) -> None:
        """Writes what there is so far, and what comes next."""
        self["stage"] = name
        self.path.write_text(json.dumps(self), encoding="utf-8")


def measure(subject: Subject, seeds: int, repeats: int, row: Row) -> None:
    """Both pruners on one network."""
    watch = Stopwatch()
    row.stage("building")
    model, example = subject.model(0), as_example(subject.draw(2, 1))
    inputs = fresh_inputs(subject, model)
    dense = size(model, inputs)
    row |= {"input": [list(t.shape) for t in example.tensors()], "macs": dense[0], "params": dense[1]}
    row["scale"] = max(float(t.abs().max()) for t in outputs(model, inputs))
    row.stage("tracing")
    ours, theirs = row.setdefault("whyprune", {}), row.setdefault("torch_pruning", {})
    network = trace_both(model, example, repeats, ours, theirs)
    if network is not None:
        ours |= inspected(network)
        row.stage("removing")
        for kind, choose in (("uniform", half_of_each), ("global", half_of_all)):
            ours[kind] = removals(network, choose, inputs, dense, seeds)
        ours["outcome"] = worst([ours[k]["outcome"] for k in ("uniform", "global")]) if network.units else "no units"
        if ours["uniform"]["outcome"] == RIGHT:
            keep(subject, network, inputs, row)
    if torch_pruning.installed():
        row.stage("pruning with Torch-Pruning")
        try:
            theirs |= torch_pruning.prune_half(subject)
        except Exception as error:  # noqa: BLE001 - the network is of another shape than can be compared
            theirs |= {"outcome": "not comparable", "error": said(error)}
    row["seconds"] = watch.seconds
    row.stage("done")


def trace_both(
    model: nn.Module, example: Batch, repeats: int, ours: dict[str, Any], theirs: dict[str, Any]
) -> wp.Network | None:
    """Traces the network and builds Torch-Pruning's graph by turns; a tiny network before that loads both libraries."""
    tiny = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1)).eval()
    small = as_example(torch.randn(2, 3, 8, 8))
    network = None
    beside = torch_pruning.installed() is not None
    for run in range(repeats + 1):
        subject, inputs = (model, example) if run else (tiny, small)
        for mine, column in ((True, ours), (False, theirs)):
            if "outcome" in column or not (mine or beside):
                continue
            watch = Stopwatch()
            try:
                if mine:
                    network = wp.trace(subject, inputs)
                else:
                    torch_pruning.build_graph(subject, inputs)
            except Exception as error:  # noqa: BLE001 - any error is an outcome of the table
                column |= {"outcome": _trace_outcome(error, mine), "error": said(error)}
            else:
                column.setdefault("graphs_s", []).extend([watch.seconds] * bool(run))
    for column in (ours, theirs):
        if column.get("graphs_s"):
            column["graph_s"] = statistics.median(column["graphs_s"])
    return None if "outcome" in ours else network


def _trace_outcome(error: Exception, mine: bool) -> str:
    if not mine:
        return "crash while building"
    return "refused to trace" if isinstance(error, TraceError) else "crash while tracing"


def inspected(network: wp.Network) -> dict[str, Any]:
    """Units, groups, which share of the network lies in them, and what is refused for which reason."""
    params, macs = removable_share(network)
    reasons: dict[str, dict[str, Any]] = {}
    for refusal in network.refusals:
        found = reasons.setdefault(refusal.reason, {"channels": 0, "places": 0, "first": refusal.where})
        found["channels"] += refusal.channels
        found["places"] += 1
    refused = [{"reason": r, **about} for r, about in reasons.items()]
    return {
        "units": len(network.units),
        "groups": len(network.groups),
        "marked_units": sum(bool(getattr(u, "marks", ())) for u in network.units),
        "params_removable_percent": 100 * params,
        "macs_removable_percent": 100 * macs,
        "refusals": sorted(refused, key=lambda r: -r["channels"]),
    }


def removable_share(network: wp.Network) -> tuple[float, float]:
    """The share of (parameters, MACs) that go with at least one unit.

    A weight goes when its output or its input channel does, so this is what would go with all units at once.
    """
    dense, rest = network.cost(), network.cost(network.units)
    return 1 - rest.params / max(dense.params, 1), 1 - rest.macs / max(dense.macs, 1)


def half_of_each(network: wp.Network, seed: int) -> list[Unit]:
    """Half the units of every group, at random."""
    rng = random.Random(seed)
    return [unit for group in network.groups for unit in rng.sample(group.units, len(group.units) // 2)]


def half_of_all(network: wp.Network, seed: int) -> list[Unit]:
    """Half of all units at random, but one of every group."""
    rng = random.Random(seed)
    stay = {rng.choice(group.units).name for group in network.groups}
    spare = [unit for unit in network.units if unit.name not in stay]
    return rng.sample(spare, min(len(network.units) // 2, len(spare)))


def removals(
    network: wp.Network,
    choose: Callable[[wp.Network, int], list[Unit]],
    inputs: Batch,
    dense: tuple[int, int],
    seeds: int,
) -> dict[str, Any]:
    """The worst of several random removals, and what the first one leaves."""
    rows = [_removal(network, choose(network, seed), inputs, dense) for seed in range(seeds)]
    bad = max(rows, key=lambda row: (SEVERITY.index(row["outcome"]), row.get("difference") or 0.0))
    return {**rows[0], **{k: bad.get(k) for k in ("outcome", "error", "difference")}, "removals": seeds}


def _removal(network: wp.Network, units: list[Unit], inputs: Batch, dense: tuple[int, int]) -> dict[str, Any]:
    try:
        pruned, reference = wp.remove(network, units), wp.masked(network, units)
        expected = outputs(reference, inputs)
    except Exception as error:  # noqa: BLE001 - any error is an outcome of the table
        return {"outcome": "crash while removing", "error": said(error)}

    def precisely() -> tuple[list[Tensor], list[Tensor]]:
        exact = in_double(network)
        names, batch = [u.name for u in units], doubled(inputs)
        return outputs(wp.remove(exact, names), batch), outputs(wp.masked(exact, names), batch)

    row = judged(pruned, expected, inputs, precisely)
    if row["difference"] is None:
        return row
    row |= {"units": len(units), **left(pruned, dense, inputs)}
    try:
        wp.verify(network, pruned, units, tolerance=TOLERANCE, stress=False)
    except VerificationError as error:
        row |= {"outcome": WRONG, "error": said(error)}
    exact = network.cost(units).params == sum(p.numel() for p in pruned.parameters())
    return row if exact else {**row, "outcome": WRONG, "error": "the promised number of parameters is not what is left"}


def worst(outcomes: list[str]) -> str:
    """The most severe of several outcomes."""
    return max(outcomes, key=SEVERITY.index)


def keep(subject: Subject, network: wp.Network, inputs: Batch, row: Row) -> None:
    """Writes the network without half of every group to disk in both ways."""
    units = half_of_each(network, 0)
    row.stage("saving and loading")
    row["whyprune"]["reload"] = reloaded(subject, network, units, inputs)
    if subject.exports:
        row.stage("exporting to ONNX")
        row["whyprune"]["onnx"] = exported(network, units, inputs)


def memory(subject: Subject, scale: int) -> dict[str, float]:
    """Peak memory of this process in MiB after one forward pass, and how much higher tracing drives it.

    A tiny network is traced first: what loading the libraries takes is not counted.
    """
    wp.trace(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 2, 1)).eval(), torch.randn(2, 3, 8, 8))
    model, example = subject.model(0), as_example(subject.draw(2, 1, scale))
    before = _peak_mib()
    outputs(model, example)
    forward = _peak_mib()
    wp.trace(model, example)
    return {"forward_mib": forward - before, "trace_above_forward_mib": _peak_mib() - forward}


def _peak_mib() -> float:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10


def main() -> None:
    """Measures the networks that the command line names and writes a row for each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("suite")
    parser.add_argument("folder", type=Path)
    parser.add_argument("models", nargs="+")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--memory", type=int, help="only the memory of tracing, at so many times the image side")
    options = parser.parse_args()
    known, version = subjects(options.suite), commit()
    for index, name in enumerate(options.models):
        path = options.folder / f"{index:04}.json"
        if options.memory:
            path.write_text(json.dumps(memory(known[name], options.memory)), encoding="utf-8")
        else:
            row = Row(path, suite=options.suite, model=name, git_commit=version)
            measure(known[name], options.seeds, options.repeats, row)


if __name__ == "__main__":
    main()
