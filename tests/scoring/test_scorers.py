"""Every scorer keeps the contract, whatever is gone already."""

import numpy as np
import pytest
import torch

from structure.networks import traced
from structure.removal_property import fresh_batch
from whyprune.causal.gradient.estimator import Expansion, gradient_effects
from whyprune.effects.outcomes import ClassLogit, LogitShift
from whyprune.errors import InputError
from whyprune.interventions.optimal import Constants, closed_form
from whyprune.interventions.suffix import individual_effects
from whyprune.interventions.worlds import Worlds
from whyprune.scoring.contract import Question, scorer
from whyprune.scoring.estimate import estimate
from whyprune.scoring.registry import SCORERS
from whyprune.structure.remove import remove
from whyprune.structure.replay import Replay
from whyprune.structure.state import State
from whyprune.testing import check_scorer, planted

NEEDS = {"discovery": "causallearn", "dowhy": "dowhy", "gcm": "dowhy"}


def available(name):
    if name in NEEDS:
        pytest.importorskip(NEEDS[name], reason="the extra `causal` is not installed")
    return SCORERS(name)


@pytest.mark.parametrize("name", [*SCORERS])
def test_scorers_keep_the_contract(name):
    found = check_scorer(available(name))
    assert found.method == name


@pytest.mark.parametrize("name", [*SCORERS])
def test_scorers_keep_to_their_budget(name):
    found = check_scorer(available(name), question=Question(forward_passes=300.0))
    assert found.forward_passes <= 600


@pytest.mark.parametrize("name", [*SCORERS])
def test_facts_are_of_the_scorer_itself_and_need_no_optional_library(name):
    known = SCORERS(name)
    assert known.name == name
    assert (known.facts.extra == "causal") == (name in NEEDS)
    assert known.facts.summary
    assert not known.facts.summary.endswith(".")
    assert known.facts.kind != "criterion" or known.facts.estimand == "score"
    assert not known.facts.judge or known.facts.judge in SCORERS


@pytest.mark.parametrize("name", [*SCORERS])
@pytest.mark.parametrize("removed", [(0,), (planted.DEAD, planted.ONE_CLASS), (1, 2, 4, 6, 10)])
def test_a_state_is_judged_by_exactly_what_it_has(name, removed):
    case = planted.case(1)
    state = remove(State.of(case.network), [case.network.units[k] for k in removed])
    found = available(name)(state, [case.batch], Question(forward_passes=1000.0))
    gone = {u.name for u in state.removed}
    assert found.units == tuple(u.name for u in case.network.units if u.name not in gone)
    assert found.groups == tuple(u.group for u in case.network.units if u.name not in gone)
    assert found.given == tuple(u.name for u in state.removed)
    assert np.isfinite(found.mean).all()


@pytest.mark.parametrize("name", [*SCORERS])
def test_a_repaired_module_of_a_state_is_what_is_judged(name):
    """Weights of the module as it stands count, not those that the cut left."""
    case = planted.case(1)
    state = remove(State.of(case.network), [case.unit(planted.COPY)])
    other = remove(State.of(case.network), [case.unit(planted.COPY)]).model
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(1 + 0.1 * torch.arange(parameter.numel()).view_as(parameter) / parameter.numel())
    question = Question(forward_passes=1000.0)
    ask = available(name)
    first = ask(state, [case.batch], question).mean
    second = ask(state.with_model(other), [case.batch], question).mean
    assert np.array_equal(first, second) == (name == "random")


