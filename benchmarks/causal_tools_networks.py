"""The networks of `causal_tools`, trained on the spot or a checkpoint; and images that estimators see or do not see."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

import whyprune as wp
from benchmarks.common import cifar10, trained
from whyprune.data import Augmentation, DataSource, Loader, Normalization, load_source
from whyprune.data.batches import Batch
from whyprune.data.splits import TensorSplit
from whyprune.effects.outcomes import LogitShift, Margin
from whyprune.models import load_model, load_weights
from whyprune.models.digits import digits_cnn, train_digits
from whyprune.models.initialization import initialize
from whyprune.structure.network import Network

LEARNT = 897


@dataclass(frozen=True)
class Case:
    """A trained network with three sets of images: it learnt from `learnt`, estimators see `pool`, never `audit`."""

    name: str
    seed: int
    network: Network
    learnt: Batch
    pool: Batch
    audit: Batch

    def outcome(self, name: str) -> wp.LogitShift | Margin:
        """`logit-shift` with one scale for all images, or `margin`."""
        return FixedShift.of(self) if name == "logit-shift" else Margin()


@dataclass(frozen=True)
class FixedShift(LogitShift):
    """`LogitShift` that keeps its scale whatever images it is fitted on: estimates and truth are in the same unit."""

    def fit(self, _dense: Tensor, /) -> "FixedShift":
        """Itself."""
        return self

    @classmethod
    def of(cls, case: Case) -> "FixedShift":
        """With the scale of the audit images."""
        with torch.no_grad():
            return cls(scale=LogitShift().fit(case.network.model(case.audit.args[0])).scale)


class SmallVGG(nn.Module):
    """Five convolutions with batch norm and two poolings, for 8x8 images."""

    def __init__(self, num_classes: int = 10, channels: int = 1) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for width in (16, 16, 0, 32, 32, 0, 64):
            if not width:
                layers.append(nn.MaxPool2d(2))
                continue
            layers += [nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
            channels = width
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(channels, num_classes)
        initialize(self)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, 8, 8) to logits (B, num_classes)."""
        logits: Tensor = self.classifier(self.features(x).mean(dim=(2, 3)))
        return logits


def case(name: str, seed: int, workspace: Path) -> Case:
    """`digits-cnn`, `digits-vgg` or `resnet20`, whose seed 0 is the checkpoint; others are trained and kept."""
    return _resnet(seed, workspace) if name == "resnet20" else _digits(name, seed)


def _digits(name: str, seed: int) -> Case:
    source = load_source("digits")
    images, labels = source.train.batch(np.random.default_rng(seed).permutation(len(source.train)))
    first = TensorSplit("digits learnt", images[:LEARNT], labels[:LEARNT].numpy())
    learnt = DataSource("digits", first, source.test, source.class_names)
    model = digits_cnn() if name == "digits-cnn" else SmallVGG()
    train_digits(model, learnt, seed)
    scaled = Normalization.of(first)
    test = source.test.batch(np.arange(len(source.test)))

    def batch(raw: Tensor, known: Tensor) -> Batch:
        return Batch((scaled(raw),), {}, known)

    learnt_images, pool = batch(images[:LEARNT], labels[:LEARNT]), batch(images[LEARNT:], labels[LEARNT:])
    network = wp.trace(model, pool.args[0][:2])
    return Case(name, seed, network, learnt_images, pool, batch(*test))


def trained_here(source: DataSource, scaled: Normalization, seed: int, workspace: Path) -> nn.Module:
    """A ResNet-20 from fresh weights after 8 epochs; read from `workspace` when it is there."""
    workspace.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    model = load_model("resnet20", num_classes=10, image_shape=(3, 32, 32))
    weights, checkpoint = workspace / f"resnet20-{seed}.safetensors", workspace / f"training-{seed}.safetensors"
    if not weights.exists():
        how = wp.Recovery(epochs=8, learning_rate=0.2, warmup_fraction=0.25, validation_fraction=0.02)
        images = Loader(source.train, scaled, how.batch_size, shuffle_seed=seed, augment=Augmentation(), num_classes=10)
        on = checkpoint.exists()
        found = wp.recover(model, images, how, seed=seed, checkpoint=checkpoint, resume=on, progress=False)
        print([epoch.validation_top1_percent for epoch in found.history], flush=True)
        save_file(found.model.state_dict(), weights)
    load_weights(model, weights)
    return model.eval()


def _resnet(seed: int, workspace: Path) -> Case:
    source = cifar10()
    model, scaled = trained("resnet20")
    if seed > 0:
        model = trained_here(source, scaled, seed, workspace)

    def batch(split: str, count: int, draw: int) -> Batch:
        part = getattr(source, split)
        raw, known = part.batch(np.random.default_rng(draw).permutation(len(part))[:count])
        return Batch((scaled(raw),), {}, known)

    pool = batch("train", 512, seed)
    network = wp.trace(model, pool.args[0][:2])
    return Case("resnet20", seed, network, batch("train", 2048, seed + 1000), pool, batch("test", 1000, 7))
