"""`prune` keeps to the constraints whatever the method, after every round, and in the network that it gives back."""

import pytest

import tiny
from pipeline.in_rounds import in_rounds
from whyprune import Budget, Constraints, Settings, prune
from whyprune.data.calibration import calibrate
from whyprune.errors import BudgetError, InputError
from whyprune.pipeline import rounds
from whyprune.pipeline.rounds import prune_in_rounds
from whyprune.structure.remove import remove
from whyprune.structure.trace import trace

CALIBRATION = tiny.batches(0, 240)
DENSE = {"stem.0": 8, "inner.0": 10, "wide.0": 12}
CONSTRAINTS = Constraints(round_to=2, min_width={"stem": 5}, max_share={"wide": 0.5})
QUICK = Settings(latency=False, effect_images=16)


def run(method, **options):
    how = {"settings": QUICK, "budget": Budget(macs=0.6), "progress": False, "constraints": CONSTRAINTS, **options}
    return prune(tiny.trained(), CALIBRATION, example_inputs=CALIBRATION[0][0][:2], method=method, **how)


def assert_kept(widths):
    """5 of 8 channels and a multiple of 2: 6 or 8; at least half of 12; any multiple of 10."""
    assert widths["stem.0"] in (6, 8)
    assert widths["inner.0"] in (2, 4, 6, 8, 10)
    assert widths["wide.0"] in (6, 8, 10, 12)


@pytest.mark.parametrize("method", ["causal", "curves", "exact", "magnitude-l2"])
def test_the_pruned_network_has_the_widths_that_were_asked_for(method):
    found = run(method)
    modules = dict(found.model.named_modules())
    widths = {name: modules[name].out_channels for name in DENSE}
    assert_kept(widths)
    assert widths != DENSE
    assert widths["stem.0"] == modules["outer.0"].out_channels
    assert found.measurements.pruned.macs <= 0.6 * found.measurements.dense.macs
    assert found.measurements.asked["constraints"] == {
        "round_to": 2,
        "min_width": {"stem": 5},
        "max_share": {"wide": 0.5},
    }


def test_constraints_hold_for_the_dense_network_after_every_round(monkeypatch):
    network = trace(tiny.trained(), CALIBRATION[0][0][:2])
    seen = []

    def spy(state, units):
        gone = network.select(units)
        seen.append({g.name: g.width - sum(u.group == g.name for u in gone) for g in network.groups})
        return remove(state, units)

    monkeypatch.setattr(rounds, "remove", spy)
    calibration = calibrate(CALIBRATION, network.positional, None, 0)
    method = in_rounds(step=1.4, repair="none")
    found = prune_in_rounds(network, calibration, Budget(macs=0.4), constraints=CONSTRAINTS, method=method)
    assert len(seen) >= 3  # ln(1 / 0.4) / ln(1.4) = 2.7
    for widths in seen:
        assert_kept(widths)
    assert found.plan.macs <= 0.4 * network.cost().macs


def test_what_is_ignored_is_kept_and_recorded_wherever_it_was_said():
    found = run(
        "magnitude-l2", constraints=Constraints(ignore=("inner",)), settings=Settings(latency=False, ignore=("wide",))
    )
    assert set(found.plan.removed_per_group()) == {"stem.0"}
    assert found.measurements.asked["ignore"] == ["wide", "inner"]
    assert found.measurements.asked["constraints"] == {}


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"constraints": Constraints(max_share=0.1)}, BudgetError, r"max_share=0\.1.*smallest reachable ratio"),
        ({"constraints": Constraints(min_width=8), "budget": Budget(macs=0.3)}, BudgetError, "min_width=8"),
        ({"constraints": Constraints(round_to={"nowhere": 2})}, InputError, "round_to names 'nowhere'"),
        ({"constraints": Constraints(ignore=("nowhere",))}, InputError, "'nowhere'"),
    ],
)
def test_what_cannot_be_is_said_before_any_work(options, error, message, monkeypatch):
    monkeypatch.setattr("whyprune.causal.exact.exact_effects", lambda *_, **__: pytest.fail("work was done"))
    with pytest.raises(error, match=message):
        run("exact", **options)
