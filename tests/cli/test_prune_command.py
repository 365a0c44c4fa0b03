"""`whyprune prune` makes a folder from which everything else follows, and says in JSON what it measured."""

import json

import numpy as np
import onnxruntime
import pyarrow.parquet as pq
import pytest
import torch
from command_line import FILES, QUICK, listing, record, run

import whyprune as wp
from whyprune.data import Loader, load_source
from whyprune.models import default_normalization, load_model


def fresh():
    return load_model("digits_cnn", num_classes=10, image_shape=(1, 8, 8))


def test_the_folder_is_complete_and_nothing_lies_beside_it(finished):
    assert listing(finished.folder) == FILES
    assert listing(finished.folder.parent) == ["out", *(f"out/{name}" for name in FILES)]


def test_json_is_one_object_with_every_promised_key(finished):
    said = json.loads(finished.out)
    for network in (said["dense"], said["pruned"]):
        assert {"top1_percent", "macs", "params", "bytes", "latency_p50_ms"} <= network.keys()
        assert all(network[key] > 0 for key in ("top1_percent", "macs", "params", "bytes", "latency_p50_ms"))
    assert said["accuracy_after"].keys() == {"removal", "repair", "recovery"}
    assert said["accuracy_after"]["recovery"] is None
    assert {"predicted", "measured", "interval"} <= said["joint_effect"].keys()
    assert said["verify"]["max_abs_difference"] <= 1e-4
    assert said["seeds"] == {"seed": 0}
    assert "torch" in said["versions"]
    assert {"trace", "remove", "verify", "repair"} <= said["timings_s"].keys()
    assert said["folder"] == str(finished.folder)
    said.pop("folder")
    assert said == record(finished.folder)


def test_the_budget_holds_and_the_network_is_as_good_as_recorded(finished):
    kept = record(finished.folder)
    assert kept["pruned"]["macs"] <= 0.5 * kept["dense"]["macs"]
    pruned = wp.load(fresh(), finished.folder)
    assert sum(p.numel() for p in pruned.parameters()) == kept["pruned"]["params"]
    test = Loader(load_source("digits").test, default_normalization("digits_cnn"), 500)
    images, labels = next(iter(test))
    with torch.no_grad():
        right = (pruned(images).argmax(1) == labels).sum().item()
    assert 100 * right / 500 == pytest.approx(kept["pruned"]["top1_percent"])
    assert kept["pruned"]["top1_percent"] > 90


def test_evaluate_measures_the_recorded_accuracy(finished):
    said = json.loads(run("evaluate", finished.folder, "--data", "digits", "--json").out)
    kept = record(finished.folder)["pruned"]
    assert said["top1_percent"] == said["recorded_top1_percent"] == kept["top1_percent"]
    assert said["top1_interval_percent"] == kept["top1_interval_percent"]
    assert (said["macs"], said["params"], said["images"]) == (kept["macs"], kept["params"], 500)
    shown = run("evaluate", finished.folder, "--data", "digits", "--split", "train").out
    assert "1,297 images" in shown


def test_export_gives_the_same_logits(finished, here):
    said = json.loads(run("export", finished.folder, "--onnx", "--output", "net.onnx", "--json").out)
    assert said["file"] == "net.onnx"
    images = torch.randn(7, 1, 8, 8, generator=torch.Generator().manual_seed(3))
    session = onnxruntime.InferenceSession(here / "net.onnx", providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {session.get_inputs()[0].name: images.numpy()})
    with torch.no_grad():
        expected = wp.load(fresh(), finished.folder)(images).numpy()
    assert np.abs(logits - expected).max() <= 1e-4
    assert said["max_abs_difference"] <= 1e-4


def test_report_writes_the_page_of_the_run_again(finished, here):
    result = run("report", finished.folder, "--output", "again.html")
    assert result.out.strip() == "again.html"
    assert (here / "again.html").read_bytes() == (finished.folder / "report.html").read_bytes()