@pytest.mark.parametrize("name", ["residual", "flatten", "separable", "grouped"])
def test_exact_effects_in_a_state_are_joint_effects_with_one_more_less_joint_effects(name):
    """In the whole network, everything of the state masked."""
    network = traced(name)
    batch = fresh_batch(network)
    gone = [u for g in network.groups for u in g.units[::3]]
    state = remove(State.of(network), gone)
    found = SCORERS("exact")(state, [batch], Question(per_image=True))
    worlds = Worlds(network, [batch])
    base = np.array([u in gone for u in worlds.units])
    for row, unit in enumerate(state.units):
        more = base | np.array([u == unit for u in worlds.units])
        expected = worlds.joint(more) - worlds.joint(base)
        np.testing.assert_allclose(found.per_image[row], expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("order", [1, 2])
def test_magnitude_in_a_state_is_the_norm_of_the_cut_weights(order):
    network = traced("residual")
    stream = next(g for g in network.groups if g.name != "first.0")
    state = remove(State.of(network), [*network.group("first.0").units[::2], *stream.units[1:4]])
    model = state.model
    found = SCORERS(f"magnitude-l{order}")(state, [], Question())

    def power(weights):
        return float(weights.detach().abs().pow(order).sum())

    places = {}
    for unit in state.units:  # the k-th unit that is left of a group lies at the k-th place
        k = places[unit.group] = places.get(unit.group, -1) + 1
        if unit.group == "first.0":
            parts = [model.first[0].weight[k], model.second[0].weight[:, k]]
        else:
            written = [model.stem[0].weight[k], model.second[0].weight[k]]
            parts = [*written, model.first[0].weight[:, k], model.head.weight[:, k]]
        assert found[unit] == pytest.approx(np.mean([power(p) for p in parts]), rel=1e-5)


def test_a_random_score_stays_with_its_unit():
    network = traced("residual")
    whole = SCORERS("random")(network, [], Question(seed=3)).by_unit()
    state = remove(State.of(network), network.units[::3])
    for question in (Question(seed=3), Question(seed=3, units=tuple(u.name for u in state.units[2:5]))):
        assert all(whole[name] == value for name, value in SCORERS("random")(state, [], question).by_unit().items())


@pytest.mark.parametrize(
    ("outcome", "expansion"),
    [
        (None, Expansion()),
        (None, Expansion(curvature="hessian")),
        (ClassLogit(1), Expansion(order=1)),
        (ClassLogit(1), Expansion(curvature="hessian")),
    ],
)
def test_where_the_network_is_linear_an_expansion_is_exact_in_a_state_too(outcome, expansion):
    """In a state `LogitShift` has a first order: what is gone has shifted the logits already."""
    case = planted.case(1)
    state = remove(State.of(case.network), [case.unit(planted.PLAIN), "left:1"])
    units = tuple(u.name for u in state.units if u.group == "left")
    question = Question(outcome=outcome, units=units)
    found = gradient_effects(state, [case.batch], question, expansion)
    exact = SCORERS("exact")(state, [case.batch], question)
    assert found.estimand == "conditional"
    np.testing.assert_allclose(found.mean, exact.mean, rtol=1e-3, atol=1e-5)


def test_the_closed_form_is_the_best_constant_in_a_state_where_the_network_is_linear():
    case = planted.case(1)
    state = remove(State.of(case.network), [case.unit(planted.PLAIN), "left:1"])
    units = tuple(u.name for u in state.units if u.group == "left")
    by_value = {
        value: SCORERS("exact")(state, [case.batch], Question(intervention=value, units=units)).mean
        for value in ("zero", "mean", "closed-form", "optimal")
    }
    for value in ("zero", "mean", "optimal"):
        assert (by_value["closed-form"] <= by_value[value] + 1e-5).all(), value
    assert (by_value["closed-form"][:3] < by_value["mean"][:3] - 0.1).all()  # it mends what the others left
    replay, dense = Replay.of(state), Replay(state.network)
    outcome = LogitShift().fit(dense.logits(case.batch))
    best, chosen = closed_form(replay, [case.batch], outcome, dense), state.select(units)

    def harm(step):
        value = Constants({node: constants + step for node, constants in best.at.items()})
        return individual_effects(replay, dense, [case.batch], chosen, outcome, value).mean(axis=1)

    for step in (-0.3, -0.03, 0.03, 0.3):
        assert (harm(step) >= harm(0.0) - 1e-5).all()


def test_a_contract_that_is_broken_is_told():
    def restless(state, batches, question):
        found = SCORERS("exact")(state, batches, question)
        found.mean[:] += restless.calls
        restless.calls += 1
        return found

    restless.calls = 0
    with pytest.raises(AssertionError, match="same seed"):
        check_scorer(restless)


def test_a_scorer_that_is_blind_to_what_is_gone_is_told():
    def forgetful(state, batches, question):
        return SCORERS("exact")(state.dense, batches, question)

    with pytest.raises(AssertionError, match="those that are there"):
        check_scorer(forgetful)


def test_facts_that_promise_too_much_are_told():
    @scorer("boastful", kind="estimator", summary="", estimand="", cost="", guarantee="", individual=True)
    def boastful(state, batches, question):
        return SCORERS("random-masks")(state, batches, Question())

    with pytest.raises(AssertionError, match="not kept as asked for"):
        check_scorer(boastful)


def test_a_scorer_refuses_what_it_cannot_honour():
    case = planted.case(1)
    for name, question, message in (
        ("random", Question(intervention="zero"), "has no intervention 'zero': it sets units to no value"),
        ("gradient", Question(intervention="carried"), "choose from zero, mean"),
        ("exact", Question(rate=0.1), "cannot honour rate=0.1"),
        ("shapley", Question(per_image=True), "no effects per image"),
        ("exact", Question(kinds=("width", "block")), "judges width, not 'block'"),
        ("taylor", Question(forward_passes=3.0), "do not pay for one image"),
        ("curves", Question(forward_passes=3.0), "do not pay for response curves"),
    ):
        with pytest.raises(InputError, match=message):
            SCORERS(name)(case.network, [case.batch], question)


def test_estimate_takes_a_scorer_or_its_name_and_a_network_or_a_state():
    case = planted.case(1)
    state = remove(State.of(case.network), [case.unit(planted.COPY)])
    by_name = estimate(state, [case.batch], method="taylor", seed=1)
    itself = estimate(state, [case.batch], method=SCORERS("taylor"), seed=1)
    assert np.array_equal(by_name.mean, itself.mean)
    assert estimate(case.network, [case.batch]).method == "exact"
    few = estimate(case.network, [case.batch], method="magnitude-l2", units=[case.network.units[3]])
    assert few.units == (case.network.units[3].name,)


def test_an_unknown_scorer_is_refused():
    with pytest.raises(InputError, match="no scorer named 'oracle'"):
        SCORERS("oracle")
