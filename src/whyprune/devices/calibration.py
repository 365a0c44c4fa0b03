"""Fits a profile to the machine: small layers are measured on a device, and errors are those on layers held out."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
import torch
from torch import Tensor, nn

from whyprune.data.batches import Batch
from whyprune.devices.base import Device
from whyprune.devices.fit import Prior, Workload, fitted_rates, weak_prior
from whyprune.devices.local import LocalDevice
from whyprune.devices.profile import Citation, ErrorFound, Profile, Rates, Roofline
from whyprune.devices.roofline import module_costs, predicted_ms
from whyprune.errors import InputError
from whyprune.progress import track
from whyprune.structure.capture import as_example

FOLDS = 5
STEPS = (1, 4, 8, 16)
RAMPS = (0.0, 4.0, 16.0)
SHAPES = ((16, 32), (24, 28), (48, 14), (64, 16), (96, 7), (128, 28), (160, 14), (256, 8))
"""Channels and size of the layers' inputs; some widths fill no block of 16."""

DEEP = (16, 48, 96)
"""For inputs of so many channels there are deep networks as well: they tell the cost of a layer from that of a call."""


@dataclass(frozen=True)
class TimedNetwork:
    """A small network and its best time for a batch of one: what else the machine does is no property of the device."""

    name: str
    workload: Workload
    runtime: str = "torch"
    threads: int = 1


@dataclass(frozen=True)
class FittedRates:
    """Rates fitted to a device, and the errors they show on layers that they were not fitted to."""

    rates: Rates
    error: ErrorFound
    held_out: tuple[tuple[str, float, float], ...]
    """Name, measured and predicted ms of every layer, predicted from a fit without it."""
    runtime: str = "torch"
    threads: int = 1

    def profile(self, name: str, device: Device) -> Profile:
        """A profile of its own for the device that was measured."""
        return Profile(
            name=name,
            kind="predicted",
            title=f"Calibrated on {device.name}",
            runtime=self.runtime,
            threads=self.threads,
            batch_size=1,
            rooflines=(Roofline(threads=self.threads, rates=self.rates, fitted_to=device.name, errors=(self.error,)),),
            sources=(Citation(title=f"whyprune devices calibrate, device {device.name}", what="all rates"),),
        )


def calibrate_device(
    device: Device, *, layers: int | None = None, seed: int = 0, progress: bool = False
) -> FittedRates:
    """Measures small layers on a device and fits its rates.

    Args:
        device: what to measure; a predicted one makes no sense.
        layers: how many layers to measure, drawn at random; by default all of about 60. At least 10.
        seed: of the layers' weights and of what is held out.
        progress: show a progress bar.

    Raises:
        InputError: the device is predicted, or too few layers are asked for.
    """
    if device.kind == "predicted":
        raise InputError(f"device {device.name!r} is predicted: calibrate one that runs networks, such as local-ort-1t")
    if layers is not None and layers < 10:
        raise InputError(f"layers is {layers}: give at least 10, or the rates are not determined")
    if isinstance(device, LocalDevice):
        device = replace(device, each_alone=False)  # cold starts and memory are not asked for
    found = measured(device, layers, seed, progress)
    calibration = fitted([m.workload for m in found], seed=seed)
    return replace(calibration, runtime=found[0].runtime, threads=found[0].threads)


def fitted(workloads: Sequence[Workload], *, prior: Prior | None = None, seed: int = 0) -> FittedRates:
    """Rates fitted to measured layers, with the block of channels that predicts held-out layers best.

    The error is that of predictions for layers held out from the fit *and* from the choice of the block.
    """
    prior = weak_prior() if prior is None else prior
    order = np.random.default_rng(seed).permutation(len(workloads))
    held_out: dict[int, float] = {}
    for part in (order[start::FOLDS] for start in range(FOLDS)):
        rest = [workloads[i] for i in order if i not in set(part.tolist())]
        rates = _best(rest, prior, seed)
        held_out |= {int(i): predicted_ms(workloads[i].operations, rates) for i in part}
    off = np.array([100 * abs(held_out[i] / w.ms - 1) for i, w in enumerate(workloads)])
    return FittedRates(
        rates=_best(workloads, prior, seed),
        error=ErrorFound(
            compared_with="layers that were held out",
            median_percent=float(np.median(off)),
            p90_percent=float(np.quantile(off, 0.9)),
            count=len(off),
        ),
        held_out=tuple((_title(w), w.ms, held_out[i]) for i, w in enumerate(workloads)),
    )


def measured(device: Device, layers: int | None, seed: int, progress: bool) -> list[TimedNetwork]:
    """Measures small layers; those with the same input run interleaved in one call."""
    generator = torch.Generator().manual_seed(seed)
    everything = [(shape, name) for shape in SHAPES for name in layer_names(*shape)]
    kept = everything
    if layers is not None:
        picked = np.random.default_rng(seed).permutation(len(everything))[:layers]
        kept = [everything[i] for i in sorted(picked.tolist())]
    found = []
    for shape in track(SHAPES, "calibrate", total=len(SHAPES), enabled=progress):
        names = [name for at, name in kept if at == shape]
        if not names:
            continue
        channels, size = shape
        inputs = Batch((torch.randn(2, channels, size, size, generator=generator),), {})
        networks = {name: small_network(name, channels, size, generator) for name in names}
        measurement = device(networks, inputs)
        for name, network in networks.items():
            best = float(np.min(measurement.samples_ms[name]))
            works = Workload(module_costs(network, as_example(inputs)), best)
            where = f"{name} on {channels}x{size}x{size}"
            found.append(TimedNetwork(where, works, measurement.runtime, measurement.latency[name].threads))
    return found