def test_effects_tell_what_each_unit_saves(finished):
    table = pq.read_table(finished.folder / "effects.parquet").to_pydict()
    network = wp.trace(fresh(), torch.randn(2, 1, 8, 8))
    assert tuple(table["unit"]) == tuple(unit.name for unit in network.units)
    dense = network.cost()
    for unit, macs, params in list(zip(network.units, table["macs"], table["params"], strict=True))[::20]:
        without = network.cost([unit])
        assert (macs, params) == (dense.macs - without.macs, dense.params - without.params)


def test_the_normalisation_is_printed_and_stored(finished):
    used = record(finished.folder)["normalization"]
    assert used["mean"] == pytest.approx(default_normalization("digits_cnn").mean)
    assert f"mean ({used['mean'][0]:.4g})" in finished.err
    assert used["origin"] in finished.err


def test_a_card_beside_the_weights_states_the_normalisation(prune, weights, here):
    moved = here / "w.safetensors"
    moved.write_bytes(weights.read_bytes())
    (here / "w.json").write_text('{"mean": [0.25], "std": [0.5]}')
    arguments = [moved if a == weights else a for a in prune]
    assert run(*arguments, "--out", "card").code == 0
    assert record("card")["normalization"] == {"mean": [0.25], "std": [0.5], "origin": "card w.json"}
    assert run(*arguments, "--mean", "0.3", "--std", "0.4", "--out", "flag").code == 0
    assert record("flag")["normalization"]["mean"] == [0.3]


def test_a_seed_gives_the_same_plan_and_another_seed_another(prune, here):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        assert run(*prune, "--method", "random", "--seed", seed, "--out", name).code == 0
    first, again, other = ((here / name / "plan.json").read_bytes() for name in "abc")
    assert first == again != other


def test_the_recorded_command_repeats_the_run(prune, here):
    changed = (
        "--seed",
        "3",
        "--method",
        "random",
        "--repair",
        "batch-norm",
        "--no-augment",
        "--ignore",
        "conv1",
    )
    assert run(*prune, *changed, "--out", "a").code == 0
    words = record("a")["asked"]["command"].split()
    assert words[0] == "whyprune"
    assert run(*words[1:], "--overwrite").code == 0
    second = record("a")
    assert second["asked"]["command"].split() == words
    assert second["asked"]["repair"] == "batch-norm"
    assert second["asked"]["augment"] is None
    assert next(g for g in second["groups"] if g["name"] == "block1.conv1")["kept"] < 32
    assert "conv1" not in {g["name"] for g in second["groups"]}


def test_ignored_and_quiet_runs(prune, here):
    result = run(*prune, "--quiet", "--out", "a")
    assert (result.code, result.out, result.err) == (0, "", "")
    table = run(*prune, "--out", "b")
    for words in ("dense", "pruned", "MACs", "after repair", "joint effect", "verified", "b/report.html"):
        assert words in table.out


def test_recovery_trains_on_the_training_split_and_leaves_no_workspace(prune, here):
    tuned = ("--finetune-epochs", "1", "--learning-rate", "0.001", "--distill", "0.5", "--accelerator", "cpu")
    assert run(*prune, *tuned, "--out", "a").code == 0
    assert listing(here) == ["a", *(f"a/{name}" for name in FILES if name != "model.onnx")]
    kept = record("a")
    assert kept["accuracy_after"]["recovery"] == kept["pruned"]["top1_percent"]
    assert len(kept["recovery"]) == 1
    # 1,297 training images, a tenth of them held out: hits come in steps of one in 130.
    assert kept["recovery"][0]["validation_top1_percent"] * 130 / 100 == pytest.approx(
        round(kept["recovery"][0]["validation_top1_percent"] * 130 / 100)
    )


def test_a_network_of_the_users_own_is_imported_only_when_named(weights, here):
    toy = ("toys:interrupted", "--weights", weights, "--mean", "0.3", "--std", "0.37")
    assert run("prune", *toy, "--data", "digits", "--budget", "macs=0.7", *QUICK, "--out", "a").code == 0
    unnamed = run("evaluate", "a", "--data", "digits")
    assert unnamed.code == 2
    assert "--model toys:interrupted" in unnamed.err
    named = run("evaluate", "a", "--data", "digits", "--model", "toys:interrupted", "--json")
    assert json.loads(named.out)["top1_percent"] == record("a")["pruned"]["top1_percent"]
