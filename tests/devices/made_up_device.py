"""A device whose times are a formula: a staircase of channels, and what a call takes whatever the widths."""

import math

import numpy as np
from torch import nn

from whyprune.devices.base import Measurement
from whyprune.devices.latency import latency_summary


class MadeUp:
    """A layer takes its kernel's places times its inputs and outputs, each up to the next multiple of `step`."""

    kind = "predicted"

    def __init__(self, step=4, call_ms=0.0, rows_lie=1.0, name="made-up", batch_size=1, energy=False):
        self.step, self.call_ms, self.rows_lie, self.energy = step, call_ms, rows_lie, energy
        self.name, self.batch_size, self.networks = name, batch_size, []

    def __call__(self, networks, inputs):
        assert len(inputs) >= self.batch_size
        self.networks += list(networks)
        ms = {name: self.time_ms(network) * self.lie(name) for name, network in networks.items()}
        samples = {name: np.full(8, value) for name, value in ms.items()}
        latency = {name: latency_summary(s, self.batch_size, 1) for name, s in samples.items()}
        energy = {name: 7 * value for name, value in ms.items()} if self.energy else {}
        return Measurement(self.name, latency, samples, {"cpu": "made up"}, kind="predicted", energy_mj=energy)

    def lie(self, name):
        """What is measured of rows is off by a factor."""
        return self.rows_lie if name.startswith("r") else 1.0

    def time_ms(self, network):
        layers = [m for m in network.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
        return self.call_ms + sum(self.layer_ms(*m.weight.shape[:2], m.weight[0, 0].numel()) for m in layers)

    def layer_ms(self, outputs, inputs, places):
        return 1e-4 * places * self.up(outputs) * self.up(inputs)

    def up(self, channels):
        return self.step * math.ceil(channels / self.step)
