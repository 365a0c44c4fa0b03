"""Calibration recovers a device that is made up: held-out layers are predicted, and the file written predicts too."""

from dataclasses import dataclass, field
from functools import cache

import numpy as np
import pytest
import torch
from torch import nn

from whyprune.data.batches import Batch
from whyprune.devices.base import DeviceKind, Measurement
from whyprune.devices.calibration import SHAPES, calibrate_device, fitted, layer_names, small_network
from whyprune.devices.fit import PARAMETERS, Workload, rates_of, weak_prior
from whyprune.devices.latency import latency_summary
from whyprune.devices.profile import Rates, write_profile
from whyprune.devices.registry import device
from whyprune.devices.roofline import module_costs, predicted_ms
from whyprune.errors import InputError
from whyprune.structure.capture import as_example
from whyprune.structure.operation_costs import OperationCost


def planted(channel_ramp=0.0, channel_step=1) -> Rates:
    slow = np.array(weak_prior().mean) + np.linspace(-0.7, 0.7, len(PARAMETERS))
    return rates_of(slow, channel_ramp, channel_step)


@dataclass
class MadeUp:
    """A device whose latencies follow a roofline, with a little noise and late rounds now and then."""

    rates: Rates
    noise: float = 0.0
    name: str = "made-up"
    kind: DeviceKind = "measured"
    runtime: str = "ort"
    threads: int = 1
    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))

    def __call__(self, networks, inputs):
        example = as_example(inputs)
        samples = {}
        for name, network in networks.items():
            ms = predicted_ms(module_costs(network, example), self.rates)
            ms *= float(np.exp(self.noise * self.rng.normal()))
            samples[name] = ms * (1 + 5 * (self.rng.random(20) < 0.4) * self.rng.random(20))
            samples[name][0] = ms
        latency = {n: latency_summary(s, 1, 1) for n, s in samples.items()}
        return Measurement(self.name, latency, samples, {}, runtime=self.runtime)


def test_a_calibrated_profile_predicts_what_was_not_measured(tmp_path):
    """Through the file and the name, and although two in five rounds are disturbed."""
    made_up = MadeUp(planted(), noise=0.02)
    found = calibrate_device(made_up, layers=14)
    write_profile(found.profile("copy", made_up), tmp_path / "copy.json")
    torch.manual_seed(0)
    unseen = nn.Sequential(*(nn.Conv2d(a, b, 3, padding=1) for a, b in ((32, 48), (48, 96), (96, 32)))).eval()
    inputs = Batch((torch.randn(2, 32, 20, 20),), {})
    said = device("copy", folder=tmp_path)({"net": unseen}, inputs)
    assert (said.kind, said.device) == ("predicted", "copy")
    true = made_up({"net": unseen}, inputs).samples_ms["net"].min()
    assert said.latency["net"].p50_ms == pytest.approx(true, rel=0.3)


@pytest.mark.parametrize("step", [1, 16])
def test_the_block_of_channels_is_found(step):
    workloads = layer_workloads(planted(channel_step=step))
    found = fitted(workloads)
    assert found.rates.channel_step == step
    assert found.error.median_percent < 5
    assert found.held_out[0][0].startswith("winograd")


def test_the_error_is_that_of_layers_that_were_not_fitted_to():
    """Latencies that follow nothing cannot be predicted, however well they can be fitted."""
    rng = np.random.default_rng(0)
    noise = [Workload(w.operations, float(np.exp(rng.normal()))) for w in layer_workloads(planted())]
    assert fitted(noise).error.median_percent > 30


def test_a_prediction_is_not_calibrated():
    with pytest.raises(InputError, match="predicted"):
        calibrate_device(device("pi4"))
    with pytest.raises(InputError, match="at least 10"):
        calibrate_device(MadeUp(planted()), layers=3)


def layer_workloads(rates: Rates) -> list[Workload]:
    return [Workload(layers, predicted_ms(layers, rates)) for layers in small_layers()]


@cache
def small_layers() -> list[list[OperationCost]]:
    generator = torch.Generator().manual_seed(0)
    found = []
    for channels, size in SHAPES[1::3]:
        example = as_example(torch.randn(2, channels, size, size))
        networks = [small_network(name, channels, size, generator) for name in layer_names(channels, size)]
        found += [module_costs(network, example) for network in networks]
    return found
