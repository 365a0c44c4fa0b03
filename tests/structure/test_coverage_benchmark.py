"""The coverage benchmark: its records, its draws, its reference for another pruner, and what a crash costs."""

import argparse
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import randomised, traced
from torch import Tensor, nn

from whyprune.structure.capture import as_example
from whyprune.structure.network import Network
from whyprune.structure.precise import doubled

coverage = pytest.importorskip("benchmarks.coverage", reason="the project's root is on no path: use python -m pytest")
from benchmarks import coverage_run, coverage_tables  # noqa: E402
from benchmarks.coverage_check import RIGHT, WRONG, judged, outputs  # noqa: E402
from benchmarks.coverage_torch_pruning import (  # noqa: E402
    OverKeptChannels,
    _hold_positions,
    _take_positions,
    masked_original,
)

NETWORKS = ("concat", "separable", "squeeze excite", "pad shortcut", "vgg")


# Records

rows_of = st.lists(
    st.fixed_dictionaries(
        {"suite": st.sampled_from(["transformers", "small"]), "model": st.sampled_from("abcd"), "run": st.integers()}
    )
)


@given(old=rows_of, new=rows_of, order=st.permutations("abcd"))
def test_merged_rows_are_the_newest_of_each_network(old: Any, new: Any, order: Any) -> None:
    newest = {(r["suite"], r["model"]): r for r in [*old, *new]}
    rows = coverage.merged(old, new, order)
    assert {(r["suite"], r["model"]): r for r in rows} == newest
    assert len(rows) == len(newest)
    for suite in {r["suite"] for r in new}:
        names = [r["model"] for r in rows if r["suite"] == suite]
        assert names == sorted(names, key=order.index)
    assert coverage.merged(rows, new, order) == rows


