"""Exact effects are what brute force gives: the real network, run once per unit with that unit changed."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from causal.oracles import carried_value, hooked, logits, mean_value, resampled_value
from structure.networks import CASES, traced
from structure.removal_property import fresh_batch
from whyprune.causal.exact import exact_effects
from whyprune.data.batches import Batch, as_batch
from whyprune.effects.effects import from_samples
from whyprune.effects.outcomes import LogitShift
from whyprune.errors import InputError
from whyprune.interventions import suffix
from whyprune.structure.remove import remove, zeroed
from whyprune.structure.replay import Replay
from whyprune.structure.state import State

TOLERANCE = 1e-5
CONSTANT = "operation: instance norm"  # its mean over places is the shift, whatever the image
PRUNABLE = [name for name, case in CASES.items() if case.removable and name != CONSTANT]


def brute_force(network, batch, units, gone=()):
    """Outcome of the masked network, less that of the network masked by `gone` alone; (units, images)."""
    dense = logits(network.model, batch)
    outcome = LogitShift().fit(dense)
    base = outcome(logits(zeroed(network, gone), batch), dense, None)
    rows = [outcome(logits(zeroed(network, [*gone, u]), batch), dense, None) - base for u in units]
    return torch.stack(rows).numpy()


def assert_equal(found, expected):
    np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE * max(1.0, np.abs(expected).max()))


@pytest.mark.parametrize("name", PRUNABLE)
def test_zero_effects_are_those_of_the_masked_network(name):
    network = traced(name)
    if name == "two outputs":  # the oracle sees the first
        network = replace(network, outputs=network.outputs.chosen(0))
    batch = fresh_batch(network)
    found = exact_effects(network, [batch], per_image=True)
    assert_equal(found.per_image, brute_force(network, batch, network.units))
    assert found.units == tuple(u.name for u in network.units)


@pytest.mark.parametrize("name", ["residual", "flatten", "separable", "concat", "grouped"])
def test_conditional_effects_are_those_in_the_masked_network(name):
    network = traced(name)
    batch = fresh_batch(network)
    gone = [u for g in network.groups for u in g.units[::3]]
    left = [u for u in network.units if u not in gone]
    left = [u for u in left if sum(v.group == u.group for v in left) > 1]
    found = exact_effects(remove(State.of(network), gone), [batch], units=left, per_image=True)
    assert_equal(found.per_image, brute_force(network, batch, left, gone))
    assert found.estimand == "conditional"


# What reads each group of a network: the module's name, and how many of its input features belong to one unit.
READERS = {
    "residual": {"stem.0": {"first.0": 1, "head": 1}, "first.0": {"second.0": 1}},
    "flatten": {"features.0": {"head": 16}},
    "separable": {"0": {"3": 1, "6": 1}, "6": {"11": 1}},
}


VALUES = {"mean": mean_value, "resample": resampled_value, "carried": carried_value}


@pytest.mark.parametrize("intervention", VALUES)
@pytest.mark.parametrize("name", READERS)
def test_other_interventions_change_what_every_reader_sees(name, intervention):
    network = traced(name)
    batch = fresh_batch(network, count=120)
    dense = logits(network.model, batch)
    outcome = LogitShift().fit(dense)
    found = exact_effects(network, [batch], intervention=intervention, per_image=True)
    expected = []
    for unit in network.units:
        changed = hooked(network.model, READERS[name][unit.group], [unit.index], VALUES[intervention], batch)
        expected.append((outcome(changed, dense, None)).numpy())
    expected = np.stack(expected)
    tolerance = 2e-4 if intervention == "carried" else TOLERANCE  # the ridge
    np.testing.assert_allclose(found.per_image, expected, rtol=0, atol=tolerance * max(1.0, expected.max()))
    assert expected.mean() > 0.001


@pytest.mark.parametrize("intervention", ["zero", "mean", "carried"])
@pytest.mark.parametrize("name", ["residual", "flatten", "separable"])
def test_batch_sizes_do_not_matter(name, intervention):
    network = traced(name)
    whole = fresh_batch(network, count=131)  # more than run at once
    first = exact_effects(network, [whole], intervention=intervention, per_image=True).per_image
    parts = [whole[slice(0, 1)], whole[slice(1, 60)], whole[slice(60, 131)]]
    second = exact_effects(network, parts, intervention=intervention, per_image=True).per_image
    assert_equal(second, first)


def test_every_image_of_a_long_batch_has_another_one_to_resample_from():
    network = traced("residual")
    whole = fresh_batch(network, count=129)
    found = exact_effects(network, [whole], intervention="resample", per_image=True)
    assert (np.abs(found.per_image).max(axis=0) > 0).all()
    with pytest.raises(InputError, match="at least 2"):
        exact_effects(network, [whole[slice(0, 1)], whole[slice(1, 2)]], intervention="resample")


def test_some_units_alone_have_the_effects_they_have_among_all():
    network = traced("residual")
    batch = fresh_batch(network)
    every = exact_effects(network, [batch])
    wanted = [network.units[7], network.units[2].name]
    some = exact_effects(network, [batch], units=wanted)
    assert set(some.units) == {network.units[7].name, network.units[2].name}
    for name in some.units:
        assert some[name] == pytest.approx(every[name], abs=TOLERANCE)


def test_standard_errors_and_intervals_are_those_of_a_mean():
    network = traced("residual")
    found = exact_effects(network, [fresh_batch(network, count=20)], per_image=True)
    values = found.per_image.astype(np.float64)
    np.testing.assert_allclose(found.mean, values.mean(axis=1))
    np.testing.assert_allclose(found.standard_error, values.std(axis=1, ddof=1) / np.sqrt(20))
    moving = found.standard_error > 0
    a = (values - found.mean[:, None])[moving] / (found.standard_error[moving, None] * np.sqrt(20))
    a = (a**3).mean(axis=1) / np.sqrt(20)
    for end, quantile in zip(found.interval, (2.093024, -2.093024), strict=True):  # t, 19 degrees of freedom
        t = ((found.mean - end)[moving]) / found.standard_error[moving]
        np.testing.assert_allclose(t + a * t**2 / 3 + a**2 * t**3 / 27 + a / 6, quantile, rtol=1e-5)  # Hall (1992)
        np.testing.assert_array_equal(end[~moving], found.mean[~moving])


def test_intervals_cover_the_true_effect_as_often_as_they_say():
    """True effects are those on a pool of images; each repeat draws 64 of them."""
    network = traced("residual")
    pool = exact_effects(network, [fresh_batch(network, count=3000)], per_image=True)
    rng = np.random.default_rng(0)
    repeats, covered = 300, np.zeros(len(network.units))
    for _ in range(repeats):
        drawn = pool.per_image[:, rng.choice(3000, 64)]
        low, high = from_samples(
            network.units, drawn, outcome="", intervention="", estimand="single", method=""
        ).interval
        covered += (low <= pool.mean) & (pool.mean <= high)
    assert 0.90 <= (covered / repeats).mean() <= 0.99


def test_effects_by_class_are_means_over_its_images():
    network = traced("residual")
    batch = fresh_batch(network, count=10)
    found = exact_effects(network, [batch], per_image=True)
    labels = np.arange(10) % 3
    for label, effect in found.by_class(labels).items():
        np.testing.assert_allclose(effect, found.per_image[:, labels == label].mean(axis=1))
    with pytest.raises(InputError, match="9 labels for 10 images"):
        found.by_class(labels[:9])
    with pytest.raises(InputError, match="per_image"):
        exact_effects(network, [batch]).by_class(labels)


def test_labels_reach_the_outcome():
    network = traced("flatten")
    batch = fresh_batch(network)
    labels = torch.tensor([0, 1, 2, 3, 0])
    found = exact_effects(network, [Batch(batch.args, {}, labels)], outcome="cross-entropy", per_image=True)
    loss = nn.CrossEntropyLoss(reduction="none")
    base = loss(logits(network.model, batch), labels)
    expected = [(loss(logits(zeroed(network, [u]), batch), labels) - base).numpy() for u in network.units]
    assert_equal(found.per_image, np.stack(expected))


def test_unusable_requests_are_refused():
    network = traced("residual")
    batch = fresh_batch(network)
    for data, options, message in (
        ([], {}, "no data"),
        ([batch[slice(0, 1)]], {}, "at least 2"),
        ([batch], {"outcome": "cross-entropy"}, "needs labels"),
        ([batch], {"intervention": "one"}, "no intervention 'one'"),
        ([batch], {"units": ["stem.0:99"]}, "no unit named 'stem.0:99'"),
        ([batch], {"units": []}, "no unit to measure"),
        ([as_batch(torch.zeros(4, 3, 8, 8))], {}, "same logits"),
    ):
        with pytest.raises(InputError, match=message):
            exact_effects(network, data, **options)
    constant = traced(CONSTANT)
    with pytest.raises(InputError, match="same logits"):
        exact_effects(constant, [fresh_batch(constant)])


def test_values_that_run_in_one_batch_stay_below_a_bound_and_effects_the_same(monkeypatch):
    network = traced("residual")
    batch = fresh_batch(network)
    expected = brute_force(network, batch, network.units)
    resume, largest = Replay.resume, {}
    for most in (1, 20_000, 2**30):
        sizes = []

        def measured(self, values, *rest, sizes=sizes):
            sizes.extend(v.nbytes for v in values.values() if isinstance(v, torch.Tensor))
            return resume(self, values, *rest)

        monkeypatch.setattr(suffix, "BLOCK_BYTES", most)
        monkeypatch.setattr(Replay, "resume", measured)
        assert_equal(exact_effects(network, [batch], per_image=True).per_image, expected)
        largest[most] = max(sizes)
    one_unit = largest[1]
    assert one_unit < largest[20_000] <= 20_000 < largest[2**30]
