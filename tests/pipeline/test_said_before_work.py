"""What a method cannot do without is said before any work: the model is not run once."""

import sys
from dataclasses import replace

import pytest
import torch

import tiny
from whyprune import Budget, Method, Recovery, Settings, estimate, prune
from whyprune.allocation import ALLOCATORS, allocate
from whyprune.effects.outcomes import OUTCOMES
from whyprune.errors import InputError, MissingDependencyError, WhypruneError
from whyprune.methods import METHODS, method_named, method_names
from whyprune.methods.schedule import ABOUT
from whyprune.recovery import PENALTIES
from whyprune.repair.registry import REPAIRS
from whyprune.scoring.registry import SCORERS
from whyprune.structure.state import State
from whyprune.structure.trace import trace
from whyprune.testing.allocators import made_up_effects, small_network

LABELLED = tiny.batches(0, 96)
IMAGES = [images for images, _ in LABELLED]
WITH_EXTRA = [name for name in method_names() if method_named(name).facts()["extra"]]


@pytest.fixture
def idle():
    """A network that must not run."""
    model = tiny.trained()

    def run(*_):
        raise AssertionError("the model was run")

    handle = model.register_forward_pre_hook(run)
    yield model
    handle.remove()


def pruned(model, data=LABELLED, **about):
    return prune(model, data, example_inputs=IMAGES[0][:2], budget=Budget(macs=0.7), progress=False, **about)


def libraries(method):
    facts = (
        method.scorer_facts,
        ALLOCATORS(method.allocation_name).facts if method.allocation_name in ALLOCATORS else None,
    )
    return [name for part in facts if part is not None for name in part.libraries]


@pytest.mark.parametrize("name", WITH_EXTRA)
def test_a_method_whose_extra_is_missing_says_so(name, idle, monkeypatch):
    method = method_named(name)
    assert libraries(method)
    for library in libraries(method):
        monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(MissingDependencyError, match=rf"needs .*pip install 'whyprune\[{method.facts()['extra']}\]'"):
        pruned(idle, method=name)


def test_a_finder_that_forbids_a_library_is_a_missing_library(idle, monkeypatch):
    class Forbids:
        def find_spec(self, name, path=None, target=None):
            if name.partition(".")[0] == "pymoo":
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    for name in [name for name in sys.modules if name.partition(".")[0] == "pymoo"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [Forbids(), *sys.meta_path])
    with pytest.raises(MissingDependencyError, match=r"needs pymoo: pip install 'whyprune\[search\]'"):
        pruned(idle, method="afpruner")


def test_so_do_scorers_and_allocators_that_are_asked_by_themselves(monkeypatch):
    network = small_network()
    for library in ("dowhy", "causallearn", "pymoo", "cvxpy"):
        monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(
        MissingDependencyError, match=r"scorer 'discovery' needs causal-learn: pip install 'whyprune\[causal\]'"
    ):
        estimate(network, [torch.zeros(4, 3, 8, 8)], method="discovery")
    effects = made_up_effects(State.of(network))
    with pytest.raises(
        MissingDependencyError, match=r"allocation 'precrop-gp' needs cvxpy: pip install 'whyprune\[search\]'"
    ):
        allocate(network, effects, Budget(macs=0.7), allocation="precrop-gp")


@pytest.mark.parametrize("outcome", [name for name, outcome in OUTCOMES.items() if outcome().needs_labels])
def test_an_outcome_of_labels_without_labels_says_so(outcome, idle):
    for method in ("random", "causal", "precrop"):
        with pytest.raises(InputError, match=f"outcome {outcome} needs labels"):
            pruned(idle, IMAGES, method=method, outcome=outcome)


def test_a_scorer_that_always_needs_labels_says_so(idle):
    known = SCORERS("taylor")
    supervised = replace(known, name="supervised", facts=replace(known.facts, labels="yes"))
    with pytest.raises(InputError, match=r"scorer 'supervised' needs labels: give \(inputs, labels\) batches"):
        pruned(idle, IMAGES, method=Method("mine", supervised))


def test_a_method_that_trains_first_says_so(idle):
    slimming = replace(method_named("bn-scale"), penalty="bn-l1")
    with pytest.raises(InputError, match=r"trains with the penalty 'bn-l1' first: give training="):
        pruned(idle, method=slimming)


@pytest.mark.parametrize(
    ("ask", "known"),
    [
        (method_named, method_names()),
        (lambda name: Settings(scorer=name), SCORERS),
        (lambda name: Settings(allocation=name), ALLOCATORS),
        (lambda name: Settings(repair=name), REPAIRS),
        (lambda name: Settings(schedule=name), ABOUT),
        (lambda name: Method("mine", "random", repair=name), REPAIRS),
        (lambda name: Recovery(penalty=name), PENALTIES),
        (lambda name: pruned(tiny.trained(), outcome=name), OUTCOMES),
        (lambda name: pruned(tiny.trained(), method=Method("mine", name)), SCORERS),
        (lambda name: pruned(tiny.trained(), method=Method("mine", "random", allocation=name)), ALLOCATORS),
        (lambda name: estimate(trace(tiny.trained(), IMAGES[0][:2]), IMAGES, method=name), SCORERS),
    ],
)
def test_an_unknown_name_lists_the_known_ones(ask, known):
    with pytest.raises(WhypruneError) as caught:
        ask("magic")
    said = str(caught.value)
    assert "magic" in said
    assert [name for name in known if name not in said] == []


def test_methods_that_need_an_extra_are_known():
    assert {"discovery", "dowhy", "gcm", "afpruner", "precrop-gp"} <= set(WITH_EXTRA)
    assert set(WITH_EXTRA) <= {*METHODS, *SCORERS}
