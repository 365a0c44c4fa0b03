"""The order of calls, the settings put back, and ratios against known clocks."""

import gc
import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from whyprune.data.batches import Batch
from whyprune.devices import Measurement, TorchDevice, latency_ratio, measure_latency
from whyprune.devices import runner as module
from whyprune.errors import InputError

INPUTS = Batch((torch.zeros(4, 3),), {})


@pytest.fixture
def clock(monkeypatch):
    """A clock that only the networks of a test move: times are exact."""
    now = [0]
    monkeypatch.setattr(module.time, "perf_counter_ns", lambda: now[0])
    return now


def ticking(clock, ms, calls=None, name=""):
    steps = itertools.cycle(ms)

    def network(x):
        clock[0] += int(next(steps) * 1e6)
        if calls is not None:
            calls.append((name, len(x)))
        return x

    return network


def test_rounds_are_interleaved_and_their_order_alternates(clock):
    calls = []
    networks = {n: ticking(clock, [1], calls, n) for n in ("dense", "pruned")}
    measure_latency(networks, INPUTS, repeats=4, warmup=2)
    names = [name for name, _ in calls]
    assert names[:4] == ["dense", "dense", "pruned", "pruned"]
    assert [tuple(names[i : i + 2]) for i in range(4, 12, 2)] == [
        ("dense", "pruned"),
        ("pruned", "dense"),
    ] * 2
    assert {size for _, size in calls} == {1}


def test_percentiles_and_samples_are_the_networks_own(clock):
    times = list(range(1, 101))
    networks = {"dense": ticking(clock, [5.0]), "pruned": ticking(clock, [*times[-10:], *times[:-10]])}
    found = measure_latency(networks, INPUTS, repeats=100, warmup=10, batch_size=2)
    assert sorted(found.samples_ms["pruned"]) == pytest.approx(times)
    assert set(found.samples_ms["dense"]) == {5.0}
    pruned = found.latency["pruned"]
    assert (pruned.p50_ms, pruned.p90_ms, pruned.p99_ms) == pytest.approx((50.5, 90.1, 99.01))
    assert (pruned.repeats, pruned.batch_size, pruned.threads) == (100, 2, torch.get_num_threads())


def test_settings_of_torch_and_modules_come_back():
    model = nn.Sequential(nn.BatchNorm1d(3), nn.Dropout(0.5))
    model[1].eval()
    modes, threads, collecting = (
        [m.training for m in model.modules()],
        torch.get_num_threads(),
        gc.isenabled(),
    )
    seen = []
    model.register_forward_hook(
        lambda m, a, o: seen.append((m.training, torch.get_num_threads(), torch.is_grad_enabled()))
    )
    found = measure_latency({"model": model}, INPUTS, repeats=3, warmup=1, threads=1)
    assert set(seen) == {(False, 1, False)}
    assert found.latency["model"].threads == 1
    assert [m.training for m in model.modules()] == modes
    assert (torch.get_num_threads(), gc.isenabled()) == (threads, collecting)


def test_settings_come_back_after_a_failure():
    model, threads = nn.Linear(7, 2), torch.get_num_threads()
    with pytest.raises(InputError, match=r"'wrong' failed on inputs \(1, 3\)"):
        measure_latency({"wrong": model}, INPUTS, threads=1)
    assert model.training
    assert torch.get_num_threads() == threads


def test_a_time_limit_ends_the_rounds_but_keeps_three():
    found = measure_latency({"f": lambda x: x}, INPUTS, repeats=10**6, seconds=1e-9)
    assert found.latency["f"].repeats == len(found.samples_ms["f"]) == 3


def test_the_device_measures_what_the_function_measures(clock):
    device = TorchDevice(repeats=5, warmup=1, batch_size=3, name="laptop")
    found = device({"dense": ticking(clock, [2]), "pruned": ticking(clock, [1])}, INPUTS)
    assert found.device == "laptop"
    assert {n: (m.p50_ms, m.repeats, m.batch_size) for n, m in found.latency.items()} == {
        "dense": (2.0, 5, 3),
        "pruned": (1.0, 5, 3),
    }
    assert found.machine["cores"] >= 1


