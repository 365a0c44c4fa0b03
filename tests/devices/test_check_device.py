"""The check of the contract accepts a device that keeps it and names what another breaks."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from whyprune.devices import TorchDevice
from whyprune.errors import InputError
from whyprune.testing import check_device

QUICK = {"repeats": 4, "warmup": 1}


def test_the_device_in_this_process_keeps_the_contract():
    assert check_device(TorchDevice(batch_size=3, name="here", **QUICK), images=5).device == "here"


class Broken:
    """A device that breaks its contract in one way."""

    name, kind = "broken", "measured"

    def __init__(self, change):
        self.change = change
        self.own = TorchDevice(name=self.name, **QUICK)

    def __call__(self, networks, inputs):
        return self.change(self.own(networks, inputs), networks)


def other_rounds(found, _):
    return replace(found, samples_ms={**found.samples_ms, "pruned": found.samples_ms["pruned"][:-1]})


def not_finite(found, _):
    times = found.samples_ms["dense"].copy()
    times[0] = np.nan
    return replace(found, samples_ms={**found.samples_ms, "dense": times})


def other_percentiles(found, _):
    latency = found.latency["dense"].model_copy(update={"p50_ms": 1e-9})
    return replace(found, latency={**found.latency, "dense": latency})


def changes_weights(found, networks):
    with torch.no_grad():
        next(networks["dense"].parameters()).add_(1)
    return found


def changes_modes(found, networks):
    networks["pruned"].eval()
    return found


BROKEN = [
    (lambda found, _: replace(found, device="other"), "another name"),
    (lambda found, _: replace(found, kind="predicted"), "another name or kind"),
    (lambda found, _: replace(found, latency={"dense": found.latency["dense"]}), "latencies of"),
    (other_rounds, "same rounds"),
    (not_finite, "not finite"),
    (other_percentiles, "percentiles"),
    (changes_weights, "was changed"),
    (changes_modes, "modes"),
    (lambda found, _: replace(found, size_bytes={"other": 1}), "size_bytes"),
    (lambda found, _: replace(found, cold_start_ms={"dense": float("nan")}), "cold_start_ms"),
    (lambda found, _: replace(found, energy_mj={"dense": 1.0}), "without its meter"),
    (lambda found, _: replace(found, size_bytes={"dense": 1, "pruned": 1}), "not compared"),
]


@pytest.mark.parametrize(("change", "says"), BROKEN, ids=[says for _, says in BROKEN])
def test_what_a_device_breaks_is_named(change, says):
    with pytest.raises(AssertionError, match=says):
        check_device(Broken(change))


def test_a_device_that_takes_anything_is_not_one():
    class Lenient(Broken):
        def __call__(self, networks, inputs):
            try:
                return self.own(networks, inputs)
            except InputError:
                return None

    with pytest.raises(AssertionError, match="no networks are not refused"):
        check_device(Lenient(None))
