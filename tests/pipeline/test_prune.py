"""The whole way from a trained network to a result folder."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from torch import nn

import tiny
import whyprune
from structure.removal_property import assert_same_snapshot, snapshot
from whyprune import Budget, Recovery, Settings, prune
from whyprune.causal.response import scorer as curves_scorer
from whyprune.data.batches import as_batches
from whyprune.effects.joint import joint_effect
from whyprune.errors import BudgetError, FormatError, InputError
from whyprune.pipeline import rounds, steps
from whyprune.pipeline.stage import load_stage
from whyprune.structure.state import State
from whyprune.workspace.folder import read_record

METHODS = ["causal", "exact", "curves", "random", "magnitude-l1", "magnitude-l2", "taylor"]
BUDGET = Budget(macs=0.5)
CALIBRATION = tiny.batches(0, 240)
TEST = tiny.batches(1400, 1797)
QUICK = Settings(latency=False, effect_images=32)


def run(method="causal", **options):
    how = {"settings": QUICK, "budget": BUDGET, "progress": False, **options}
    return prune(tiny.trained(), CALIBRATION, example_inputs=CALIBRATION[0][0][:2], method=method, **how)


@pytest.fixture(scope="module")
def untouched():
    return snapshot(tiny.trained())


@pytest.fixture(scope="module", params=METHODS)
def any_result(request, untouched):
    return run(request.param, test=TEST if request.param == "causal" else None)


@pytest.fixture(scope="module")
def result(untouched):
    return run(test=TEST)


def test_every_method_meets_the_budget_with_a_proof(any_result, untouched):
    found = any_result.measurements
    assert found.pruned.macs <= 0.5 * found.dense.macs
    assert found.pruned.params == sum(p.numel() for p in any_result.model.parameters())
    assert found.verify.max_abs_difference <= found.verify.tolerance == 1e-4
    assert type(any_result.model) is tiny.Tiny
    assert not any_result.model.training
    assert_same_snapshot(untouched, snapshot(tiny.trained()))


def test_every_method_says_what_each_unit_does(any_result):
    network = any_result.network
    assert any_result.effects.units == tuple(u.name for u in network.units)
    rows = {row.unit: row for row in any_result.rows()}
    assert {name for name, row in rows.items() if row.removed} == set(any_result.plan.units)
    dense = network.cost()
    for unit in network.units[::5]:
        without = network.cost([unit])
        assert rows[unit.name].macs == dense.macs - without.macs
        assert rows[unit.name].params == dense.params - without.params


def test_the_joint_effect_is_measured_on_images_that_nothing_was_fitted_to(any_result):
    """The last eighth of the calibration images: 30 of 240."""
    joint = any_result.measurements.joint_effect
    apart = tiny.batches(210, 240)
    units = any_result.network.select(any_result.plan.units)
    again = joint_effect(State(any_result.network, any_result.model, units), apart)
    assert joint.images == 30
    assert joint.measured == pytest.approx(again.mean, rel=1e-4)
    assert joint.interval == pytest.approx(again.interval, rel=1e-3, abs=1e-6)
    bare = joint_effect(whyprune.remove(State.of(any_result.network), units), apart)
    assert joint.after_removal == pytest.approx(bare.mean, rel=1e-4)


def test_no_image_of_the_audit_reaches_planning_or_repair(monkeypatch):
    """Images of the audit are marked; whoever fits to one of them is found out."""
    marked = tiny.digits()[0][:240].clone()
    marked[210:, 0, 0, 0] = 7.0
    seen = []

    def watch(name, owner, place):
        original = getattr(owner, name)

        def spy(*args, **kwargs):
            seen.extend(float(b.args[0][:, 0, 0, 0].max()) for data in args[place] for b in as_batches(data))
            return original(*args, **kwargs)

        monkeypatch.setattr(owner, name, spy)

    watch("response_curves", curves_scorer, slice(1, 3))
    watch("repair", rounds, slice(1, 2))
    watch("single_effects", steps, slice(1, 2))
    settings = dataclasses.replace(QUICK, refute=False)  # what refutes is made of these images, and decides nothing
    prune(tiny.trained(), [marked], example_inputs=marked[:2], budget=BUDGET, settings=settings, progress=False)
    assert len(seen) >= 4
    assert max(seen) <= 1.0


def test_measured_effects_beat_chance_and_repair_beats_removal(result):
    chance = run("random").measurements.joint_effect
    joint = result.measurements.joint_effect
    assert joint.measured < chance.measured
    assert joint.measured < joint.after_removal


def test_a_run_says_what_is_certain_and_what_was_tried_to_refute_it(result):
    found = result.measurements
    assert found.certificate.of == "accuracy drop"
    drop = found.dense.top1_percent - found.pruned.top1_percent
    assert found.certificate.measured_percent == pytest.approx(drop, abs=1e-6)
    assert found.certificate.bound_percent > drop
    assert found.certificate.images == sum(len(labels) for _, labels in TEST)
    names = [r.name for r in found.refutations]
    assert {"dead unit", "planted duplicate", "permuted units", "predicted joint effect"} <= set(names)
    assert len(set(names)) == len(names)


def test_accuracies_are_those_of_the_networks(result):
    images, labels = (torch.cat(parts) for parts in zip(*TEST, strict=True))

    def top1(model):
        with torch.no_grad():
            return 100 * float((model(images).argmax(dim=1) == labels).float().mean())

    found = result.measurements
    assert found.dense.top1_percent == pytest.approx(top1(tiny.trained()), abs=1e-4)
    assert found.accuracy_after.repair == found.pruned.top1_percent == pytest.approx(top1(result.model), abs=1e-4)
    bare = whyprune.remove(result.network, result.plan.units)
    assert found.accuracy_after.removal == pytest.approx(top1(bare), abs=1e-4)


def test_the_same_seed_gives_the_same_result(result):
    again = run()
    assert again.plan == result.plan
    for one, two in zip(again.model.state_dict().values(), result.model.state_dict().values(), strict=True):
        assert torch.equal(one, two)
    assert run("random", seed=1).plan != run("random", seed=2).plan


def test_repair_is_what_was_asked_for():
    models = {}
    for how in ("none", "batch-norm", "refit"):
        found = run("magnitude-l2", settings=dataclasses.replace(QUICK, repair=how))
        models[how] = found.model
        joint = found.measurements.joint_effect
        assert (joint.measured == joint.after_removal) == (how == "none")
    bare = whyprune.remove(found.network, found.plan.units)
    for name, tensor in bare.state_dict().items():
        assert torch.equal(models["none"].state_dict()[name], tensor), name
        same = torch.equal(models["batch-norm"].state_dict()[name], tensor)
        assert same == ("running" not in name and "num_batches" not in name), name
    assert not torch.equal(models["refit"].head.weight, bare.head.weight)


def test_reconstruction_goes_on_from_what_was_refitted_on_the_way(result):
    found = run(settings=dataclasses.replace(QUICK, repair="reconstruct"))
    assert found.plan.units == result.plan.units
    units = found.network.select(found.plan.units)
    fit = tiny.batches(0, 210)
    refitted, reconstructed = (joint_effect(State(r.network, r.model, units), fit).mean for r in (result, found))
    assert reconstructed < refitted


@pytest.mark.parametrize("name", ["inner.0", "inner", "wide"])
def test_ignored_groups_keep_all_their_channels(name):
    found = run("magnitude-l2", settings=dataclasses.replace(QUICK, ignore=(name,)), budget=Budget(macs=0.8))
    assert not any(unit.startswith(name) for unit in found.plan.units)
    assert found.plan.units


def test_dictionaries_and_plain_tensors_are_data_as_well():
    class Named(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = tiny.trained()

        def forward(self, image):
            return {"logits": self.net(image)}

    data = [{"image": x, "label": y} for x, y in CALIBRATION]
    how = {"budget": BUDGET, "settings": QUICK, "progress": False, "outcome": "margin"}
    named = prune(Named().eval(), data, example_inputs={"image": CALIBRATION[0][0][:2]}, method="taylor", **how)
    assert named.plan.units == tuple(f"net.{u}" for u in run("taylor", outcome="margin").plan.units)
    unlabelled = prune(
        tiny.trained(),
        [x for x, _ in CALIBRATION],
        example_inputs=(CALIBRATION[0][0][:2],),
        method="random",
        **{**how, "outcome": None},
    )
    assert unlabelled.plan == run("random").plan


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "magic"}, "no method named 'magic'"),
        ({"outcome": "accuracy"}, "no outcome named 'accuracy'"),
        ({"settings": Settings(ignore=("stem.0", "nowhere"))}, "'nowhere'"),
        ({"settings": Settings(scorer="taylor")}, "response curves"),
        ({"method": "taylor", "settings": Settings(allocation="curves")}, "response curves"),
    ],
)
def test_settings_that_cannot_be_followed_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        run(**options)


@pytest.mark.parametrize(
    "bad",
    [
        {"repair": "magic"},
        {"allocation": "magic"},
        {"scorer": "magic"},
        {"schedule": "magic"},
        {"views": 0},
        {"effect_images": 1},
        {"effect_passes": -1},
    ],
)
def test_settings_are_checked_when_they_are_made(bad):
    with pytest.raises(InputError, match=next(iter(bad))):
        Settings(**bad)


def test_too_little_data_too_small_budgets_and_missing_labels_are_refused():
    with pytest.raises(InputError, match="7 images of calibration data"):
        prune(
            tiny.trained(), [CALIBRATION[0][0][:7]], example_inputs=CALIBRATION[0][0][:2], budget=BUDGET, progress=False
        )
    with pytest.raises(BudgetError, match="smallest reachable"):
        run(budget=Budget(macs=0.001))
    with pytest.raises(InputError, match="needs labels"):
        prune(
            tiny.trained(),
            [x for x, _ in CALIBRATION],
            example_inputs=CALIBRATION[0][0][:2],
            budget=BUDGET,
            outcome="margin",
            progress=False,
            settings=QUICK,
        )


# --- result folders


def test_a_saved_result_comes_back_on_a_fresh_model(result, tmp_path):
    folder = result.save(tmp_path / "deep" / "out", onnx=False)
    names = {p.name for p in folder.iterdir()}
    assert names == {"plan.json", "model.safetensors", "effects.parquet", "result.json", "report.html"}
    loaded = whyprune.load(tiny.Tiny(), folder)
    x = tiny.digits()[0][:20]
    with torch.no_grad():
        assert torch.equal(loaded.eval()(x), result.model(x))
    assert read_record(folder) == result.measurements
    table = pq.read_table(folder / "effects.parquet").to_pydict()
    assert table["unit"] == list(result.effects.units)
    np.testing.assert_array_equal(table["effect"], result.effects.mean)
    removed = {u for u, gone in zip(table["unit"], table["removed"], strict=True) if gone}
    assert removed == set(result.plan.units)
    assert json.loads((folder / "plan.json").read_text())["units"] == list(result.plan.units)


def test_an_existing_folder_is_replaced_only_when_told_to_and_only_if_it_is_a_result(result, tmp_path):
    folder = result.save(tmp_path / "out", onnx=False)
    (folder / "note.txt").write_text("old")
    with pytest.raises(InputError, match="exists"):
        result.save(folder, onnx=False)
    assert (folder / "note.txt").exists()
    result.save(folder, overwrite=True, onnx=False)
    assert not (folder / "note.txt").exists()
    stranger = tmp_path / "photos"
    stranger.mkdir()
    (stranger / "cat.jpg").write_text("cat")
    with pytest.raises(InputError, match="no result folder"):
        result.save(stranger, overwrite=True, onnx=False)
    assert [p.name for p in stranger.iterdir()] == ["cat.jpg"]


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_failure_in_the_middle_leaves_things_as_they_were(result, tmp_path, monkeypatch, overwrite):
    if overwrite:
        result.save(tmp_path / "out", onnx=False)
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    write = Path.write_text

    def full(self, *args, **kwargs):
        if "result.json" in self.name:
            raise OSError(28, "No space left on device")
        return write(self, *args, **kwargs)

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(InputError, match="No space left"):
        result.save(tmp_path / "out", overwrite=overwrite, onnx=False)
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before
    assert list(tmp_path.iterdir()) == ([tmp_path / "out"] if overwrite else [])


# --- stages, and going on from them


RECOVERY = Recovery(epochs=1, batch_size=64)


@pytest.fixture(scope="module")
def recovered(untouched, tmp_path_factory):
    """A run with recovery, and its workspace."""
    folder = tmp_path_factory.mktemp("work")
    return run("magnitude-l2", recovery=RECOVERY, workspace=folder, asked={"shape": (1, 8, 8)}), folder


def test_a_stage_comes_back_as_it_was_saved(recovered):
    found, folder = recovered
    stage = load_stage(tiny.trained(), folder, {"shape": (1, 8, 8), "method": "magnitude-l2", "seed": 0})
    assert stage.plan == found.plan
    assert stage.effects.units == found.effects.units
    assert stage.effects.method == found.effects.method
    assert stage.effects.samples == found.effects.samples
    np.testing.assert_array_equal(stage.effects.mean, found.effects.mean)
    np.testing.assert_array_equal(stage.effects.standard_error, found.effects.standard_error)
    np.testing.assert_array_equal(stage.effects.interval, found.effects.interval)
    assert stage.record.joint_effect == found.measurements.joint_effect
    repaired = run("magnitude-l2").model
    for name, tensor in stage.model.state_dict().items():
        assert torch.equal(tensor, repaired.state_dict()[name]), name


def test_a_stage_of_other_settings_is_refused(recovered):
    _, folder = recovered
    with pytest.raises(FormatError, match="method='magnitude-l2', now it is 'taylor'"):
        load_stage(tiny.trained(), folder, {"method": "taylor"})
    with pytest.raises(FormatError, match="shape"):
        load_stage(tiny.trained(), folder, {"shape": (3, 8, 8)})


def test_a_missing_stage_is_none_and_a_damaged_one_an_error(recovered, tmp_path):
    assert load_stage(tiny.trained(), tmp_path, {}) is None
    _, folder = recovered
    for name in ("stage.json", "plan.json", "model.safetensors", "effects.parquet"):
        broken = tmp_path / name
        broken.mkdir()
        for path in folder.iterdir():
            half = path.read_bytes()[: path.stat().st_size // 2 if path.name == name else None]
            (broken / path.name).write_bytes(half)
        with pytest.raises(FormatError):
            load_stage(tiny.trained(), broken, {})


def test_resuming_goes_on_from_the_stage_without_planning_again(recovered, monkeypatch):
    found, folder = recovered
    monkeypatch.setattr(rounds, "allocate", lambda *a, **k: pytest.fail("it planned again"))
    again = run("magnitude-l2", recovery=RECOVERY, workspace=folder, resume=True, asked={"shape": (1, 8, 8)})
    assert again.plan == found.plan
    for one, two in zip(again.model.state_dict().values(), found.model.state_dict().values(), strict=True):
        assert torch.equal(one, two)
