"""Latency of several networks in one run, and how much faster one is than another.

Rounds are interleaved (dense, pruned, pruned, dense, …): a machine that slows down slows all networks alike,
and the ratio of medians keeps its meaning on a shared machine where the times themselves do not.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats

from whyprune.data.batches import Batch
from whyprune.devices.base import DeviceKind, Measurement, Model, Samples
from whyprune.devices.evaluation import call, evaluating
from whyprune.devices.machine import machine_state
from whyprune.devices.runner import by_host_clock, interleaved, warm_up
from whyprune.errors import InputError
from whyprune.progress import track
from whyprune.results import LatencyMs, LatencyRatio


@dataclass(frozen=True)
class TorchDevice:
    """This machine, running PyTorch eagerly; a `Device`. The settings are those of `measure_latency`."""

    repeats: int = 200
    warmup: int = 10
    threads: int | None = None
    seconds: float | None = None
    batch_size: int = 1
    progress: bool = False
    name: str = "torch"
    kind: DeviceKind = "measured"

    def __call__(self, networks: Mapping[str, Model], inputs: Batch) -> Measurement:
        """Measures the networks with `measure_latency`."""
        settings = {k: v for k, v in vars(self).items() if k not in ("name", "kind")}
        return measure_latency(networks, inputs, device=self.name, **settings)


def measure_latency(
    networks: Mapping[str, Model],
    inputs: Batch,
    *,
    repeats: int = 200,
    warmup: int = 10,
    threads: int | None = None,
    seconds: float | None = None,
    batch_size: int = 1,
    progress: bool = False,
    device: str = "torch",
) -> Measurement:
    """Times networks against each other, one call of each per round.

    Args:
        networks: modules or callables by name; modules run in evaluation mode and get their modes back.
        inputs: at least `batch_size` samples, on the networks' device.
        repeats: rounds, at most.
        warmup: untimed calls of each network before the first round, at least; more until its times are steady.
        threads: torch's threads during the run; by default as many as torch has now.
        seconds: stop when the rounds have taken this long, but not before 3 rounds.
        batch_size: samples per call.
        progress: show a progress bar; drawing it takes time from the networks on a machine with few cores.
        device: the name to report.

    Raises:
        InputError: no networks, too few inputs, a setting out of range, or a network that fails.
    """
    if not networks:
        raise InputError("no network to measure: give a dict such as {'dense': model, 'pruned': pruned}")
    _at_least_one(repeats=repeats, batch_size=batch_size, threads=1 if threads is None else threads)
    if warmup < 0 or (seconds is not None and not seconds > 0):
        raise InputError(f"warmup is {warmup}, seconds is {seconds}: give 0 or more calls, a positive time")
    if len(inputs) < batch_size:
        raise InputError(f"{len(inputs)} inputs for a batch of {batch_size}: give at least as many inputs")
    batch = inputs[slice(0, batch_size)]
    machine = machine_state()
    with _threads(threads), evaluating(networks.values()):
        for name, network in networks.items():
            warm_up(partial(call, network, batch, f"network {name!r}"), max(warmup, 1))
        samples, preempted = _rounds(networks, batch, repeats, seconds, progress)
        used_threads = torch.get_num_threads()
    latency = {name: latency_summary(times, batch_size, used_threads) for name, times in samples.items()}
    return Measurement(device, latency, samples, machine, preempted)


def latency_ratio(dense_ms: Samples, pruned_ms: Samples, seed: int = 0, *, resamples: int = 2000) -> LatencyRatio:
    """How much faster the pruned network is: the ratio of median times, dense over pruned.

    Args:
        dense_ms: times of the dense network, shape (rounds,).
        pruned_ms: times of the pruned network in the same rounds, shape (rounds,).
        seed: of the bootstrap.
        resamples: bootstrap resamples; rounds are drawn in pairs, so that what disturbed both cancels.

    Raises:
        InputError: the samples are not paired, fewer than two, not finite or not positive.
    """
    dense, pruned = (np.asarray(s, dtype=np.float64) for s in (dense_ms, pruned_ms))
    if dense.ndim != 1 or dense.shape != pruned.shape or len(dense) < 2:
        raise InputError(
            f"latency samples have shapes {dense.shape} and {pruned.shape}: give the same two or more rounds of both"
        )
    if not all(np.isfinite(s).all() and (s > 0).all() for s in (dense, pruned)):
        raise InputError("latency samples are not all finite and positive: measure them again")

    def ratio(a: Samples, b: Samples, axis: int = -1) -> NDArray[np.float64]:
        return np.asarray(np.median(a, axis=axis) / np.median(b, axis=axis))

    bootstrap = stats.bootstrap(
        (dense, pruned),
        ratio,
        paired=True,
        vectorized=True,
        n_resamples=resamples,
        batch=max(1, 1_000_000 // len(dense)),
        method="percentile",
        rng=np.random.default_rng(seed),
    )
    low, high = bootstrap.confidence_interval
    return LatencyRatio(speedup=float(ratio(dense, pruned)), interval=(float(low), float(high)))


def latency_summary(samples_ms: Samples, batch_size: int, threads: int) -> LatencyMs:
    """Percentiles, mean and spread of raw times, shape (rounds,)."""
    p50, p90, p99 = (float(p) for p in np.percentile(samples_ms, (50, 90, 99)))
    return LatencyMs(
        p50_ms=p50,
        p90_ms=p90,
        p99_ms=p99,
        repeats=len(samples_ms),
        batch_size=batch_size,
        threads=threads,
        min_ms=float(samples_ms.min()),
        mean_ms=float(samples_ms.mean()),
        std_ms=float(samples_ms.std()),
    )


def _rounds(
    networks: Mapping[str, Model], batch: Batch, repeats: int, seconds: float | None, progress: bool
) -> tuple[dict[str, Samples], dict[str, list[int]]]:
    on_accelerator = any(t.device.type != "cpu" for t in batch.tensors())

    def run(network: Model) -> None:
        network(*batch.args, **batch.kwargs)
        if on_accelerator:
            torch.accelerator.synchronize()

    if on_accelerator:
        torch.accelerator.synchronize()
    timed = {name: by_host_clock(partial(run, network)) for name, network in networks.items()}
    preempted: dict[str, list[int]] = {}
    rounds = track(range(repeats), "latency", total=repeats, enabled=progress)
    times = interleaved(timed, rounds, seconds, preempted)
    return {name: np.asarray(values, dtype=np.float64) for name, values in times.items()}, preempted


def _at_least_one(**settings: int) -> None:
    for name, value in settings.items():
        if value < 1:
            raise InputError(f"{name} is {value}: give 1 or more")


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(before if count is None else count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
