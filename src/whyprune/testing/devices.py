"""The contract of a device, as a check that anybody can run on their own."""

import copy

import numpy as np
import torch
from torch import nn

from whyprune.data.batches import Batch
from whyprune.devices.base import Device, Measurement
from whyprune.devices.latency import latency_summary
from whyprune.errors import InputError

KINDS = ("measured", "emulated", "predicted")


def check_device(device: Device, *, images: int = 1) -> Measurement:
    """Measures two small networks and checks what every device must keep.

    The result is under the device's own name and kind; networks, their modes and their weights are left alone; every
    network has times, finite and positive, of the same rounds, and the percentiles are theirs; what was
    not measured is missing, not made up; a device that runs files says how far their outputs are from PyTorch's; and
    no networks, or inputs that do not fit, are refused.

    Args:
        device: the device.
        images: how many inputs it gets; at least its batch size.

    Returns:
        What it measured.

    Raises:
        AssertionError: the contract is broken; the message says where.
    """
    networks = {"dense": _network(16), "pruned": _network(4)}
    before = copy.deepcopy({name: network.state_dict() for name, network in networks.items()})
    inputs = Batch((torch.randn(images, 3, 8, 8, generator=torch.Generator().manual_seed(0)),), {})
    assert device.name, "the device has no name"
    assert device.kind in KINDS, f"the device's kind is {device.kind!r}, not one of {', '.join(KINDS)}"
    found = device(networks, inputs)
    for name, network in networks.items():
        assert all(m.training for m in network.modules()), f"network {name!r} did not get its modes back"
        for key, tensor in network.state_dict().items():
            assert torch.equal(tensor, before[name][key]), f"network {name!r}: {key} was changed"
    assert (found.device, found.kind) == (device.name, device.kind), "the result is under another name or kind"
    _check_times(found, list(networks))
    _check_extras(found, set(networks))
    _check_refusals(device, inputs)
    return found


def _network(width: int) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(width)
        head = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 5))
        return nn.Sequential(nn.Conv2d(3, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(), *head).train()


def _check_times(found: Measurement, names: list[str]) -> None:
    assert list(found.latency) == names, f"latencies of {list(found.latency)}, asked were {names}, in this order"
    if found.kind == "predicted" and not found.samples_ms:
        assert all(np.isfinite(t.p50_ms) and t.p50_ms > 0 for t in found.latency.values()), "a time that is none"
        return
    assert list(found.samples_ms) == names, "networks without raw times"
    assert len({len(times) for times in found.samples_ms.values()}) == 1, "times are not of the same rounds"
    for name, times in found.samples_ms.items():
        assert times.ndim == 1, f"times of {name!r} have the shape {times.shape}"
        assert len(times), f"no times of {name!r}"
        assert np.isfinite(times).all(), f"times of {name!r} are not finite"
        assert (times > 0).all(), f"times of {name!r} are not positive"
        given = found.latency[name]
        own = latency_summary(times, given.batch_size, given.threads)
        assert (given.p50_ms, given.p90_ms, given.p99_ms) == (own.p50_ms, own.p90_ms, own.p99_ms), (
            f"percentiles of {name!r} are not those of its times"
        )
        assert given.repeats == len(times), f"repeats of {name!r} are not the number of its times"


def _check_extras(found: Measurement, names: set[str]) -> None:
    for what in ("size_bytes", "peak_memory_bytes", "cold_start_ms", "energy_mj", "max_abs_difference"):
        values = getattr(found, what)
        assert set(values) <= names, f"{what} of networks that were not asked for: {set(values) - names}"
        assert all(np.isfinite(v) and v >= 0 for v in values.values()), f"{what} holds {values}"
    assert bool(found.energy_mj) == (found.energy_meter is not None), "energy without its meter, or the reverse"
    if found.size_bytes and found.kind != "predicted":
        assert set(found.max_abs_difference) == names, "files whose outputs were not compared with PyTorch's"


def _check_refusals(device: Device, inputs: Batch) -> None:
    wrong = Batch((inputs.args[0][:, :2],), {})
    for networks, batch, what in (({}, inputs, "no networks"), ({"net": _network(4)}, wrong, "inputs that do not fit")):
        try:
            device(networks, batch)
        except InputError:
            continue
        raise AssertionError(f"{what} are not refused with an InputError")
