"""Parts of one's own that do not keep their word end in a message; nothing wrong goes through in silence."""

import numpy as np
import pytest
import torch

import tiny
from whyprune import Budget, Method, Recovery, Schedule, Settings, State, allocate, estimate, prune, remove, repair
from whyprune.effects.effects import from_scores
from whyprune.errors import BudgetError, InputError
from whyprune.structure.trace import trace
from whyprune.structure.verify import verify

CALIBRATION = tiny.batches(0, 200)
QUICK = Settings(latency=False, refute=False, views=1)


def run(method, **options):
    about = {"settings": QUICK, "budget": Budget(macs=0.6), "progress": False, **options}
    return prune(tiny.trained(), CALIBRATION, example_inputs=CALIBRATION[0][0][:2], method=method, **about)


@pytest.fixture(scope="module")
def network():
    return trace(tiny.trained(), CALIBRATION[0][0][:2])


def idle(space, objective, budget, *, seed=0, progress=False):
    return dict(space.start)


def lost(space, objective, budget, *, seed=0, progress=False):
    return {"nowhere": 3}


def mute(*args, **kwargs):
    return None


@pytest.mark.parametrize(
    ("allocator", "error", "message"),
    [
        (idle, BudgetError, r"allocation 'idle' ends at 1\.0000 of macs, above the budget macs=0\.6"),
        (lost, InputError, "allocation 'lost' gave variables that there are none of: 'nowhere'"),
        (mute, InputError, "allocation 'mute' gave None"),
    ],
)
def test_an_allocator_that_breaks_its_word_is_named(allocator, error, message):
    with pytest.raises(error, match=message):
        run(Method("mine", "taylor", allocator))


def few(state, batches, question):
    return from_scores(state.units[:2], [0.0, 1.0], method="few")


def none_at_all(state, batches, question):
    return from_scores(state.units, np.full(len(state.units), np.nan), method="none at all")


@pytest.mark.parametrize(
    ("scorer", "error", "message"),
    [
        (few, BudgetError, "effects of some units are missing"),
        (none_at_all, InputError, "'mine' gives 30 of 30 units no finite number, such as 'stem.0:0'"),
        (mute, InputError, "scorer 'mute' gave NoneType"),
    ],
)
def test_a_scorer_that_breaks_its_word_is_named(scorer, error, message):
    with pytest.raises(error, match=message):
        run(Method("mine", scorer))


@pytest.mark.parametrize("allocation", ["uniform", "global", "savings", "greedy"])
def test_effects_of_some_units_never_miss_a_budget_in_silence(network, allocation):
    effects = estimate(network, CALIBRATION, method="random").only([u.name for u in network.units[:5]])
    with pytest.raises(BudgetError):
        allocate(network, effects, Budget(macs=0.3), allocation=allocation)


def test_curves_of_the_dense_network_do_not_plan_on_from_a_pruned_one(network):
    curves = estimate(network, CALIBRATION, method="curves")
    state = remove(State.of(network), allocate(network, curves, Budget(macs=0.7)).units)
    with pytest.raises(BudgetError):
        allocate(state, curves, Budget(macs=0.3))


def test_effects_of_another_network_are_told(network):
    other = trace(
        torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.ReLU(), torch.nn.Linear(6, 3)).eval(), torch.ones(2, 4)
    )
    with pytest.raises(InputError, match="effects are of another network"):
        allocate(network, estimate(other, [torch.ones(4, 4)], method="random"), Budget(macs=0.5))


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda n: remove(State.of(n), [0, 1]), "list holds no units"),
        (lambda n: remove(State.of(n), None), "NoneType holds no units"),
        (lambda n: remove(tiny.trained(), []), "Tiny is no State and no traced Network"),
        (lambda n: verify(tiny.trained(), tiny.trained(), []), "Tiny is no State"),
        (lambda n: allocate(n, estimate(n, CALIBRATION, method="random"), 0.5), "give a Budget"),
        (lambda n: run("taylor", budget=0.5), "give a Budget"),
        (lambda n: run("taylor", seed=-1), "seed=-1"),
        (lambda n: run(few), "wrap a scorer of your own"),
        (lambda n: Method("", "taylor"), "give it a name"),
        (lambda n: Method("mine", 3), "scorer=3"),
        (lambda n: Method("mine", "taylor", schedule="cubic:3"), r"Schedule\.parse"),
        (lambda n: Method("mine", "taylor", penalty="nosuch"), "no penalty named 'nosuch'"),
        (lambda n: Settings(schedule=Schedule("cubic")), "write it as text"),
        (lambda n: Schedule("cubic", rounds=2.5), r"cubic:2\.5"),
        (lambda n: Schedule("cubic", rounds=10**6), "cubic:1000000"),
        (lambda n: Schedule("geometric", step=1.0000001), "geometric:1"),
        (lambda n: Schedule("one-shot", recovery_epochs=2), "no rounds to train between"),
        (lambda n: Recovery(penalty="bn-l1"), "has no weight"),
    ],
)
def test_what_is_given_wrongly_is_said_in_words(network, act, message):
    with pytest.raises(InputError, match=message):
        act(network)


def test_a_network_as_it_is_can_be_repaired_and_a_repaired_one_is_not_called_broken(network):
    assert repair(network, CALIBRATION).is_dense
    state = repair(remove(State.of(network), [g.units[0] for g in network.groups]), CALIBRATION)
    with pytest.raises(Exception, match="verify before that"):
        verify(state, CALIBRATION)


def test_units_that_are_gone_are_no_reason_to_look_for_refusals(network):
    state = remove(State.of(network), [network.units[0]])
    with pytest.raises(InputError, match="gone already"):
        estimate(state, CALIBRATION, units=[network.units[0]])
