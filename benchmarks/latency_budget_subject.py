"""The networks of `latency_budget`, with what is measured once for all devices."""

import importlib
from collections.abc import Sequence
from functools import cache

import numpy as np
import torch
from torch import nn

import whyprune as wp
from benchmarks.common import calibration, cifar10, fingerprint, test_images, trained
from whyprune.allocation import allocate_curves
from whyprune.allocation.constraints import Constraints
from whyprune.causal.response.bypass import bypass_effects
from whyprune.causal.response.curves import response_curves
from whyprune.data import Augmentation
from whyprune.data.batches import cut_images, split_images
from whyprune.data.calibration import calibrate
from whyprune.devices.local import LocalDevice
from whyprune.effects.effects import ResponseCurve
from whyprune.models import load_model
from whyprune.pipeline.device_budget import DeviceBudget, on_device
from whyprune.structure.replay import Replay

ASKED = 0.5
VIEWS = 2
CURVE_IMAGES = 640
BYPASSED_AS = 0.75


class Subject:
    """A network with what is measured once for all devices."""

    def __init__(self, name: str, quick: bool, seed: int) -> None:
        self.name, self.seed, self.quick = name, seed, quick
        self.images = None
        if name.startswith("resnet") and name != "resnet50":
            self.model, normalization = trained(name)
            self.model = self.model.eval()
            source = cifar10()
            self.fingerprint = fingerprint(source)
            loader = calibration(source, normalization, 256 if quick else 1024, seed)
            self.images = calibrate(loader, 1, Augmentation(), seed)
            self.test = test_images(source, normalization, 1000 if quick else None)
            self.network = wp.trace(self.model, next(iter(loader))[0][:2])
            fit = cut_images(self.images.view(1), 128 if quick else CURVE_IMAGES)[0]
            parts = split_images(fit)
            self.curves = response_curves(self.network, *parts, seed=seed)
            self.bypass = {name: e.effect for name, e in bypass_effects(self.network, *parts, seed=seed).items()}
        else:
            torch.manual_seed(seed)
            self.model, shape = untrained(name)
            self.network = wp.trace(self.model, torch.randn(2, *shape))
            self.curves, self.bypass = made_up(self.network)

    def plan(self, device: LocalDevice) -> tuple[wp.Plan, DeviceBudget]:
        """The plan for half the latency."""
        budget = wp.Budget(latency=ASKED)
        aim = on_device(self.network, budget, device, Constraints())
        assert aim is not None
        plan = aim(lambda n, b, c: allocate_curves(n, self.curves, b, blocks=self.bypass, constraints=c), budget)
        return plan, aim

    def for_macs(self, ratio: float, *, blocks: bool, constraints: Constraints) -> wp.Plan:
        """The plan for a share of the MACs, from the same curves."""
        bypass, budget = self.bypass if blocks else {}, wp.Budget(macs=ratio)
        return allocate_curves(self.network, self.curves, budget, blocks=bypass, constraints=constraints)

    def repaired(self, units: Sequence[str]) -> nn.Module:
        """The network without these units, repaired."""
        assert self.images is not None
        views = self.images.views(range(1 if self.quick else VIEWS))
        return wp.repair(wp.State(self.network, wp.remove(self.network, units), units), views, seed=self.seed).model


def made_up(network: wp.Network) -> tuple[dict[str, ResponseCurve], dict[str, float]]:
    """Effects where there is nothing to measure: the square of the share that goes, for every layer that reads it.

    A block counts as its groups do with three quarters gone, which is about what was measured on ResNet-56.
    """
    replay, curves = Replay(network), {}
    for group in network.groups:
        removed = np.arange(len(group.units))
        effect = len(replay.readers(group.units)) * (removed / len(group.units)) ** 2
        curves[group.name] = ResponseCurve(group.name, tuple(u.name for u in group.units), removed, effect, 0 * effect)
    whole = {g.name: curves[g.name].effect[1] * len(g.units) ** 2 for g in network.groups if len(g.units) > 1}
    bypass = {b.name: BYPASSED_AS**2 * sum(whole.get(name, 0.0) for name in b.groups) for b in network.blocks}
    return curves, bypass


def untrained(name: str) -> tuple[nn.Module, tuple[int, int, int]]:
    """A network with random weights and the shape of its images."""
    if name == "resnet50":
        library = importlib.import_module("transformers")
        return library.ResNetForImageClassification(library.ResNetConfig(num_labels=1000)).eval(), (3, 224, 224)
    return load_model(name, num_classes=10, image_shape=(3, 32, 32)).eval(), (3, 32, 32)


@cache
def subject(name: str, quick: bool, seed: int) -> Subject:
    """Each is made once."""
    return Subject(name, quick, seed)