@pytest.mark.parametrize(
    ("settings_", "says"),
    [
        ({"repeats": 0}, "repeats is 0"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"batch_size": 9}, "4 inputs for a batch of 9"),
        ({"threads": 0}, "threads is 0"),
        ({"warmup": -1}, "warmup is -1"),
        ({"seconds": 0.0}, "seconds is 0.0"),
    ],
)
def test_refuses_settings_out_of_range(settings_, says):
    with pytest.raises(InputError, match=says):
        measure_latency({"f": lambda x: x}, INPUTS, **settings_)


def test_refuses_no_networks():
    with pytest.raises(InputError, match="no network"):
        measure_latency({}, INPUTS)


@settings(max_examples=20, deadline=None)
@given(
    pruned=st.lists(st.floats(0.1, 100), min_size=2, max_size=30),
    factor=st.floats(0.1, 10),
    seed=st.integers(0, 9),
)
def test_a_ratio_that_every_round_shares_is_found_when_pairs_stay_together(pruned, factor, seed):
    """Dense is `factor` times pruned in every round: drawn in pairs, no resample can say anything else."""
    samples = np.array(pruned)
    found = latency_ratio(factor * samples, samples, seed, resamples=200)
    assert (found.speedup, *found.interval) == pytest.approx((factor, factor, factor))


def test_the_interval_is_seeded_scale_free_and_covers():
    rng = np.random.default_rng(1)
    covered = 0
    for _ in range(100):
        dense, pruned = rng.lognormal(np.log(3), 0.3, 60), rng.lognormal(np.log(2), 0.3, 60)
        found = latency_ratio(dense, pruned, seed=0, resamples=300)
        covered += found.interval[0] <= 1.5 <= found.interval[1]
    assert covered >= 88
    assert latency_ratio(dense, pruned, 0, resamples=300) == found
    scaled = latency_ratio(8 * dense, 8 * pruned, 0, resamples=300)
    assert scaled.interval == pytest.approx(found.interval)


@given(disturbed=st.sets(st.integers(0, 29), max_size=20), seed=st.integers(0, 9))
def test_interrupted_rounds_do_not_count_in_ratios(disturbed, seed):
    """Dense is twice pruned in calm rounds; interrupted ones say anything."""
    rng = np.random.default_rng(seed)
    pruned = rng.uniform(1, 2, 30)
    dense = 2 * pruned
    dense[list(disturbed)] *= 50
    samples = {"dense": dense, "pruned": pruned, "other": pruned}
    found = Measurement("d", {}, samples, {}, {"dense": sorted(disturbed), "pruned": [], "other": [0]})
    calm = found.calm_ms("dense", "pruned")
    assert [len(c) for c in calm] == [30 - len(disturbed)] * 2
    np.testing.assert_array_equal(calm[0], 2 * calm[1])


def test_too_few_calm_rounds_are_all_rounds():
    samples = {"dense": np.arange(7.0) + 1, "pruned": np.ones(7)}
    for interrupted, left in (([0, 1], 5), ([0, 1, 2], 7)):
        found = Measurement("d", {}, samples, {}, {"dense": interrupted})
        assert [len(c) for c in found.calm_ms("dense", "pruned")] == [left, left]


@pytest.mark.parametrize(
    ("dense", "pruned", "says"),
    [
        ([1.0, 2.0], [1.0], "shapes"),
        ([1.0], [1.0], "two or more"),
        ([1.0, 0.0], [1.0, 1.0], "positive"),
        ([1.0, np.nan], [1.0, 1.0], "finite"),
    ],
)
def test_refuses_samples_without_a_ratio(dense, pruned, says):
    with pytest.raises(InputError, match=says):
        latency_ratio(np.array(dense), np.array(pruned))