# Draws and shares


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("seed", range(5))
def test_draws_take_half_and_leave_one_of_every_group(name: str, seed: int) -> None:
    network = traced(name)
    of_all, of_each = coverage_run.half_of_all(network, seed), coverage_run.half_of_each(network, seed)
    spare = len(network.units) - len(network.groups)
    assert len(of_all) == min(len(network.units) // 2, spare) == len({u.name for u in of_all})
    for group in network.groups:
        assert any(u not in of_all for u in group.units)
        assert sum(u in of_each for u in group.units) == len(group.units) // 2


@pytest.mark.parametrize("name", NETWORKS)
def test_removable_share_counts_each_weight_that_some_unit_takes(name: str) -> None:
    network = traced(name)
    params, macs = coverage_run.removable_share(network)
    touched = {n: torch.zeros(p.shape, dtype=torch.bool) for n, p in network.model.named_parameters()}
    for unit in network.units:
        for piece in unit.slices:
            if piece.parameter in touched:
                touched[piece.parameter].index_fill_(piece.axis, torch.tensor(piece.indices), True)
    every = sum(t.numel() for t in touched.values())
    assert params == pytest.approx(sum(int(t.sum()) for t in touched.values()) / every)
    assert 0 < macs <= 1
    kept_whole = network.ignoring([g.name for g in network.groups])
    assert coverage_run.removable_share(kept_whole) == (0, 0)


# The reference for another pruner


class Normed(nn.Module):
    """Two convolutions around a normalisation."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.one, self.norm, self.two = nn.Conv2d(3, 8, 3), norm, nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.one(x)
        x = self.norm(x.movedim(1, -1)).movedim(-1, 1) if isinstance(self.norm, nn.LayerNorm) else self.norm(x)
        return self.two(torch.relu(x)).mean(dim=(2, 3))


NORMS = {"batch": lambda: nn.BatchNorm2d(8), "layer": lambda: nn.LayerNorm(8), "group": lambda: nn.GroupNorm(2, 8)}


def cut_by_hand(model: Normed, written: list[int], read: list[int]) -> None:
    """Keeps the `written` channels of everything before the reader, and the `read` ones of the reader."""
    for name in ("one.weight", "one.bias", "norm.weight", "norm.bias", "norm.running_mean", "norm.running_var"):
        owner, _, leaf = name.rpartition(".")
        tensor = getattr(model.get_submodule(owner), leaf, None)
        if tensor is not None:
            tensor.data = tensor.data[written]
    model.two.weight.data = model.two.weight.data[:, read]
    if isinstance(model.norm, nn.LayerNorm):
        model.norm.normalized_shape = (len(written),)
    elif isinstance(model.norm, nn.GroupNorm):
        model.norm.num_channels = len(written)


@pytest.mark.parametrize("kind", NORMS)
@pytest.mark.parametrize(("read", "outcome"), [([0, 3, 4, 6], RIGHT), ([0, 2, 4, 6], WRONG)])
def test_positions_tell_a_right_removal_from_a_wrong_one(kind: str, read: list[int], outcome: str) -> None:
    model, original = randomised(Normed(NORMS[kind]())), randomised(Normed(NORMS[kind]()))
    inputs = as_example(torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(1)))
    _hold_positions(model)
    cut_by_hand(model, [0, 3, 4, 6], read)
    kept = _take_positions(model, original)
    reference, norms = masked_original(original, kept)
    with OverKeptChannels(norms) as statistics:
        expected = outputs(reference, inputs)

    def precisely():
        with OverKeptChannels(norms):
            return outputs(model.double(), doubled(inputs)), outputs(reference.double(), doubled(inputs))

    assert judged(model, expected, inputs, precisely)["outcome"] == outcome
    assert statistics.used == (kind != "batch")


# What a crash costs


@settings(deadline=None)
@given(dying=st.sets(st.sampled_from("abcdef")), suite=st.sampled_from(["small", "timm"]), starts=st.booleans())
def test_a_process_that_dies_costs_one_network(dying: set[str], suite: str, starts: bool) -> None:
    def child(arguments: list[str], limit: float) -> str | None:
        folder = Path(arguments[1])
        for index, name in enumerate(arguments[2 : arguments.index("--seeds")]):
            died = name in dying
            if starts or not died:
                row = {"suite": suite, "model": name, "stage": "tracing" if died else "done"}
                (folder / f"{index:04}.json").write_text(json.dumps(row))
            if died:
                return "ended with status -9"
        return None

    options = argparse.Namespace(seeds=1, repeats=1, time_limit=1.0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(coverage, "_child", child)
        found = list(coverage.measured(suite, "abcdef", options))
    assert [row["model"] for row in found] == list("abcdef")
    outcomes = defaultdict(set)
    for row in found:
        outcomes[row.get("whyprune", {}).get("outcome")].add(row["model"])
    assert outcomes["process ended"] == dying


# Tables


def stages(network: Network) -> list[dict[str, Any]]:
    """What a row's stages add to whyprune's column, one after the other."""
    removal = {"outcome": RIGHT, "difference": 1e-7, "macs_ratio": 0.25}
    crash = {"outcome": "crash while removing", "error": "ValueError"}
    return [
        {"graph_s": 1.0},
        coverage_run.inspected(network),
        {"uniform": removal, "global": crash, "outcome": crash["outcome"]},
        {"reload": {"outcome": "equal", "error": None}},
        {"onnx": {"outcome": "failed", "error": "a | pipe", "dense": "works"}},
        {"outcome": "process ended", "error": "while tracing: a | pipe, a <tag> and a very long story " * 9},
    ]


@pytest.mark.parametrize("ended", range(7))
def test_a_row_that_ends_anywhere_still_fits_its_table(
    ended: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours: dict[str, Any] = {}
    for stage in stages(traced("concat"))[:ended]:
        ours |= stage
    row: dict[str, Any] = {"suite": "transformers", "model": "net", "whyprune": ours}
    if ended:
        row |= {"macs": 10, "params": 7, "memory": {"1x": {"error": "took more than 1 s"}}}
    monkeypatch.setattr(coverage_tables, "RESULTS", tmp_path)
    (tmp_path / "coverage.json").write_text(json.dumps({"rows": [row, {**row, "suite": "small"}]}))
    for table in coverage_tables.COVERAGE_TABLES.values():
        lines = [line for line in table().splitlines() if line.startswith("|")]
        assert len({line.count("|") for line in lines}) <= 1
        assert not any("<" in line for line in lines)
