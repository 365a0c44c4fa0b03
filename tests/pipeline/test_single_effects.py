"""What the report says of single units is measured within a stated number of passes; what is not measured is said."""

from dataclasses import replace

import numpy as np
import pytest

import tiny
from whyprune import Budget, Settings, prune
from whyprune.causal.exact import exact_effects
from whyprune.data.batches import as_batches, cut_images
from whyprune.interventions.suffix import relative_cost, suffixes
from whyprune.pipeline.single_effects import LEAST_IMAGES, single_effects
from whyprune.structure.replay import Replay
from whyprune.structure.trace import trace

CALIBRATION = tiny.batches(0, 240)


@pytest.fixture(scope="module")
def network():
    return trace(tiny.trained(), tiny.digits()[0][:2])


@pytest.fixture(scope="module")
def images():
    return list(as_batches(CALIBRATION, 1))


def cost_of(network, units, count):
    """Dense forward passes of exact effects, by the share of the MACs behind each unit."""
    return count * (1 + relative_cost(network, suffixes(Replay(network), units)) * len(units))


def test_with_enough_passes_all_units_are_measured_on_all_images(network, images):
    found, said = single_effects(network, images, (), passes=1e9, images=48)
    expected = exact_effects(network, cut_images(images, 48)[0])
    np.testing.assert_array_equal(found.mean, expected.mean)
    np.testing.assert_array_equal(found.interval, expected.interval)
    assert said == ""


@pytest.mark.parametrize("passes", [400.0, 800.0, 2000.0])
def test_fewer_passes_mean_fewer_images_and_are_kept_to(network, images, passes):
    found, said = single_effects(network, images, (), passes=passes, images=240)
    assert np.isfinite(found.mean).all()
    assert LEAST_IMAGES <= found.samples < 240
    assert cost_of(network, network.units, found.samples) <= passes
    assert cost_of(network, network.units, found.samples + 1) > passes
    assert f"on {found.samples} images" in said


def test_very_few_passes_mean_fewer_units_half_of_them_removed(network, images):
    removed = [u.name for g in network.groups for u in g.units[: len(g.units) // 2]]
    found, said = single_effects(network, images, removed, passes=120.0, images=240, seed=1)
    known = [name for name, effect in zip(found.units, found.mean, strict=True) if np.isfinite(effect)]
    assert 0 < len(known) < len(network.units)
    assert found.samples == LEAST_IMAGES
    assert cost_of(network, [network.by_name[n] for n in known], LEAST_IMAGES) <= 120
    gone = sum(name in removed for name in known)
    assert abs(gone - (len(known) - gone)) <= len(network.groups)
    assert f"{len(known)} of {len(network.units)} units" in said
    np.testing.assert_array_equal(np.isnan(found.mean), np.isnan(found.interval[0]))


def test_no_passes_mean_no_effects_and_a_sentence(network, images):
    found, said = single_effects(network, images, (), passes=0.0, images=240)
    assert np.isnan(found.mean).all()
    assert said
    assert found.outcome == "logit-shift"


def test_the_report_says_which_units_were_not_measured(tmp_path):
    settings = Settings(latency=False, refute=False, views=1, effect_passes=120.0)
    result = prune(
        tiny.trained(),
        CALIBRATION,
        budget=Budget(macs=0.6),
        example_inputs=CALIBRATION[0][0][:2],
        settings=settings,
        progress=False,
    )
    missing = sum(row.effect is None for row in result.rows())
    assert 0 < missing < len(result.rows())
    assert any("units on 16 images" in note for note in result.measurements.notes)
    page = (result.save(tmp_path / "run", onnx=False) / "report.html").read_text()
    assert f"{missing} of {len(result.rows())} units were not measured alone" in page
    assert "NaN" not in page
    whole = replace(settings, effect_passes=1e9)
    again = prune(
        tiny.trained(),
        CALIBRATION,
        budget=Budget(macs=0.6),
        example_inputs=CALIBRATION[0][0][:2],
        settings=whole,
        progress=False,
    )
    assert again.plan == result.plan  # what is shown of single units decides nothing
    assert all(row.effect is not None for row in again.rows())
