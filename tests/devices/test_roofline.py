"""Predicted latency: right by hand, monotone in widths, additive over layers, and recovered from planted rates."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from whyprune.data.batches import Batch
from whyprune.devices.fit import PARAMETERS, Problem, Workload, fitted_rates, posterior_mode, rates_of, weak_prior
from whyprune.devices.profile import RATED, Rates
from whyprune.devices.registry import device
from whyprune.devices.roofline import operation_times_ms, predicted_ms
from whyprune.errors import InputError
from whyprune.structure.operation_costs import KINDS, OperationCost

ALMOST = 1 + 1e-12  # sums are rounded
PLANTED = rates_of(np.array(weak_prior().mean) + np.linspace(-1, 1, len(PARAMETERS)), channel_ramp=4.0)


def conv(channels: int, out: int, size: int, kind: str = "winograd") -> OperationCost:
    weights = 9 * channels * out
    return OperationCost("conv", kind, weights * size**2, channels * size**2, out * size**2, weights, (channels, out))


def test_by_hand():
    """A layer takes the longer of computing and moving; overheads come on top; the step fills up blocks."""
    rates = Rates(
        ms_per_gmac=dict.fromkeys(RATED, 1000.0),
        ms_per_mbyte=2.0,
        ms_per_mbyte_elementwise=3.0,
        ms_per_mbyte_of_weights=0.0,
        ms_per_layer=dict.fromkeys(KINDS, 0.5),
        ms_per_run=7.0,
        channel_step=8,
    )
    computing = OperationCost("a", "winograd", 10**6, 100, 100, 9, (8, 12))
    moving = OperationCost("b", "pointwise", 10**3, 250_000, 250_000, 9, (8, 8))
    only_moving = OperationCost("c", "elementwise", 0, 125_000, 125_000)
    found = operation_times_ms([computing, moving, only_moving], rates)
    assert found == pytest.approx([1.0 * 16 / 12 + 0.5, 4.0 + 0.5, 3.0 + 0.5])
    assert predicted_ms([computing, moving, only_moving], rates) == pytest.approx(found.sum() + 7.0)
    assert operation_times_ms([computing], rates, batch_size=3) == pytest.approx([3 * 16 / 12 + 0.5])


@given(
    st.sampled_from(["winograd", "spatial", "pointwise", "linear"]),
    st.integers(1, 70),
    st.integers(1, 70),
    st.integers(1, 32),
    st.sampled_from([1, 4, 8, 16]),
)
def test_more_channels_never_take_less_time(kind, channels, out, size, step):
    rates = PLANTED.model_copy(update={"channel_step": step})
    here = predicted_ms([conv(channels, out, size, kind)], rates)
    assert here <= ALMOST * predicted_ms([conv(channels + 1, out, size, kind)], rates)
    assert here <= ALMOST * predicted_ms([conv(channels, out + 1, size, kind)], rates)
    assert here <= ALMOST * predicted_ms([conv(channels, out, size, kind)] * 2, rates)


@given(st.integers(1, 6), st.integers(1, 100))
def test_a_full_block_costs_what_its_first_channel_costs(blocks, out):
    """Within a block of 16 only what is moved grows."""
    rates = PLANTED.model_copy(update={"channel_step": 16, "ms_per_mbyte": 0.0, "ms_per_mbyte_of_weights": 0.0})
    costs = {predicted_ms([conv(16 * blocks - k, out, 8)], rates) for k in range(16)}
    assert max(costs) == pytest.approx(min(costs))
    assert predicted_ms([conv(16 * blocks + 1, out, 8)], rates) > max(costs)


def drawn_workloads(rng, count, noise=0.0):
    found = []
    for _ in range(count):
        layers = []
        for _ in range(rng.integers(1, 12)):
            kind = KINDS[rng.integers(len(KINDS))]
            channels, out, size = (int(2 ** rng.uniform(a, b)) for a, b in ((2, 9), (2, 9), (1, 6)))
            made = conv(channels, out, size, kind)
            layers.append(made if kind in RATED else OperationCost("e", kind, 0, made.reads, made.writes))
        found.append(Workload(layers, predicted_ms(layers, PLANTED) * float(np.exp(noise * rng.normal()))))
    return found


@pytest.mark.parametrize("seed", [0, 1])
def test_planted_rates_are_recovered(seed):
    """From exact latencies, and with every twentieth of them wrong by a factor of 50."""
    rng = np.random.default_rng(seed)
    workloads, fresh = drawn_workloads(rng, 150), drawn_workloads(rng, 50)
    expected = np.array([w.ms for w in fresh])
    rates = fitted_rates(workloads, weak_prior(2.0), noise=0.02)
    assert [predicted_ms(w.operations, rates) for w in fresh] == pytest.approx(expected, rel=0.02)
    assert rates.ms_per_gmac["winograd"] == pytest.approx(PLANTED.ms_per_gmac["winograd"], rel=0.02)
    disturbed = [Workload(w.operations, w.ms * 50 if i % 20 == 0 else w.ms) for i, w in enumerate(workloads)]
    rates = fitted_rates(disturbed, weak_prior(2.0), noise=0.02)
    off = np.abs([predicted_ms(w.operations, rates) for w in fresh] / expected - 1)
    assert np.median(off) < 0.05


@pytest.mark.parametrize("factor", [0.01, 0.5, 100.0])
def test_a_device_that_is_faster_throughout_has_rates_that_are_smaller_throughout(factor):
    """The prior believes a shape and no level: latencies times a factor give rates times it."""
    prior = weak_prior()
    workloads = drawn_workloads(np.random.default_rng(0), 6)
    problem = Problem.of([w.operations for w in workloads], prior.channel_ramp)
    log_ms = np.log([w.ms for w in workloads])
    before, after = (posterior_mode(problem, log_ms + shift, prior) for shift in (0.0, np.log(factor)))
    predicted = [problem.predict(found)[0] for found in (before, after)]
    assert predicted[1] - predicted[0] == pytest.approx(np.log(factor), abs=0.02)


def test_the_derivatives_are_those_of_the_prediction():
    workloads = drawn_workloads(np.random.default_rng(1), 20)
    problem, at = Problem.of([w.operations for w in workloads], 4.0), np.array(weak_prior().mean)
    predicted, slopes = problem.predict(at)
    for i, direction in enumerate(np.eye(len(at))):
        moved = problem.predict(at + 1e-6 * direction)[0]
        assert (moved - predicted) / 1e-6 == pytest.approx(slopes[:, i], abs=1e-4)


@pytest.mark.parametrize("ms", [0.0, -1.0, float("nan"), float("inf")])
def test_no_rates_come_from_latencies_that_are_none(ms):
    with pytest.raises(InputError, match="positive ms"):
        fitted_rates([Workload([conv(8, 8, 8)], ms)], weak_prior())
    with pytest.raises(InputError, match="0 latencies"):
        fitted_rates([], weak_prior())


def test_a_predicted_device_follows_the_contract():
    wide, narrow = (nn.Sequential(nn.Conv2d(3, n, 3), nn.ReLU(), nn.Conv2d(n, 8, 3)) for n in (64, 16))
    inputs = Batch((torch.randn(4, 3, 16, 16),), {})
    found = device("pi4")({"dense": wide, "pruned": narrow}, inputs)
    assert found.kind == "predicted"
    assert found.device == "pi4"
    assert 0 < found.latency["pruned"].p50_ms < found.latency["dense"].p50_ms
    assert found.energy_mj == found.peak_memory_bytes == found.cold_start_ms == {}
    assert wide.training, "the network's mode came back"
    bigger = device("pi4-b8")({"dense": wide}, inputs)
    assert found.latency["dense"].p50_ms < bigger.latency["dense"].p50_ms <= 8 * found.latency["dense"].p50_ms
    with pytest.raises(InputError, match="module"):
        device("pi4")({"dense": lambda x: x}, inputs)
    with pytest.raises(InputError, match="no network"):
        device("pi4")({}, inputs)
