"""The record of a run says whether the network is of use, what its samples are called, and why predictions are off."""

import io
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from rich.console import Console
from torch import nn

import tiny
from whyprune import Budget, Recovery, Settings, prune
from whyprune.cli.tables import run_tables
from whyprune.data.calibration import calibrate
from whyprune.effects.joint import Joint, joint_effect
from whyprune.methods import method_named
from whyprune.pipeline.why_off import why_off
from whyprune.report.words import agreement, overlap
from whyprune.structure.state import State

PLAIN = Settings(latency=False, refute=False, repair="none", effect_images=1024)
MENDED = Settings(latency=False, refute=False, effect_images=32)


def layers(first, last):
    """x -> last(first(x)), without biases."""
    model = nn.Sequential(nn.Linear(first.shape[1], len(first), bias=False), nn.Linear(len(first), len(last), False))
    with torch.no_grad():
        model[0].weight.copy_(first)
        model[1].weight.copy_(last)
    return model.eval()


def pruned(model, x, ratio, settings=PLAIN, **options):
    how = {"method": "exact", "settings": settings, "progress": False, **options}
    return prune(model, list(x.split(32)), budget=Budget(macs=ratio), example_inputs=x[:2], **how)


def rows(count, seed=0):
    return torch.randn(count, 4, generator=torch.Generator().manual_seed(seed))


TWINS = layers(torch.eye(4)[[0, 1, 2, 3, 3]], torch.tensor([[2.0, 0, 0, 0.4, 0.4], [0, 2, 0, 0, 0], [0, 0, 2, 0, 0]]))
"""Five hidden units; the last two say the same, and weakly."""


def test_of_two_that_say_the_same_the_sum_is_too_small_and_that_is_the_reason():
    result = pruned(TWINS, rows(1024), 0.6)
    joint = result.measurements.joint_effect
    assert sorted(result.plan.units) == sorted(f"0:{i}" for i in (3, 4))
    assert joint.after_removal == pytest.approx(2 * joint.predicted, rel=0.3)  # (a + a)² is four a², not two
    assert joint.off_by == "sum"
    assert "do not simply add up" in agreement(joint)


def test_where_the_kept_samples_are_others_the_sum_is_not_blamed():
    alone = layers(torch.eye(4), torch.diag(torch.tensor([2.0, 2.0, 2.0, 0.3])))
    x = rows(1024)
    x[896:, 3] *= 4  # the last eighth is kept apart to measure joint effects
    joint = pruned(alone, x, 0.75).measurements.joint_effect
    assert joint.off_by == "samples"
    assert "add up" not in agreement(joint)
    assert "more calibration data" in agreement(joint)


def test_where_the_repair_makes_the_difference_the_sum_is_not_blamed():
    reads = torch.tensor([[0.3], [0.0], [0.1], [0.2]])  # of the fifth, which is the sum of the four others
    weak = layers(torch.cat([torch.eye(4), torch.ones(1, 4)]), torch.cat([torch.eye(4) * 2, reads], 1))
    joint = pruned(weak, rows(1024), 0.8, MENDED).measurements.joint_effect
    assert joint.measured < 1e-6 < joint.predicted
    assert joint.off_by == "repair"
    assert "add up" not in agreement(joint)


def test_a_prediction_that_holds_has_no_reason():
    alone = layers(torch.eye(4), torch.diag(torch.tensor([2.0, 2.0, 2.0, 0.3])))
    assert pruned(alone, rows(1024), 0.75).measurements.joint_effect.off_by is None


def shown(record):
    out = io.StringIO()
    Console(file=out, force_terminal=True, width=120, color_system="standard").print(run_tables(record, Path("x")))
    return out.getvalue()


@pytest.fixture(scope="module")
def lost():
    x = torch.cat([images for images, _ in tiny.batches(0, 128)])
    return pruned(tiny.trained(), x, 0.05, PLAIN, method="random")


