"""An interrupted search goes on where it was: the same plan, and nothing that is known is measured again."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import tiny
from whyprune import Budget, Method, Schedule, Settings, prune
from whyprune.allocation.evaluator import MeasuredEffects
from whyprune.allocation.kept_plans import KeptPlans
from whyprune.allocation.measured_errors import MeasuredErrors
from whyprune.data.batches import as_batches
from whyprune.errors import InputError
from whyprune.pipeline.stage import SEARCH
from whyprune.structure.state import State
from whyprune.structure.trace import trace

pytestmark = pytest.mark.usefixtures("traced_once")
LABELLED = tiny.batches(0, 240)
SETTINGS = Settings(latency=False, refute=False, views=1, effect_images=32)
METHODS = {
    "acp": {"search_plans": 15, "fitness": "short-training:1"},
    "afpruner": {"search_plans": 25},
    "eagleeye": {"search_plans": 12},
}


def run(method, folder, resume=False, seed=3):
    if method == "afpruner":
        pytest.importorskip("pymoo", reason="the extra `search` is not installed")
    return prune(
        tiny.trained(),
        LABELLED,
        example_inputs=LABELLED[0][0][:2],
        budget=Budget(macs=0.6),
        method=method,
        settings=replace(SETTINGS, **METHODS.get(method if isinstance(method, str) else "", {})),
        workspace=folder,
        resume=resume,
        seed=seed,
        progress=False,
    )


@pytest.fixture
def measured(monkeypatch):
    """How many plans were measured; from number `stop` on Ctrl-C is pressed instead."""

    class Count:
        plans, stop = 0, np.inf

    for kind in (MeasuredEffects, MeasuredErrors):

        def counted(self, pruned, plain=kind.measured):
            if Count.plans >= Count.stop:
                raise KeyboardInterrupt
            Count.plans += 1
            return plain(self, pruned)

        monkeypatch.setattr(kind, "measured", counted)
    return Count


def interrupted(measured, after, *arguments, **named):
    """A run that ends by Ctrl-C after so many plans."""
    measured.plans, measured.stop = 0, after
    with pytest.raises(KeyboardInterrupt):
        run(*arguments, **named)
    measured.plans, measured.stop = 0, np.inf


def test_a_file_that_cannot_be_written_ends_no_search(tmp_path):
    (tmp_path / "in the way").write_text("")
    with KeptPlans(tmp_path / "in the way" / SEARCH, interval_s=0) as kept:
        kept.put("a", ("b",), 0.5, 2.0)
    assert any("could not be kept" in note for note in kept.notes())
    with pytest.raises(InputError, match="cannot make"):
        kept.write()
    (tmp_path / "in the way").unlink()
    kept.put("a", ("c",), 0.5, 2.0)
    assert not list(kept.notes())
    assert KeptPlans(kept.path, resume=True).get("a", ("b",)) == (0.5, 2.0)


@pytest.mark.parametrize("method", ["acp", "afpruner"])
def test_a_resumed_search_ends_with_the_same_plan_and_measures_the_rest_only(method, measured, tmp_path):
    whole = run(method, tmp_path / "whole")
    every = measured.plans
    interrupted(measured, 3, method, tmp_path / "broken")
    assert len(plans_in(tmp_path / "broken")) == 3
    found = run(method, tmp_path / "broken", resume=True)
    assert measured.plans == every - 3
    assert found.plan == whole.plan
    for name, tensor in whole.model.state_dict().items():
        assert torch.equal(tensor, found.model.state_dict()[name])
    assert f"3 measured plans were taken from the interrupted search, {every - 3} are new." in found.measurements.notes
    assert plans_in(tmp_path / "broken") == plans_in(tmp_path / "whole")


def plans_in(folder):
    questions = json.loads(Path(folder, SEARCH).read_text())["questions"]
    return {(question, units): harm for question, plans in questions.items() for units, (harm, _) in plans.items()}


def test_a_search_in_rounds_goes_on_in_the_round_it_was_in(measured, tmp_path):
    method = Method("mine", "magnitude-l2", "particle-swarm", Schedule("cubic", rounds=2), search_plans=6)
    whole = run(method, tmp_path / "whole")
    every = measured.plans
    interrupted(measured, every - 2, method, tmp_path / "broken")
    found = run(method, tmp_path / "broken", resume=True)
    assert (measured.plans, found.plan.units) == (2, whole.plan.units)


@pytest.mark.parametrize(
    "content",
    [
        "", "{", "[]", "null", '{"version": 2, "questions": {}}', '{"version": 1, "questions": {"a": {"b": 1}}}',
        '{"version": 1, "questions": {"a": {"b": ["x", 1]}}}', '{"version": 1, "questions": {"a": {"b": [NaN, 1]}}}',
        '{"version": 1, "questions": {}, "more": 1}', '{"version": 1, "questions": {"a": {"b": [1e999, 1]}}}',
        "\x00\xff",
    ],
)  # fmt: skip
def test_a_damaged_file_is_not_used_and_said(content, tmp_path):
    path = tmp_path / SEARCH
    path.write_bytes(content.encode("latin-1"))
    kept = KeptPlans(path, resume=True)
    assert kept.get("a", ("b",)) is None
    assert [note for note in kept.notes() if "is damaged" in note and "measured again" in note]
    with kept:
        kept.put("a", ("b",), 0.5, 2.0)
    assert KeptPlans(path, resume=True).get("a", ("b",)) == (0.5, 2.0)


def test_plans_of_another_search_are_not_used_and_said(measured, tmp_path):
    interrupted(measured, 4, "eagleeye", tmp_path)
    found = run("eagleeye", tmp_path, resume=True, seed=5)
    every = measured.plans
    assert any("holds plans of another search" in note for note in found.measurements.notes)
    assert every > 4


def test_without_resume_a_search_starts_anew(measured, tmp_path):
    interrupted(measured, 4, "eagleeye", tmp_path)
    found = run("eagleeye", tmp_path)
    assert measured.plans > 4
    assert not any("interrupted" in note or SEARCH in note for note in found.measurements.notes)


def test_every_plan_is_written_in_time_and_whole(tmp_path):
    """A process that is killed leaves what it wrote last; a file half written is never seen."""
    path = tmp_path / "new" / SEARCH
    often, seldom = KeptPlans(path, interval_s=0), KeptPlans(tmp_path / "late.json", interval_s=1e6)
    for number in range(5):
        for kept in (often, seldom):
            kept.put("question", (f"unit:{number}",), np.inf if number == 2 else number / 3, 1.5)
        again = KeptPlans(path, resume=True)
        assert again.get("question", (f"unit:{number}",)) == (np.inf if number == 2 else number / 3, 1.5)
    assert not (tmp_path / "late.json").exists()
    assert [p.name for p in path.parent.iterdir()] == [SEARCH]


def test_what_is_asked_tells_searches_apart(tmp_path):
    state = State.of(trace(tiny.trained(), tiny.digits()[0][:2]))
    images, others = (list(as_batches(tiny.batches(*span), 1)) for span in ((0, 32), (32, 64)))
    relabelled = [replace(b, labels=b.labels.flip(0)) for b in images]
    asked = [
        MeasuredEffects(state, images),
        MeasuredEffects(state, others),
        MeasuredEffects(state, relabelled),
        MeasuredEffects(state, images, fit=others),
        MeasuredEffects(state, images, "cross-entropy"),
        MeasuredEffects(state, images, seed=1),
        MeasuredEffects(state.with_model(tiny.Tiny().eval()), images),
    ]
    assert len({evaluator.question for evaluator in asked}) == len(asked)
    assert MeasuredEffects(state, list(images)).question == asked[0].question


def test_passes_of_an_interrupted_search_count(tmp_path):
    state = State.of(trace(tiny.trained(), tiny.digits()[0][:2]))
    images = list(as_batches(tiny.batches(0, 32), 1))
    with KeptPlans(tmp_path / SEARCH) as kept:
        first = MeasuredEffects(state, images, kept=kept)
        units = [[state.units[k].name] for k in range(3)]
        harms = [first(names) for names in units]
    again = MeasuredEffects(state, images, kept=KeptPlans(tmp_path / SEARCH, resume=True))
    assert [again(names) for names in units] == harms
    assert again.forward_passes == pytest.approx(first.forward_passes - 32)  # the dense network was not run
