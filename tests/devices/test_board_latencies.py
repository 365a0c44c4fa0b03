"""The networks of the boards benchmark are those that were measured, and what it holds out is held out."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from benchmarks.board_latencies import BoardLatencies, anchors, errors, known_networks, new_networks
from benchmarks.ncnn_networks import NETWORKS

TABLE = Path(os.environ.get("WHYPRUNE_DATA", ""), "devices", "ncnn-latencies.json")


@pytest.mark.skipif(not TABLE.is_file(), reason="needs devices/ncnn-latencies.json in WHYPRUNE_DATA")
@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_has_the_macs_that_were_counted(name):
    """By running the published files; so shapes, strides, groups and padding are right."""
    assert sum(layer.macs for layer in NETWORKS[name]()) == json.loads(TABLE.read_text())["macs"][name]


def made_up(boards: int = 8) -> BoardLatencies:
    """Boards whose log latencies are a level, a slope in log MACs, and noise."""
    rng = np.random.default_rng(0)
    names = ("mobilenet", "resnet18", "squeezenet", "mnasnet", "blazeface", "googlenet")
    layers = tuple(NETWORKS[name]() for name in names)
    macs = np.log([sum(x.macs for x in rows) for rows in layers])
    level, slope = rng.normal(0, 2, (boards, 1)), rng.normal(0.8, 0.1, (boards, 1))
    log_ms = level + slope * (macs - macs.mean()) + 0.01 * rng.normal(size=(boards, len(names)))
    return BoardLatencies(
        log_ms, np.array([f"chip{i}" for i in range(boards)]), names, layers, tuple({} for _ in range(boards))
    )


def test_what_is_hidden_cannot_be_seen():
    """A board's hidden latency is changed a thousandfold: no prediction of it changes."""
    table = made_up()
    changed = table.log_ms.copy()
    before = {(p.protocol, p.method, p.chip, p.network): p for p in _all(table)}
    changed[3, 2] += np.log(1000)
    after = {(p.protocol, p.method, p.chip, p.network): p for p in _all(_with(table, changed))}
    for key, prediction in after.items():
        if key[2:] == ("chip3", table.names[2]):
            assert prediction.ms == pytest.approx(1000 * before[key].ms)
            assert prediction.predicted_ms == pytest.approx(before[key].predicted_ms, rel=1e-6)
    assert any(key[2:] == ("chip3", table.names[2]) for key in after)


def test_tables_that_are_nearly_of_low_rank_are_completed():
    """Level and slope are two factors: from other boards both are known well."""
    rows = {(r["protocol"], r["method"]): r for r in errors(list(known_networks(made_up(24), 4, 3, (), seed=0)))}
    assert rows["known network", "factors"]["median_percent"] < 5


def test_anchors_leave_the_least_open():
    """One network that decides all others is taken first; then the one that it says nothing about."""
    covariance = np.array(
        [[1.0, 0.99, 0.0, 0.98], [0.99, 1.0, 0.0, 0.97], [0.0, 0.0, 0.5, 0.0], [0.98, 0.97, 0.0, 1.0]]
    )
    assert anchors(covariance, 2) == [0, 2]


def _all(table: BoardLatencies):
    yield from known_networks(table, 4, 3, (2,), seed=0)
    yield from new_networks(table, 4, 3, seed=0)


def _with(table: BoardLatencies, log_ms) -> BoardLatencies:
    return BoardLatencies(log_ms, table.chips, table.names, table.layers, table.runs)