def test_a_lost_function_is_said_first_and_in_red_everywhere(lost, tmp_path):
    found = lost.measurements.verdict
    assert (found.usable, found.level) == (False, "lost")
    assert repr(lost).startswith("Result(NOT USABLE, ")
    first = shown(lost.measurements).split("\n", maxsplit=1)[0]
    assert first.startswith("\x1b[1;31mNot usable.")
    page = lost.report(tmp_path / "report.html").read_text()
    assert page.index("Not usable.") < page.index("<h1>")
    assert 'class="verdict lost"' in page
    for what in found.advice:
        assert what in page


def test_a_network_that_is_kept_is_not_warned_of(tmp_path):
    result = prune(
        tiny.trained(),
        tiny.batches(0, 240),
        budget=Budget(macs=0.8),
        example_inputs=tiny.batches(0, 2)[0][0],
        test=tiny.batches(1400, 1797),
        settings=MENDED,
        progress=False,
    )
    assert result.measurements.verdict.usable is True
    assert "Not usable" not in shown(result.measurements)
    page = result.report(tmp_path / "report.html").read_text()
    assert "Not usable" not in page
    assert "top-1" in page[page.index("<h1>") : page.index("</h1>")]


def test_without_accuracy_the_report_leads_with_the_effect(tmp_path):
    page = pruned(TWINS, rows(1024), 0.6).report(tmp_path / "report.html").read_text()
    title = page[page.index("<h1>") : page.index("</h1>")]
    assert "joint effect" in title
    assert "accuracy" not in title
    figures = page[page.index('<dl class="key">') : page.index("</dl>")]
    assert figures.index("Joint effect") < figures.index("MACs")
    assert "Top-1" not in figures


def test_rows_of_numbers_are_not_called_images(tmp_path):
    result = pruned(TWINS, rows(1024), 0.6, Settings(latency=False, effect_passes=64))
    assert result.measurements.samples == "samples"
    page = result.report(tmp_path / "report.html").read_text()
    body = page[page.index("<body>") : page.index("<script")]
    assert "image" not in body.lower()
    assert "image" not in shown(result.measurements).lower()
    assert not any("image" in note for note in result.measurements.notes)


def test_pictures_are_called_images(lost):
    assert lost.measurements.samples == "images"


def test_macs_of_groups_that_overlap_say_so(lost):
    record = lost.measurements
    assert sum(g.macs_before for g in record.groups) > record.dense.macs
    assert "overlap" in overlap(record)
    apart = record.model_copy(update={"groups": record.groups[:1]})
    assert overlap(apart) == ""


def test_after_a_recovery_its_effect_is_measured_and_judged():
    recovery = Recovery(epochs=1, batch_size=50, devices=1)
    result = prune(
        tiny.trained(),
        tiny.batches(0, 240),
        budget=Budget(macs=0.6),
        example_inputs=tiny.batches(0, 2)[0][0],
        recovery=recovery,
        settings=MENDED,
        progress=False,
    )
    after = result.measurements.effect_after_recovery
    units = [u for u in result.network.units if u.name in set(result.plan.units)]
    again = State(result.network, result.model, units)
    apart = calibrate(tiny.batches(0, 240)).audit
    assert after == pytest.approx(joint_effect(again, apart).mean, rel=1e-5)
    assert after != result.measurements.joint_effect.measured
    assert result.measurements.verdict.usable is not None


def test_curves_count_on_a_repair_and_a_search_sums_nothing():
    x = torch.cat([images for images, _ in tiny.batches(0, 512)])
    bare = pruned(tiny.trained(), x, 0.5, PLAIN, method="curves").measurements.joint_effect
    assert bare.measured > 2 * bare.predicted
    assert bare.off_by == "no repair"
    assert "none ran" in agreement(bare)
    run = SimpleNamespace(method=method_named("random-search"))
    far = Joint("Y", mean=1.0, standard_error=0.01, images=100)
    assert why_off(run, SimpleNamespace(predicted=0.5), far, None, None, curves=False) == "search"
    assert why_off(run, SimpleNamespace(predicted=1.0), far, None, None, curves=False) is None
    said = agreement(bare.model_copy(update={"off_by": "search"}))
    assert "Nothing was summed" in said
    assert "add up" not in said
