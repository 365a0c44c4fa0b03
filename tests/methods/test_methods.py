"""Every method keeps the contract; parts can be replaced; others can register theirs."""

import copy
import json
import sys
from dataclasses import replace
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
import torch

import tiny
from samples.sample_allocator import widest_first
from samples.sample_penalty import Sample
from samples.sample_scorer import activation_mean
from structure.networks import traced
from whyprune import Budget, Method, Recovery, Schedule, Settings, method_named, method_names, named, prune
from whyprune.allocation import ALLOCATORS
from whyprune.errors import InputError
from whyprune.methods import METHODS
from whyprune.recovery import recover
from whyprune.repair.registry import REPAIRS
from whyprune.scoring.estimate import estimate
from whyprune.scoring.registry import SCORERS
from whyprune.structure.remove import remove
from whyprune.testing import check_allocator, check_method, check_penalty, check_scorer

pytestmark = pytest.mark.usefixtures("traced_once")
QUICK = Settings(latency=False, refute=False, views=1, effect_images=32)
LABELLED = tiny.batches(0, 240)


def run(method, **options):
    how = {"settings": QUICK, "budget": Budget(macs=0.6), "progress": False, **options}
    return prune(tiny.trained(), LABELLED, example_inputs=LABELLED[0][0][:2], method=method, **how)


@pytest.mark.parametrize("name", list(METHODS))
def test_compositions_keep_the_contract(name):
    check_method(name)


@pytest.mark.parametrize("name", ["taylor", "curves"])
def test_a_scorer_is_a_method_of_its_own_name(name):
    found = check_method(name)
    assert method_named(name).schedule.kind == "one-shot"
    assert found.measurements.asked["scorer"] == name


def test_every_method_says_what_it_is():
    names = list(method_names())
    assert len(set(names)) == len(names)
    assert set(METHODS) | set(SCORERS) == set(names)
    for name in names:
        facts = method_named(name).facts()
        assert json.loads(json.dumps(facts)) == facts
        for key in ("summary", "estimand", "cost", "guarantee", "scorer", "schedule", "repair"):
            assert facts[key], (name, key)
            assert not str(facts[key]).endswith(".")


def test_a_contract_that_is_broken_is_told():
    silent = replace(method_named("random"), scorer=replace(SCORERS("random"), facts=_without_guarantee()))
    with pytest.raises(AssertionError, match="guarantee"):
        check_method(silent)


def _without_guarantee():
    return replace(SCORERS("random").facts, guarantee="")


# --- parts


def test_keywords_replace_parts_of_a_method():
    changed = Settings(scorer="magnitude-l2", allocation="uniform", schedule="cubic:3", repair="none")
    found = changed.applied("causal", Budget(macs=0.5))
    assert (found.scorer, found.allocation, str(found.schedule), found.repair) == (
        "magnitude-l2",
        "uniform",
        "cubic:3",
        "none",
    )
    assert Settings().applied("causal", Budget(macs=0.5)) == replace(method_named("causal"), kinds=("width",))
    assert "block" in Settings(blocks=True).applied("causal", Budget(macs=0.5)).kinds


@pytest.mark.parametrize("allocation", ["uniform", "global", "savings", "greedy"])
@pytest.mark.parametrize("scorer", ["curves", "taylor", "exact"])
def test_any_score_meets_any_allocation(scorer, allocation):
    found = run(scorer, settings=replace(QUICK, allocation=allocation))
    assert found.measurements.pruned.macs <= 0.6 * found.measurements.dense.macs
    assert found.measurements.asked["allocation"] == allocation


@pytest.mark.parametrize("scorer", ["magnitude-l2", "taylor", "exact", "random-masks"])
def test_any_scorer_goes_in_rounds(scorer):
    one, many = (
        run(scorer, settings=replace(QUICK, schedule=schedule), budget=Budget(macs=0.4))
        for schedule in ("one-shot", "geometric:1.5")
    )
    for found in (one, many):
        assert found.measurements.pruned.macs <= 0.4 * found.measurements.dense.macs
    assert many.measurements.asked["schedule"] == "geometric:1.5"
    assert set(one.plan.units) != set(many.plan.units)


