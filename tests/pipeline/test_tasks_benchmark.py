"""The benchmark of tasks measures what it says: metrics by a second implementation, counts of MACs, paired gaps."""

import json

import numpy as np
import pytest
import torch

tasks = pytest.importorskip("benchmarks.tasks", reason="the project's root is on no path: use python -m pytest")
from benchmarks import tasks_tables  # noqa: E402
from benchmarks.tasks_baseline import macs_of  # noqa: E402
from benchmarks.tasks_networks import SHAPES, TASKS, degrees_off, mean_iou, psnr_db  # noqa: E402

from whyprune import trace  # noqa: E402

EXAMPLES = {
    "segmentation": (3, 32, 32),
    "super-resolution": (3, 16, 16),
    "audio": (1, 1024),
    "two-heads": (3, 32, 32),
}


@pytest.mark.parametrize("name", TASKS)
def test_macs_are_counted_as_the_library_counts_them(name):
    example = torch.randn(2, *EXAMPLES[name])
    model = TASKS[name].build().eval()
    assert macs_of(model, example) == trace(model, example).cost().macs


def test_metrics_agree_with_counting_by_hand():
    generator = torch.Generator().manual_seed(0)
    found, truth = (torch.randint(SHAPES + 1, (3, 5, 5), generator=generator) for _ in range(2))
    sets = [
        ({i for i, v in enumerate(t.flatten().tolist()) if v == c}) for c in range(SHAPES + 1) for t in (found, truth)
    ]
    shares = [len(a & b) / len(a | b) for a, b in zip(sets[::2], sets[1::2], strict=True)]
    assert mean_iou(found, truth) == pytest.approx(100 * np.mean(shares), rel=1e-5)
    flat = torch.full((2, 3, 4, 4), 0.5)
    assert psnr_db(flat + 0.1, flat) == pytest.approx(20, abs=1e-3)
    angles = torch.tensor([179.0, -10.0]).deg2rad()
    other = torch.tensor([-179.0, 20.0]).deg2rad()
    pairs = [torch.stack([a.sin(), a.cos()], 1) for a in (angles, other)]
    assert degrees_off(*pairs) == pytest.approx((2 + 30) / 2, abs=1e-3)


def row(method, seed, kept, task="audio", **more):
    metrics = {"right_percent": kept}
    return {
        "task": task,
        "fewer_macs": 2.0,
        "method": method,
        "seed": seed,
        "kept_percent": kept,
        "metrics": metrics,
    } | {
        "dense": {"right_percent": 99.0},
        "trivial": {"right_percent": 5.0},
        **more,
    }


def test_gaps_are_paired_over_seeds_and_the_worst_leads():
    rows = [row("causal", s, k) for s, k in enumerate((90.0, 80.0, 70.0))]
    rows += [row("random", s, k) for s, k in enumerate((88.0, 79.0, 67.0))]
    mean, half = tasks.gap(rows, "audio", 2.0, "random")
    assert mean == pytest.approx(2)
    assert half == pytest.approx(4.303 * 1 / 3**0.5, rel=1e-3)  # differences 2, 1, 3
    other = [row("causal", 0, 50.0, "two-heads"), row("random", 0, 51.0, "two-heads")]
    found = tasks.headline([*rows, *other])
    assert (found["tasks"], found["causal_ahead"], found["worst_gap_points"]) == (2, 1, -1.0)


def test_the_table_is_written_from_the_record(tmp_path, monkeypatch):
    rows = [row("causal", 0, 90.0), row("random", 0, 88.0), row("magnitude-l2", 0, 0.0)]
    rows[2] = {k: v for k, v in rows[2].items() if k not in ("metrics", "kept_percent")} | {"error": "ValueError: a|b"}
    record = {"rows": rows, "headline": tasks.headline(rows), "calibration_samples": 10, "test_samples": 20}
    (tmp_path / "tasks.json").write_text(json.dumps(record))
    monkeypatch.setattr(tasks_tables, "RESULTS", tmp_path)
    text = tasks_tables.tasks()
    assert "| | 2x | **causal** | right 90.0% | 90.0 |  |" in text
    assert "right 88.0% | 88.0 | +2.0" in text
    assert "ValueError: a b" in text
    assert "right 5.0% | 0 |" in text
