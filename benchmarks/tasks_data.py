"""Data of the tasks: pictures of CIFAR-10, digits of scikit-learn, and tones that are computed.

No data set of segmentation, of audio or of two labels is at hand, so they are made here, from a seed:

* shapes: a disc, a square or a triangle in a colour of its own, twice, on a CIFAR-10 picture; a class per pixel;
* pictures: a CIFAR-10 picture and its mean over two by two pixels, which is to be enlarged;
* tones: 1,024 samples at 8 kHz of a note with eight overtones of random strength, random phases and noise; 36 notes;
* turned digits: a digit of scikit-learn, turned by up to 60 degrees, over a darkened CIFAR-10 picture.

Training, calibration and test samples never share a picture or a digit of their source.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor

from benchmarks.common import cifar10

SIDE = 32
SHAPES = 3
NOTES, RATE, LENGTH, OVERTONES = 36, 8_000, 1_024, 8
LOWEST_HZ, STEPS_PER_OCTAVE = 110.0, 18
MOST_DEGREES = 60.0
DIGITS_TO_TRAIN = 1_200
PICTURES = 12_000
"""Pictures of CIFAR-10's training split that are used; the test split is for tests alone."""


@dataclass(frozen=True)
class Split:
    """Inputs (N, ...) and what they are judged by, (N, ...) each."""

    inputs: Tensor
    targets: tuple[Tensor, ...]

    def __len__(self) -> int:
        return len(self.inputs)

    def first(self, count: int) -> "Split":
        """The first so many."""
        return Split(self.inputs[:count], tuple(t[:count] for t in self.targets))


Maker = Callable[[Tensor, Tensor, Tensor, torch.Generator], Split]
"""(pictures (N, 3, 32, 32), digits (N, 1, 8, 8), their labels (N,), generator) -> samples."""


@cache
def pictures(test: bool) -> Tensor:
    """(N, 3, 32, 32) in 0 to 1."""
    source = cifar10()
    split = source.test if test else source.train
    images, _ = split.batch(np.arange(min(PICTURES, len(split))))
    return images.float() / 255 if images.dtype == torch.uint8 else images.float()


@cache
def digits(test: bool) -> tuple[Tensor, Tensor]:
    """(N, 1, 8, 8) in 0 to 1, and labels."""
    bunch = load_digits()
    order = torch.randperm(len(bunch.target), generator=torch.Generator().manual_seed(0))
    order = order[DIGITS_TO_TRAIN:] if test else order[:DIGITS_TO_TRAIN]
    images = torch.from_numpy(bunch.images).float().unsqueeze(1) / 16
    return images[order], torch.from_numpy(bunch.target)[order]


def drawn(maker: Maker, count: int, seed: int, *, test: bool = False, skip: int = 0) -> Split:
    """Samples made from a seed; `skip` leaves out the first pictures, for samples that share none with others."""
    generator = torch.Generator().manual_seed(7_919 * seed + test)
    images, (shown, labels) = pictures(test)[skip:], digits(test)
    at = torch.randperm(len(images), generator=generator).repeat(1 + count // len(images))[:count]
    which = torch.randint(len(shown), (count,), generator=generator)
    return maker(images[at], shown[which], labels[which], generator)


def shapes(images: Tensor, _digits: Tensor, _labels: Tensor, generator: torch.Generator) -> Split:
    """Pictures (N, 3, 32, 32) with two shapes each, and a class per pixel (N, 32, 32): 0 is the background."""
    count = len(images)
    images, classes = images.clone(), torch.zeros(count, SIDE, SIDE, dtype=torch.long)
    grid = torch.arange(SIDE).float()
    for _ in range(2):
        kind = torch.randint(SHAPES, (count, 1, 1), generator=generator)
        centre = torch.rand(count, 2, 1, 1, generator=generator) * (SIDE - 12) + 6
        size = torch.rand(count, 1, 1, generator=generator) * 5 + 4
        down, right = grid.view(1, -1, 1) - centre[:, 0], grid.view(1, 1, -1) - centre[:, 1]
        disc = down.square() + right.square() < size.square()
        square = (down.abs() < 0.85 * size) & (right.abs() < 0.85 * size)
        triangle = (down < 0.8 * size) & (down > 2 * right.abs() - size)
        inside = torch.where(kind == 0, disc, torch.where(kind == 1, square, triangle))
        colour = torch.rand(count, 3, 1, 1, generator=generator)
        images = torch.where(inside.unsqueeze(1), 0.8 * colour + 0.2 * images, images)
        classes = torch.where(inside, kind + 1, classes)
    noise = 0.05 * torch.randn(images.shape, generator=generator)
    return Split((images + noise - 0.5) / 0.25, (classes,))


def enlarged(images: Tensor, _digits: Tensor, _labels: Tensor, _generator: torch.Generator) -> Split:
    """Pictures of half the side (N, 3, 16, 16), less a half, and the pictures (N, 3, 32, 32) in 0 to 1."""
    return Split(F.avg_pool2d(images, 2) - 0.5, (images,))


def tones(images: Tensor, _digits: Tensor, _labels: Tensor, generator: torch.Generator) -> Split:
    """Tones (N, 1, 1024) and the index of their note (N,): 18 steps an octave, from 110 Hz on."""
    count = len(images)
    note = torch.randint(NOTES, (count,), generator=generator)
    off = 0.3 * (torch.rand(count, generator=generator) - 0.5)  # of a step: nobody plays quite in tune
    pitch = LOWEST_HZ * 2 ** ((note + off) / STEPS_PER_OCTAVE)
    order = torch.arange(1, OVERTONES + 1)
    strength = torch.rand(count, OVERTONES, generator=generator) / order.sqrt()
    phase = 2 * math.pi * torch.rand(count, OVERTONES, generator=generator)
    time = torch.arange(LENGTH) / RATE
    waves = torch.zeros(count, LENGTH)
    for k in range(OVERTONES):
        angle = 2 * math.pi * order[k] * pitch.unsqueeze(1) * time + phase[:, k : k + 1]
        waves += strength[:, k : k + 1] * angle.sin()
    waves = waves / waves.std(dim=1, keepdim=True) + torch.randn(count, LENGTH, generator=generator)
    return Split(waves.unsqueeze(1), (note,))


def turned(images: Tensor, shown: Tensor, labels: Tensor, generator: torch.Generator) -> Split:
    """Turned digits over pictures (N, 3, 32, 32); the digit (N,) and sine and cosine of its angle (N, 2)."""
    angle = (2 * torch.rand(len(images), generator=generator) - 1) * math.radians(MOST_DEGREES)
    sine, cosine, zero = angle.sin(), angle.cos(), torch.zeros_like(angle)
    theta = torch.stack([torch.stack([cosine, -sine, zero], 1), torch.stack([sine, cosine, zero], 1)], 1)
    large = F.interpolate(shown, size=SIDE, mode="bilinear", align_corners=False)
    large = F.grid_sample(large, F.affine_grid(theta, list(large.shape), align_corners=False), align_corners=False)
    mixed = 0.4 * images + 0.6 * large
    return Split((mixed - 0.35) / 0.25, (labels, torch.stack([sine, cosine], 1)))