def test_cubic_rounds_repair_in_between_and_end_at_the_budget():
    found = run("causal", settings=replace(QUICK, schedule="cubic:3"), budget=Budget(macs=0.4))
    assert found.plan.macs <= 0.4 * found.network.cost().macs
    assert found.measurements.joint_effect.measured < found.measurements.joint_effect.after_removal


def test_recovery_between_rounds_trains_and_needs_a_recovery(monkeypatch):
    tuned = replace(method_named("magnitude-l2"), schedule=Schedule("geometric", step=1.3, recovery_epochs=1))
    with pytest.raises(InputError, match="fine-tunes between rounds"):
        run(tuned)
    recovery = Recovery(epochs=1, batch_size=64, accelerator="cpu", validation_fraction=0.2)
    given, scored = [], []

    def trained(state, data, how, **about):
        found = recover(state, data, how, **about)
        given.append((len(state.removed), how.epochs, found.model))
        return found

    def removed(state, units):
        scored.append(state.model)
        return remove(state, units)

    monkeypatch.setattr("whyprune.pipeline.steps.recover", trained)
    monkeypatch.setattr("whyprune.pipeline.rounds.remove", removed)
    found = run(tuned, recovery=recovery, budget=Budget(macs=0.5))
    assert found.plan.macs <= 0.5 * found.network.cost().macs
    assert len(given) == len(scored) == 3  # ln(2) / ln(1.3) = 2.6; the last training is that of the run itself
    assert given[0][0] < given[1][0] <= given[2][0] == len(found.plan.units)
    assert scored[1] is given[0][2]
    assert scored[2] is given[1][2]


def test_parts_that_do_not_fit_are_refused_before_any_work():
    for settings, message in (
        (Settings(scorer="taylor"), "needs response curves"),
        (Settings(allocation="curves"), "needs response curves"),
    ):
        method = "causal" if settings.scorer else "taylor"
        with pytest.raises(InputError, match=message):
            settings.applied(method, Budget(macs=0.5))
    with pytest.raises(InputError, match="scorer 'exact' judges width, not whole residual blocks"):
        Settings(scorer="exact", allocation="savings", blocks=True).applied("causal", Budget(macs=0.5))
    with pytest.raises(InputError, match="no repair named 'magic'"):
        Method("mine", "random", repair="magic")
    with pytest.raises(InputError, match="not whole residual blocks"):
        Method("mine", "random", kinds=("width", "block")).checked()


# --- training before pruning


def test_training_with_a_penalty_comes_before_pruning():
    training = Recovery(epochs=2, batch_size=48, accelerator="cpu", penalty="bn-l1", penalty_weight=0.05)
    before = copy.deepcopy(tiny.trained().state_dict())
    found = run("magnitude-l2", training=training, recovery_data=LABELLED)
    assert [epoch.epoch for epoch in found.measurements.training] == [1, 2]
    assert all(epoch.penalty > 0 for epoch in found.measurements.training)
    assert all(torch.equal(tensor, before[name]) for name, tensor in tiny.trained().state_dict().items())
    assert not torch.equal(found.network.model.head.weight, tiny.trained().head.weight)
    assert found.measurements.asked["training"]["penalty"] == "bn-l1"


