"""`Settings(causal=True)` takes the causal variant of a method, or of the scorer that is named."""

import json
from dataclasses import replace

import pytest

import tiny
from whyprune import Budget, Method, Schedule, Settings, method_named, prune
from whyprune.errors import InputError
from whyprune.methods import METHODS, causal_method, causal_scorer, method_names
from whyprune.scoring.registry import SCORERS

HALF = Budget(macs=0.5)
CAUSAL = Settings(causal=True)
HAVING = [name for name in method_names() if method_named(name).variant]


def test_there_are_variants_and_each_is_a_method():
    assert {"taylor", "filter-similarity"} <= set(HAVING)
    for name in HAVING:
        assert method_named(name).facts()["causal"] in set(method_names())
        assert method_named(name).variant == f"causal-{name}"


@pytest.mark.parametrize("name", HAVING)
def test_it_is_the_variant_by_name(name):
    variant = method_named(name).variant
    assert CAUSAL.applied(name, HALF) == Settings().applied(variant, HALF)
    assert CAUSAL.applied(variant, HALF) == Settings().applied(variant, HALF)  # a variant is one already


@pytest.mark.parametrize("name", [name for name in SCORERS if SCORERS(name).facts.causal])
def test_a_scorer_that_is_named_gives_way_to_its_variant(name):
    parts = {"scorer": name, "allocation": "uniform", "schedule": "cubic:3"}
    found = Settings(causal=True, **parts).applied("conditional", HALF)
    assert found == Settings(**{**parts, "scorer": SCORERS(name).facts.causal}).applied("conditional", HALF)
    assert found.scorer == causal_scorer(name) == causal_scorer(found.scorer)


def test_a_composition_of_ones_own_has_the_variant_of_its_scorer_and_says_so():
    mine = Method("mine", scorer="taylor", allocation="greedy", schedule=Schedule("cubic", rounds=3), repair="none")
    found = CAUSAL.applied(mine, HALF)
    assert found == replace(mine, name="causal-mine", scorer="causal-taylor")
    assert causal_method(found) == found
    named = replace(mine, causal="conditional")
    assert CAUSAL.applied(named, HALF) == method_named("conditional")


def test_what_belongs_to_the_scorer_goes_with_it():
    mine = Method("mine", scorer="filter-similarity", reduction="max", images=7)
    found = causal_method(mine)
    assert (found.reduction, found.images, found.intervention) == (None, None, None)
    with pytest.raises(InputError, match="'causal-filter-similarity' reduces nothing"):
        Settings(causal=True, reduction="max").applied("filter-similarity", HALF)


def own(state, batches, question):
    """A scorer without facts."""


@pytest.mark.parametrize("method", ["magnitude-l2", "causal", "precrop", Method("own", scorer=own)])
def test_where_there_is_none_those_that_have_one_are_listed(method):
    name = method if isinstance(method, str) else method.name
    with pytest.raises(
        InputError, match=f"method '{name}' has no causal variant: leave causal out, or choose"
    ) as found:
        CAUSAL.applied(method, HALF)
    assert all(having in str(found.value) for having in HAVING)
    with pytest.raises(InputError, match="scorer 'magnitude-l2' has no causal variant: leave causal out, or choose"):
        Settings(causal=True, scorer="magnitude-l2").applied("taylor", HALF)


def test_it_is_a_switch_and_of_a_method_a_name():
    with pytest.raises(InputError, match="causal='yes'"):
        Settings(causal="yes")
    with pytest.raises(InputError, match="causal=True: give a method the name of its variant"):
        Method("mine", scorer="taylor", causal=True)
    with pytest.raises(InputError, match="no method named 'magic'"):
        CAUSAL.applied(Method("mine", scorer="taylor", causal="magic"), HALF)


def test_the_record_the_plan_and_the_report_say_the_variant(tmp_path):
    batches = tiny.batches(0, 240)
    result = prune(
        tiny.trained(),
        batches,
        example_inputs=batches[0][0][:2],
        budget=Budget(macs=0.7),
        method="taylor",
        settings=Settings(causal=True, latency=False, refute=False, views=1, effect_images=48),
        progress=False,
    )
    assert result.measurements.asked["method"] == result.plan.method == "causal-taylor"
    assert result.measurements.asked["scorer"] == "causal-taylor"
    result.save(tmp_path / "run", onnx=False)
    assert json.loads((tmp_path / "run" / "plan.json").read_text())["method"] == "causal-taylor"
    assert "causal-taylor" in (tmp_path / "run" / "report.html").read_text()
    assert set(METHODS) >= {"causal"}
