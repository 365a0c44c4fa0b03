"""What searches minimise, how many plans they measure, and how they end where nothing can be measured."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from allocation.test_searches import Landscape, best_of_all, case
from whyprune import Budget, Method, Settings
from whyprune.allocation import ALLOCATORS, Space, along_scores
from whyprune.allocation.fitness import FITNESS, Fitness
from whyprune.allocation.measured_errors import error_of
from whyprune.criteria import random_scores
from whyprune.errors import BudgetError, InputError, MissingDependencyError
from whyprune.methods import METHODS, method_named
from whyprune.structure.trace import trace

SEARCHES = ["particle-swarm", "genetic", "random-ratios", "random-search"]


def _with_plans(objective, plans):
    return replace(objective, plans=plans)


def allocator(name):
    if name == "genetic":
        pytest.importorskip("pymoo", reason="the extra `search` is not installed")
    return METHODS("random-search").allocation if name == "random-search" else ALLOCATORS(name)


# --- names


@pytest.mark.parametrize("text", [*FITNESS, "short-training:1", "short-training:12"])
def test_a_fitness_is_read_and_written(text):
    found = Fitness.parse(text)
    assert Fitness.parse(str(found)) == found
    assert (found.epochs > 0) == found.facts.training
    assert "EPOCHS" not in found.cost


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("accuracy", "choose from joint-effect, batch-norm, refit, short-training"),
        ("short-training:0", "1 epoch or more"),
        ("short-training:-1", "1 epoch or more"),
        ("short-training:two", "short-training:EPOCHS"),
        ("short-training:", "short-training:EPOCHS"),
        ("refit:3", "takes no number"),
        ("", "choose from"),
        (3, "write it as text"),
    ],
)
def test_what_is_no_fitness_is_refused(text, said):
    with pytest.raises(InputError, match=said):
        Fitness.parse(text)
    with pytest.raises(InputError, match=said):
        Settings(fitness=text)
    with pytest.raises(InputError, match=said):
        Method("mine", "magnitude-l2", "particle-swarm", fitness=text)


def test_facts_follow_the_fitness():
    plain = Method("mine", "magnitude-l2", "particle-swarm").facts()
    assert (plain["labels"], plain["training"], plain["gradients"]) == ("outcome", False, False)
    trained = Method("mine", "magnitude-l2", "particle-swarm", fitness="short-training:2", search_plans=30).facts()
    assert (trained["labels"], trained["training"], trained["gradients"]) == ("yes", True, True)
    assert "30 networks" in trained["cost"]
    assert "2 epochs" in trained["cost"]
    assert method_named("acp").facts()["fitness"] == "short-training:3"
    assert method_named("afpruner").facts()["fitness"] == method_named("eagleeye").facts()["fitness"] == "batch-norm"
    assert method_named("magnitude-l2").facts()["fitness"] == ""


def test_a_fitness_or_a_number_of_plans_that_nothing_uses_is_refused():
    budget = Budget(macs=0.5)
    with pytest.raises(InputError, match="whose allocation measures no plans"):
        Settings(fitness="refit").applied("magnitude-l2", budget)
    with pytest.raises(InputError, match="does nothing with allocation 'global'"):
        Settings(search_plans=9, allocation="global").applied("acp", budget)
    changed = Settings(fitness="refit", search_plans=40).applied("acp", budget)
    assert (changed.fitness, changed.search_plans) == ("refit", 40)
    assert Settings(allocation="global").applied(changed, budget).search_plans is None


@pytest.mark.parametrize(("name", "few"), [("acp", 1), ("acp", 5), ("afpruner", 12), ("eagleeye", 0)])
def test_fewer_plans_than_a_population_can_have_are_refused(name, few):
    with pytest.raises(InputError, match="search_plans"):
        Settings(search_plans=few).applied(name, Budget(macs=0.5))


def test_a_missing_library_is_said_before_any_work(monkeypatch):
    monkeypatch.setattr("whyprune.named.find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match=r"allocation 'genetic'.*needs pymoo.*whyprune\[search\]"):
        Settings().applied("afpruner", Budget(macs=0.5))


# --- errors


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 40), st.integers(2, 6))
def test_an_error_is_that_of_a_second_implementation(seed, images, classes):
    rng = np.random.default_rng(seed)
    logits, labels = rng.normal(size=(images, classes)), rng.integers(0, classes, images)
    chances = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    entropy = -np.log(chances[np.arange(images), labels]).mean()
    wrong = (logits.argmax(axis=1) != labels).sum()
    found = error_of(torch.from_numpy(logits), torch.from_numpy(labels))
    assert found == pytest.approx((wrong + entropy / (1 + entropy)) / images)
    assert wrong / images < found < (wrong + 1) / images  # one wrong answer outweighs any cross-entropy


def test_an_error_of_logits_that_are_not_finite_is_infinite():
    assert error_of(torch.tensor([[1.0, float("nan")]]), torch.tensor([0])) == np.inf


# --- searches


@pytest.mark.parametrize("weights", [(1.0, 30.0, 1.0), (20.0, 1.0, 1.0), (1.0, 1.0, 40.0)])
def test_random_ratios_come_close_to_the_best_of_all_widths(weights):
    space, objective, landscape = case(weights)
    budget = Budget(macs=0.5)
    point = ALLOCATORS("random-ratios")(space, _with_plans(objective, 160), budget, seed=0)
    assert budget.met_by(space.cost(point), space.network.cost())
    found = landscape.of([point[name] for name in space.bounds.groups])
    assert found <= 1.3 * best_of_all(space, landscape, budget) + 0.02


def test_random_ratios_lie_on_the_edge_and_below_seven_tenths():
    wide = nn.Sequential(
        nn.Conv2d(3, 64, 3), nn.ReLU(), nn.Conv2d(64, 96, 3), nn.ReLU(), nn.Conv2d(96, 64, 3), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 4),
    ).eval()  # fmt: skip
    traced = trace(wide, torch.zeros(2, 3, 12, 12))
    space, landscape, seen = Space(traced), Landscape(traced, (1.0, 1.0, 1.0)), []
    objective = along_scores(space, random_scores(traced), evaluator=landscape)
    for ratio, largest in ((0.6, 0.7), (0.3, 0.7), (0.02, 1.0)):
        landscape.asked.clear()
        ALLOCATORS("random-ratios")(space, _with_plans(objective, 20), Budget(macs=ratio), seed=1)
        for units in landscape.asked:
            macs = traced.cost(traced.select(units)).macs / traced.cost().macs
            assert 0.995 * ratio - 0.002 <= macs <= ratio
            gone = {g.name: sum(u.startswith(f"{g.name}:") for u in units) / len(g.units) for g in traced.groups}
            assert max(gone.values()) <= largest + 0.01
            seen.append(tuple(gone.values()))
    assert len(set(seen)) > 40


@pytest.mark.parametrize("plans", [13, 20, 47, 130])
@pytest.mark.parametrize("name", SEARCHES)
def test_a_search_measures_so_many_plans_at_most(name, plans):
    space, objective, landscape = case((3.0, 1.0, 2.0))
    measured = landscape.asked
    allocator(name)(space, _with_plans(objective, plans), Budget(macs=0.5), seed=2)
    assert 0.6 * plans - 8 <= len(measured) <= plans


@pytest.mark.parametrize("name", SEARCHES)
def test_a_search_in_which_no_network_gives_numbers_says_so(name):
    space, objective, landscape = case((1.0, 1.0, 1.0))
    landscape.of = lambda gone: float("nan")
    with pytest.raises(InputError, match="NaN or infinite numbers"):
        allocator(name)(space, _with_plans(objective, 20), Budget(macs=0.5), seed=0)


@pytest.mark.parametrize("name", SEARCHES)
def test_a_search_passes_over_networks_that_give_no_numbers(name):
    space, objective, landscape = case((1.0, 1.0, 1.0))
    plain, calls = landscape.of, []

    def sometimes(gone):
        calls.append(gone)
        return float("nan") if len(calls) % 3 else plain(gone)

    landscape.of = sometimes
    point = allocator(name)(space, _with_plans(objective, 30), Budget(macs=0.5), seed=0)
    assert np.isfinite(plain([point[name] for name in space.bounds.groups]))
    assert any(gone == [point[name] for name in space.bounds.groups] for gone in calls[2::3])


@pytest.mark.parametrize("name", SEARCHES)
def test_a_search_without_images_or_with_a_budget_that_nothing_meets_says_so(name):
    space, objective, _ = case((1.0, 1.0, 1.0))
    with pytest.raises(BudgetError, match="smallest reachable"):
        allocator(name)(space, objective, Budget(macs=1e-6), seed=0)
    blind = along_scores(space, random_scores(space.network))
    with pytest.raises(InputError, match="no images were given"):
        allocator(name)(space, blind, Budget(macs=0.5), seed=0)
