"""The table of methods: what a row measures, intervals of planted differences, rows that are kept, partial pages."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from scipy import stats

import tiny
import whyprune as wp

methods_table = pytest.importorskip(
    "benchmarks.methods_table", reason="the project's root is on no path: python -m pytest"
)
from benchmarks import methods_table_cell as cells  # noqa: E402
from benchmarks import methods_table_pairs as pairs  # noqa: E402
from benchmarks import methods_table_subject as subjects  # noqa: E402
from benchmarks import methods_tables as tables  # noqa: E402

from whyprune.data.calibration import calibrate  # noqa: E402
from whyprune.devices import accuracy  # noqa: E402
from whyprune.workspace.setup import choose_augmentation  # noqa: E402

IMAGES = 200
RIGHT = {repair: np.arange(IMAGES) < 100 for repair in pairs.REPAIRS}


def row(method, seed=0, *, right=RIGHT, network="resnet20", ratio=2.0, **more):
    """A row of the record; `right` says which images are right after each repair."""
    return {
        **{"network": network, "fewer_macs": ratio, "method": method, "seed": seed, "git_commit": "abc"},
        **{"test_images": IMAGES, "calibration_images": 64, "views": 1, "removed_digest": f"{method}{seed}"},
        **{"dense_top1_percent": 91.0, "macs_ratio": 0.49, "params_ratio": 0.5, "in_rounds": False, "notes": []},
        **{"planning_cpu_s": 2.0, "planning_dense_passes": 1.5, "image_forwards": 64.0, "labels": False},
        **{"gradients": True, "recovery_epochs_left_out": 0},
        "right": {repair: pairs.packed(found) for repair, found in right.items()},
        **{f"{repair}_top1_percent": 100 * float(found.mean()) for repair, found in right.items()},
        **more,
    }


def record(rows, variants, registered=()):
    found = {"rows": rows, "registered": list(registered), "causal_variants": variants}
    return found | {"differences": pairs.differences(rows, variants), "headline": pairs.headline(rows, variants)}


@pytest.mark.parametrize("images", [1, 7, 8, 250])
def test_packed_images_come_back(images):
    right = np.random.default_rng(images).random(images) < 0.7
    assert np.array_equal(pairs.unpacked(json.loads(json.dumps(pairs.packed(right))), images), right)


def test_with_one_seed_it_is_the_paired_t_interval_over_images():
    rng = np.random.default_rng(0)
    ours, theirs = rng.random((1, 300)) < 0.8, rng.random((1, 300)) < 0.7
    found = pairs.difference(ours, theirs)
    classical = stats.ttest_rel(ours[0].astype(float), theirs[0].astype(float)).confidence_interval(0.95)
    assert found["interval_points"] == pytest.approx([100 * classical.low, 100 * classical.high])
    other = pairs.difference(theirs, ours)
    assert other["interval_points"] == pytest.approx([-v for v in reversed(found["interval_points"])])
    assert (other["gained"], other["lost"]) == (found["lost"], found["gained"])


@pytest.mark.parametrize(
    ("of_seeds", "least"), [(0.0, 0.95), (0.02, 0.93), (0.08, 0.9)], ids=["alike", "some", "apart"]
)
def test_intervals_hold_a_planted_difference(of_seeds, least):
    """Images differ in how much they gain, seeds in how good the plan is; the truth is 3 points."""
    rng, trials = np.random.default_rng(1), 500
    found = []
    for _ in range(trials):
        gain = rng.normal(0.03, of_seeds, 3)[:, None] + rng.choice([-0.1, 0.1], 400)
        found.append(pairs.difference(rng.random((3, 400)) < 0.5 + gain, rng.random((3, 400)) < 0.5))
    low, high = np.array([f["interval_points"] for f in found]).T
    assert np.mean((low <= 3) & (high >= 3)) > least - 0.02  # three seeds say little of seeds that differ much
    truth = 1.96 * np.std([f["points"] for f in found])
    assert truth < np.mean(high - low) / 2 < 1.6 * truth


def test_what_never_differs_is_open():
    same = np.ones((3, 50), dtype=bool)
    found = pairs.difference(same, same)
    assert (found["interval_points"], pairs.verdict(found)) == ([0.0, 0.0], "open")


def test_the_headline_counts_what_was_planted():
    better = {**RIGHT, "refit": np.arange(IMAGES) < 150, "plain": np.arange(IMAGES) < 40}
    rows = [row(m, s, right=r) for m, r in (("taylor", RIGHT), ("causal-taylor", better)) for s in range(3)]
    rows += [row(m, 0, right=better, ratio=3.0) for m in ("afpruner", "causal-afpruner")]
    rows += [row("acp", 0), row("causal-acp", 1), row("causal-afpruner", 0, test_images=100), row("afpruner", 0)]
    rows.append({"network": "resnet56", "fewer_macs": 2.0, "method": "exact", "seed": 0, "error": "ValueError: no"})
    rows += [row("taylor+global", s) for s in range(3)]
    variants = {
        "taylor": "causal-taylor",
        "taylor+global": "causal-taylor",
        "acp": "causal-acp",
        "afpruner": "causal-afpruner",
    }
    found = pairs.headline(rows, variants)
    counts = [found[f"causal_{word}"] for word in ("helps", "hurts", "open")]
    assert (found["methods"], counts, found["pairs"], found["seeds"]) == (6, [1, 1, 1], ["taylor"], 3)
    assert found["same_allocation"] == {"helps": 1, "hurts": 1, "open": 1}
    gaps = {d["repair"]: d["points"] for d in pairs.differences(rows, variants) if d["method"] == "taylor"}
    assert gaps == pytest.approx({"plain": -30.0, "batch_norm": 0.0, "refit": 25.0})


def test_only_measurements_of_the_same_network_are_taken_over():
    new = row("b", 1, removed_digest="x")
    other_seed, in_rounds = row("a", 0, removed_digest="x"), row("a", 1, removed_digest="x", in_rounds=True)
    taken = {
        name: [cells.same(new, [known], repair) is known for repair in pairs.REPAIRS]
        for name, known in {
            "same": row("a", 1, removed_digest="x"),
            "other seed": other_seed,
            "in rounds": in_rounds,
            "other units": row("a", 1, removed_digest="y"),
            "other code": row("a", 1, removed_digest="x", git_commit="def"),
            "fewer images": row("a", 1, removed_digest="x", calibration_images=32),
        }.items()
    }
    assert taken == {
        "same": [True, True, True],
        "other seed": [True, False, False],
        "in rounds": [True, True, False],
        **{name: [False] * 3 for name in ("other units", "other code", "fewer images")},
    }


@pytest.mark.parametrize("method", ["magnitude-l2", "causal", "random-search"])
def test_a_row_is_what_prune_plans_and_measures(method):
    data, test = tiny.batches(0, 128), tiny.batches(1400, 1600)
    plans = 6 if method == "random-search" else None
    settings = {"test_images": 200, "calibration_images": 128, "views": 2, "search_plans": plans}
    subject = SimpleNamespace(
        **{"trained": (tiny.trained(), None), "drawn": lambda _: data, "test": test},
        **{"source": SimpleNamespace(image_shape=(1, 8, 8)), "settings": lambda _: settings},
        **{"dense_top1_percent": 99.0, "dense_pass_cpu_s": 0.01, **settings},
    )
    about = {"network": "tiny", "fewer_macs": 1.5, "method": method, "seed": 3, "git_commit": "abc"} | settings
    found = cells.cell(subject, method, 1.5, 3, [], about)
    result = wp.prune(
        tiny.trained(),
        data,
        budget=wp.Budget(macs=1 / 1.5),
        example_inputs=data[0][0][:2],
        method=method,
        augment=choose_augmentation((1, 8, 8)),
        test=test,
        settings=wp.Settings(views=2, latency=False, refute=False, search_plans=plans),
        seed=3,
        progress=False,
    )
    after, pruned = result.measurements.accuracy_after, result.measurements.pruned
    units = result.network.select(result.plan.units)
    assert found["removed_digest"] == cells.digest(SimpleNamespace(removed=units))
    assert (found["plain_top1_percent"], found["refit_top1_percent"]) == pytest.approx((after.removal, after.repair))
    views = calibrate(data, 1, choose_augmentation((1, 8, 8)), 3).views(range(1000, 1002))
    tuned = wp.reestimate_batch_norm(wp.remove(result.network, units), views)
    assert found["batch_norm_top1_percent"] == pytest.approx(accuracy(tuned, test, progress=False).top1_percent)
    assert found["macs_ratio"] == pruned.macs / result.measurements.dense.macs
    assert (found["image_forwards"] > 0) == (method != "magnitude-l2")
    assert found["allocation"] == {"magnitude-l2": "uniform", "causal": "curves"}.get(method, method)
    assert not found["taken_from"]
    again = cells.cell(subject, method, 1.5, 3, [found], about)
    assert again["right"] == found["right"]
    assert set(again["taken_from"]) == set(pairs.REPAIRS if method != "causal" else pairs.REPAIRS[:2])


def test_a_variant_is_held_against_one_ranking_as_well_where_neither_searches(monkeypatch):
    given = {"taylor": "exact", "lamp": "exact", "acp": "taylor", "hrank": "random-search"}
    monkeypatch.setattr(methods_table, "_variant", lambda name: given.get(name, ""))
    assert methods_table.pairs() == {**given, "taylor+global": "exact", "lamp+global": "exact"}
    assert subjects.composed("taylor+global").allocation_name == "global"
    variants = {"taylor+global": "exact"}
    for allocation, count in (("global", 3), ("uniform", 0)):
        rows = [row("taylor+global", allocation="global"), row("exact", allocation=allocation)]
        assert len(pairs.differences(rows, variants)) == count


def test_only_searches_are_asked_for_a_number_of_plans():
    subject = subjects.Subject("resnet20", None, 64, 100, 1, 6)
    plans = {name: subject.settings(name)["search_plans"] for name in ("taylor", "causal", "acp", "random-search")}
    assert plans == {"taylor": None, "causal": None, "acp": 6, "random-search": 6}


def test_rows_are_kept_failures_are_tried_again_and_others_stay(tmp_path, monkeypatch):
    path, ran = tmp_path / "record.json", []

    def cell(subject, name, ratio, seed, known, about):
        ran.append((name, seed))
        if name == "lamp" and ran.count((name, seed)) == 1:
            raise ValueError("not yet")
        return row(**about)

    monkeypatch.setattr(methods_table, "cell", cell)
    monkeypatch.setattr(methods_table, "cifar10", lambda: None)
    monkeypatch.setattr(methods_table, "fingerprint", lambda _: "")
    monkeypatch.setattr("sys.argv", ["methods_table", "--quick", "--output", str(path)])
    given = ["--quick", "--output", str(path), "--seeds", "2", "--methods"]
    methods_table.run(methods_table.parsed([*given, "taylor", "lamp"]))
    assert sum("error" in r for r in json.loads(path.read_text())["rows"]) == 2
    before = list(ran)
    methods_table.run(methods_table.parsed([*given, "random", "taylor", "lamp"]))
    assert sorted(ran[len(before) :]) == [("lamp", 0), ("lamp", 1), ("random", 0), ("random", 1)]
    found = json.loads(path.read_text())
    assert len(found["rows"]) == 6
    assert not any("error" in r for r in found["rows"])
    assert {"git_commit", "command", "machine", "seed"} <= set(found["rows"][0])
    before = list(ran)
    methods_table.run(methods_table.parsed([*given, "taylor", "--test-images", "500"]))
    assert ran[len(before) :] == [("taylor", 0), ("taylor", 1)]  # other images: it is another row
    assert len(json.loads(path.read_text())["rows"]) == 6


def test_the_page_is_written_from_half_a_record(tmp_path, monkeypatch):
    better = {**RIGHT, "refit": np.arange(IMAGES) < 150}
    rows = [row("taylor"), row("causal-taylor", right=better), row("random", right=better, ratio=3.0), row("random")]
    rows.append({"network": "resnet20", "fewer_macs": 2.0, "method": "scm", "seed": 0, "error": "ValueError: no"})
    made = record(rows, {"taylor": "causal-taylor", "acp": "causal-acp"}, ["random", "taylor", "scm", "dowhy"])
    (tmp_path / "methods_table.json").write_text(json.dumps(made))
    monkeypatch.setattr(tables, "RESULTS", tmp_path)
    shown = {name: make() for name, make in tables.METHODS_TABLES.items()}
    first = shown["methods_table_resnet20"]
    assert "| `causal-taylor` | 50.0 / 50.0 / 75.0 | not run | 50% | 2 | 1.5 | 64 | no | yes |" in first
    assert "| `random` | 50.0 / 50.0 / 50.0 | 50.0 / 50.0 / 75.0 |" in first
    assert "Not run on ResNet-20: `dowhy`." in first
    assert "Gave no network: `scm` at 2x (ValueError: no)." in first
    assert "Refit: `causal-taylor` is first with 75.0%; not above `random` (50.0%): `taylor`." in first
    assert shown["methods_table_resnet56"] == "ResNet-56: not run yet."
    assert "| `causal-taylor` → `taylor` | ResNet-20 | 2x | +0.00 (+0.00 to +0.00) |" in shown["methods_table_pairs"]
    assert "**+25.00 (" in shown["methods_table_pairs"]
    assert "Pairs not run: `acp`." in shown["methods_table_pairs"]
    assert "helps in **1** of 3 paired differences, hurts in **0**, and in **2**" in shown["methods_table_verdicts"]
    assert "`causal-taylor` helps in 1 of 3 differences to `taylor`; it did not in 2" in shown["methods_table_verdicts"]