def layer_names(channels: int, size: int) -> Iterator[str]:
    """The layers that are measured on one input."""
    yield from ("conv3", "conv3-narrow", "conv1", "conv1-wide", "depthwise3", "pool-linear", "add")
    if size >= 14:
        yield "conv3-stride2"
    if channels % 8 == 0 and channels >= 24:
        yield "grouped3"
    if size >= 28:
        yield "conv5"
    if channels in DEEP:
        yield from ("deep-conv3", "deep-conv1", "deep-residual", "deep-bottleneck")


def small_network(name: str, channels: int, size: int, generator: torch.Generator) -> nn.Module:
    """A few layers of one kind, so that what every inference costs does not hide them."""
    del size
    narrow = max(channels * 5 // 8, 1)
    parts: dict[str, list[nn.Module]] = {
        "conv3": [nn.Conv2d(channels, channels, 3, padding=1) for _ in range(2)],
        "conv3-narrow": [nn.Conv2d(channels, narrow, 3, padding=1), nn.Conv2d(narrow, channels, 3, padding=1)],
        "conv1": [nn.Conv2d(channels, channels, 1) for _ in range(3)],
        "conv1-wide": [nn.Conv2d(channels, 3 * channels, 1), nn.Conv2d(3 * channels, channels, 1)],
        "depthwise3": [nn.Conv2d(channels, channels, 3, padding=1, groups=channels) for _ in range(3)],
        "grouped3": [nn.Conv2d(channels, channels, 3, padding=1, groups=channels // 8) for _ in range(2)],
        "conv3-stride2": [nn.Conv2d(channels, channels, 3, stride=2, padding=1)],
        "conv5": [nn.Conv2d(channels, channels, 5, padding=2)],
        "pool-linear": [
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(channels, 512),
            nn.ReLU(),
            nn.Linear(512, 256),
        ],
        "add": [_Sums()],
        "deep-conv3": [nn.Conv2d(channels, channels, 3, padding=1) for _ in range(8)],
        "deep-conv1": [nn.Conv2d(channels, channels, 1) for _ in range(12)],
        "deep-residual": [_Residual(*_convolutions(channels, channels, 3)) for _ in range(4)],
        "deep-bottleneck": [_Residual(*_bottleneck(channels)) for _ in range(4)],
    }
    network = nn.Sequential(*parts[name]).eval()
    for parameter in network.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator) / max(parameter[0].numel(), 1) ** 0.5
    return network


def _convolutions(channels: int, hidden: int, kernel: int) -> list[nn.Module]:
    first = nn.Conv2d(channels, hidden, kernel, padding=kernel // 2)
    return [first, nn.ReLU(), nn.Conv2d(hidden, channels, kernel, padding=kernel // 2)]


def _bottleneck(channels: int) -> list[nn.Module]:
    wide = 4 * channels
    depthwise = nn.Conv2d(wide, wide, 3, padding=1, groups=wide)
    return [nn.Conv2d(channels, wide, 1), nn.ReLU6(), depthwise, nn.ReLU6(), nn.Conv2d(wide, channels, 1)]


class _Residual(nn.Module):
    """Adds what went in to what comes out."""

    def __init__(self, *parts: nn.Module) -> None:
        super().__init__()
        self.body = nn.Sequential(*parts)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x + self.body(x))


class _Sums(nn.Module):
    """Nothing but elementwise operations."""

    def forward(self, x: Tensor) -> Tensor:
        pooled = nn.functional.max_pool2d(x, 3, 1, 1)
        return pooled + x * torch.sigmoid(x)


def _best(workloads: Sequence[Workload], prior: Prior, seed: int) -> Rates:
    """The fit with the block of channels and the ramp that predict best what is held out."""
    order = np.random.default_rng(seed).permutation(len(workloads))
    parts = [set(order[start::3].tolist()) for start in range(3)]
    losses: dict[tuple[float, int], float] = {}
    for ramp, step in product(RAMPS, STEPS):
        believed = prior.model_copy(update={"channel_ramp": ramp})
        off = []
        for part in parts:
            rates = fitted_rates([w for i, w in enumerate(workloads) if i not in part], believed, channel_step=step)
            off += [abs(np.log(predicted_ms(workloads[i].operations, rates) / workloads[i].ms)) for i in part]
        losses[ramp, step] = float(np.mean(off))
    ramp, step = min(losses, key=lambda key: losses[key])
    return fitted_rates(workloads, prior.model_copy(update={"channel_ramp": ramp}), channel_step=step)


def _title(workload: Workload) -> str:
    return ", ".join(dict.fromkeys(f"{x.kind} {x.channels[0]}-{x.channels[1]}" for x in workload.operations))
