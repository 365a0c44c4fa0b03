"""Pruning before training: nothing trained is asked for, nothing of it is said, and training follows from scratch."""

from functools import cache

import pytest
import torch

import tiny
from whyprune import Budget, Method, Recovery, Schedule, Settings, load, prune
from whyprune.errors import InputError
from whyprune.pipeline.untrained import FRESH, NOTE, SEEN, STILL_UNTRAINED, doubts
from whyprune.recovery.config import FROM_SCRATCH, WARMUP, from_scratch

pytestmark = pytest.mark.usefixtures("traced_once")
DATA = tiny.batches(0, 600)
UNTRAINED = Settings(latency=False, untrained=True)


def fresh():
    torch.manual_seed(1)
    return tiny.Tiny().eval()


@cache
def untrained():
    """Nothing may change it."""
    return fresh()


def run(method, settings=UNTRAINED, **options):
    about = {"budget": Budget(macs=0.5), "progress": False, **options}
    return prune(untrained(), DATA, example_inputs=DATA[0][0][:2], method=method, settings=settings, **about)


@pytest.fixture(scope="module")
def trained():
    return run("precrop", recovery=Recovery(epochs=8), test=tiny.batches(1000, 1500))


def test_a_fresh_network_is_cropped_and_then_trained(trained):
    found = trained.measurements
    assert found.pruned.macs <= 0.5 * found.dense.macs
    assert found.dense.top1_percent is None
    assert found.accuracy_after.removal is found.accuracy_after.repair is None
    assert found.accuracy_after.recovery == found.pruned.top1_percent > 40
    assert found.joint_effect is None
    assert found.refutations == []
    assert NOTE in found.notes
    assert found.asked["untrained"] is True
    assert found.asked["repair"] == "none"
    assert found.verdict.usable is True
    assert found.verdict.sentence.startswith("Pruned before training: ")
    assert "dense" not in repr(trained)


def test_the_report_says_that_training_came_after(trained, tmp_path):
    page = trained.save(tmp_path / "out", onnx=False).joinpath("report.html").read_text()
    assert "before training" in page.split("</h1>")[0]
    assert "after 8 epochs of training" in page
    loaded = load(fresh(), tmp_path / "out", example_inputs=DATA[0][0][:2])
    assert torch.equal(loaded(DATA[0][0]), trained.model(DATA[0][0]))


def test_training_from_scratch_has_a_rate_of_its_own_unless_one_is_asked_for(trained):
    asked = trained.measurements.asked["recovery"]
    assert (asked["learning_rate"], asked["warmup_fraction"]) == (FROM_SCRATCH["sgd"], WARMUP)
    given = Recovery(learning_rate=0.01, optimizer="adamw")
    assert from_scratch(given) == Recovery(learning_rate=0.01, optimizer="adamw", warmup_fraction=WARMUP)
    assert from_scratch(Recovery(optimizer="adamw")).learning_rate == FROM_SCRATCH["adamw"]


def test_without_a_training_the_note_says_what_is_missing():
    found = run("random").measurements
    assert STILL_UNTRAINED in found.notes
    assert found.verdict.usable is None


def test_rounds_of_synflow_measure_nothing_on_the_way():
    method = Method("rounds", "synflow", "global", Schedule("geometric", step=1.2), repair="none")
    found = run(method)
    assert "estimate single effects" not in found.measurements.timings_s
    assert found.measurements.pruned.macs <= 0.5 * found.measurements.dense.macs
    assert "judged units by images" not in " ".join(found.measurements.notes)


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        ("causal", {}, "method 'causal' measures what units do in a trained network, and this one is not trained"),
        ("exact", {}, "method 'exact' measures what units do"),
        ("random-search", {}, "allocation 'random-search' measures plans on a trained network"),
        ("precrop", {"settings": Settings(untrained=True, repair="refit")}, "repair 'refit' goes towards a trained"),
        ("precrop", {"recovery": Recovery(distill=0.5)}, "distill and follow go towards the dense network"),
    ],
)
def test_what_needs_a_trained_network_is_refused_before_any_work(method, options, message):
    with pytest.raises(InputError, match=message):
        run(method, **options)


def test_a_training_before_pruning_makes_it_a_trained_network():
    found = run("magnitude-l2", training=Recovery(epochs=1), test=tiny.batches(1000, 1200)).measurements
    assert found.asked["training"]["learning_rate"] == FROM_SCRATCH["sgd"]
    assert found.dense.top1_percent is not None
    assert found.joint_effect is not None
    assert NOTE not in found.notes


def test_preconfig_widens_crops_trains_and_is_loaded_again(tmp_path):
    pytest.importorskip("cvxpy", reason="the extra `search` is not installed")
    about = {"budget": Budget(macs=1.0, params=0.9), "recovery": Recovery(epochs=1), "workspace": tmp_path / "kept"}
    result = run("preconfig", **about)
    found = result.measurements
    assert type(result.model) is tiny.Tiny
    assert found.dense.macs == 110_712 < result.network.cost().macs  # of the network as given, not as widened
    assert found.pruned.macs <= found.dense.macs
    assert found.pruned.params <= 0.9 * found.dense.params
    assert found.asked["budget"] == "macs=1, params=0.9"
    assert found.asked["widened"] == result.plan.widening.groups
    assert any(group.kept > group.width for group in found.groups)
    assert any(note.startswith("Widened before the crop: ") for note in found.notes)
    page = result.save(tmp_path / "out", onnx=False).joinpath("report.html").read_text()
    assert " added." in page
    loaded = load(fresh(), tmp_path / "out", example_inputs=DATA[0][0][:2])
    assert torch.equal(loaded(DATA[0][0]), result.model(DATA[0][0]))
    assert sum(p.numel() for p in loaded.parameters()) == found.pruned.params
    resumed = run("preconfig", **about, resume=True)
    assert resumed.plan == result.plan
    assert torch.equal(resumed.model(DATA[0][0]), result.model(DATA[0][0]))


def test_a_trained_network_is_widened_by_copies_and_keeps_its_function():
    pytest.importorskip("cvxpy", reason="the extra `search` is not installed")
    model, few = tiny.trained(), DATA[:4]
    quick = Settings(latency=False, refute=False, views=1, repair="none")
    about = {"settings": quick, "budget": Budget(macs=0.95, params=0.95), "progress": False}
    result = prune(model, few, example_inputs=few[0][0][:2], method="preconfig", **about)
    assert result.plan.widening is not None
    torch.testing.assert_close(result.network.model(few[0][0]), model(few[0][0]), rtol=0, atol=1e-4)
    assert result.measurements.joint_effect is not None


@pytest.mark.parametrize(("model", "untrained", "said"), [(fresh, False, FRESH), (tiny.trained, True, SEEN)])
def test_batch_norms_that_contradict_what_is_said_of_the_weights_are_named(model, untrained, said):
    assert doubts(model(), untrained=untrained) == [said]
    assert doubts(model(), untrained=not untrained) == []
    assert doubts(torch.nn.Linear(2, 2), untrained=untrained) == []
