"""Schedules in a whole run: backward goes part by part, trains in between; HALP packs for a device."""

from dataclasses import replace

import pytest

import tiny
from devices.made_up_device import MadeUp
from whyprune import Budget, Recovery, Settings, method_named, prune
from whyprune.allocation import Constraints
from whyprune.errors import InputError
from whyprune.pipeline import rounds
from whyprune.recovery import recover
from whyprune.structure.remove import remove

pytestmark = pytest.mark.usefixtures("traced_once")
QUICK = Settings(latency=False, refute=False, views=1, effect_images=32)
LABELLED = tiny.batches(0, 240)
AS_RUN = ["stem.0", "inner.0", "wide.0"]


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def run(method, **options):
    how = {"settings": QUICK, "budget": Budget(macs=0.5), "progress": False, **options}
    return prune(tiny.trained(), LABELLED, example_inputs=LABELLED[0][0][:2], method=method, **how)


@pytest.fixture
def cuts(monkeypatch):
    """The groups of which units go in each round."""
    seen = []

    def spied(state, units):
        before = {unit.name for unit in state.removed}
        seen.append({name.partition(":")[0] for name in set(units) - before})
        return remove(state, units)

    monkeypatch.setattr(rounds, "remove", spied)
    return seen


@pytest.mark.parametrize(
    ("count", "parts"), [(2, {"scorer": "taylor"}), (9, {"scorer": "curves", "allocation": "curves"}), (9, {})]
)
def test_backward_cuts_part_by_part_from_the_last_layers_to_the_first(parts, count, cuts):
    """With any scorer and any allocation: a group that is decided is not touched again, and the end is the budget."""
    found = run("magnitude-l2", settings=replace(QUICK, schedule=f"backward:{count}", repair="none", **parts))
    assert found.plan.macs <= 0.5 * found.network.cost().macs
    assert [group.name for group in found.network.groups_as_run] == AS_RUN
    expected = [{"wide.0"}, {"inner.0"}, {"stem.0"}] if count == 9 else [{"wide.0", "inner.0"}, {"stem.0"}]
    assert len(cuts) == len(expected)
    assert all(cut <= part for cut, part in zip(cuts, expected, strict=True))
    assert len([cut for cut in cuts if cut]) > 1


def test_backward_keeps_to_constraints():
    constraints = Constraints(round_to=2, min_width=4)
    found = run("magnitude-l2", settings=replace(QUICK, schedule="backward:3"), constraints=constraints)
    for group in found.network.groups:
        kept = group.width - found.plan.removed_per_group().get(group.name, 0)
        assert kept >= 4
        assert kept % 2 == 0


@pytest.mark.parametrize("schedule", ["linear:3", "backward:3"])
def test_the_network_trains_between_rounds_and_is_judged_anew(schedule, monkeypatch):
    trained = []

    def spied(state, data, how, **about):
        trained.append((len(state.removed), how.epochs))
        return recover(state, data, how, **about)

    monkeypatch.setattr("whyprune.pipeline.steps.recover", spied)
    settings = replace(QUICK, schedule=schedule, recover_between=2)
    with pytest.raises(InputError, match=r"--finetune-epochs"):
        run("magnitude-l2", settings=settings)
    recovery = Recovery(epochs=1, batch_size=64, accelerator="cpu", validation_fraction=0.2)
    found = run("magnitude-l2", settings=settings, recovery=recovery)
    assert [epochs for _, epochs in trained] == [2, 2, 1]
    assert trained[0][0] <= trained[1][0] <= trained[2][0] == len(found.plan.units)
    assert found.measurements.asked["recover_between"] == 2


@pytest.mark.parametrize("method", ["halp", "magnitude-l2"])
def test_a_device_confirms_what_halp_packs_and_what_goes_backward(method):
    device = MadeUp(step=4, call_ms=0.2)
    settings = Settings(views=1, refute=False, effect_images=16, schedule=None if method == "halp" else "backward:2")
    found = run(method, budget=Budget(latency=0.75), device=device, settings=settings)
    ratio = device.time_ms(found.model) / device.time_ms(tiny.trained())
    assert ratio <= 0.75
    assert found.measurements.budgets[0].measured_ratio == pytest.approx(ratio)
    if method == "halp":
        widths = [g.width - found.plan.removed_per_group().get(g.name, 0) for g in found.network.groups]
        assert all(width % 4 == 0 or width == g.width for width, g in zip(widths, found.network.groups, strict=True))


def test_fsabp_measures_plans_by_their_error_and_meets_other_budgets():
    method = replace(method_named("fsabp"), search_plans=12)
    found = run(method, budget=Budget(params=0.6))
    assert found.plan.params <= 0.6 * found.network.cost().params
    unlabelled = [images for images, _ in LABELLED]
    with pytest.raises(InputError, match="has no labels"):
        prune(tiny.trained(), unlabelled, example_inputs=unlabelled[0][:2], method=method, budget=Budget(macs=0.5))