def test_an_interrupted_run_does_not_train_again(tmp_path, monkeypatch):
    """The training's checkpoint is kept; a run that goes on from it ends as one that was never interrupted."""
    training = Recovery(epochs=2, batch_size=48, accelerator="cpu")
    about = {"training": training, "recovery_data": LABELLED}
    whole = run("magnitude-l2", **about)

    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(sys.modules["whyprune.prune"], "choose", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run("magnitude-l2", workspace=tmp_path, **about)
    assert [p.name for p in tmp_path.iterdir()] == ["training.safetensors"]
    again = run("magnitude-l2", workspace=tmp_path, resume=True, **about)
    assert again.plan == whole.plan
    assert all(
        torch.equal(a, b)
        for a, b in zip(again.model.state_dict().values(), whole.model.state_dict().values(), strict=True)
    )


def test_a_methods_penalty_is_the_trainings_and_needs_one():
    slimming = replace(method_named("magnitude-l2"), penalty="bn-l1", penalty_weight=0.01)
    with pytest.raises(InputError, match="give training"):
        run(slimming)
    found = run(slimming, training=Recovery(epochs=1, batch_size=48, accelerator="cpu"), recovery_data=LABELLED)
    assert found.measurements.asked["training"]["penalty"] == "bn-l1"
    assert found.measurements.training[0].penalty > 0


# --- methods of one's own


def lines(thing):
    path = Path(__import__(thing.__module__, fromlist=["x"]).__file__)
    return len(path.read_text().splitlines())


def test_the_samples_are_short_and_keep_their_contracts():
    check_scorer(activation_mean)
    check_allocator(widest_first)
    check_penalty(Sample)
    check_method(Method("mine", activation_mean, widest_first))
    assert max(lines(activation_mean.function), lines(widest_first.function), lines(Sample.factory)) < 30
    assert lines(METHODS("random-search").allocation.function) < 60


def test_other_packages_register_theirs_by_entry_points(monkeypatch):
    points = {
        "whyprune.scorers": EntryPoint("activation-mean", "samples.sample_scorer:activation_mean", "whyprune.scorers"),
        "whyprune.allocators": EntryPoint("widest", "samples.sample_allocator:widest_first", "whyprune.allocators"),
        "whyprune.methods": EntryPoint("theirs", "methods.test_methods:THEIRS", "whyprune.methods"),
    }
    monkeypatch.setattr(named, "entry_points", lambda group: [points[group]] if group in points else [])
    for registry in (SCORERS, ALLOCATORS, METHODS):
        monkeypatch.delitem(registry.__dict__, "_outside", raising=False)
    assert "activation-mean" in SCORERS
    assert {"activation-mean", "theirs"} <= set(method_names())
    found = run("theirs", settings=replace(QUICK, allocation="widest"))
    assert found.measurements.asked["scorer"] == "activation-mean"
    assert found.measurements.asked["allocation"] == "widest"
    for registry in (SCORERS, ALLOCATORS, METHODS):
        registry.__dict__.pop("_outside")


def test_an_entry_point_that_cannot_be_loaded_is_named(monkeypatch):
    broken = named.Named("scorer", {}, "whyprune.scorers")
    point = EntryPoint("gone", "nowhere.at_all:thing", "whyprune.scorers")
    monkeypatch.setattr(named, "entry_points", lambda group: [point])
    with pytest.raises(InputError, match="'gone' cannot be loaded from nowhere"):
        broken("gone")
    with pytest.raises(InputError, match="no scorer named 'absent': choose from gone"):
        broken("absent")


THEIRS = Method("theirs", "activation-mean", "uniform")


@pytest.mark.parametrize("repair", list(REPAIRS))
def test_every_repair_is_recorded_and_says_what_it_promises(repair):
    assert REPAIRS[repair].summary
    assert REPAIRS[repair].guarantee
    assert run("magnitude-l2", settings=replace(QUICK, repair=repair)).measurements.asked["repair"] == repair


def test_a_reduction_reaches_the_scorer_and_is_refused_where_nothing_is_reduced():
    network = traced("residual")
    largest, mean = (estimate(network, [], method="magnitude-l2", reduction=r).mean for r in ("max", None))
    assert (largest >= mean).all()
    assert (largest > mean).any()
    method = Settings(reduction="max").applied("magnitude-l2", Budget(macs=0.5))
    assert method.reduction == "max"
    assert method.with_parts(scorer="lamp").reduction is None
    with pytest.raises(InputError, match="'exact' reduces nothing over coupled slices: leave reduction out"):
        Settings(reduction="sum").applied("exact", Budget(macs=0.5))
    with pytest.raises(InputError, match="reduces nothing"):
        estimate(network, [], method="random", reduction="sum")
