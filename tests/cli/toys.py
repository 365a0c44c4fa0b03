"""Networks and data of a user's own, each with something wrong or something special, named as `toys:NAME`."""

import os
import signal

import numpy as np
import torch
from torch import nn

from whyprune.models.digits import DigitsCNN

SHAPE = (1, 8, 8)


class Interrupted(DigitsCNN):
    """Presses Ctrl-C in training step number $TOYS_INTERRUPT_AT."""

    def __init__(self):
        super().__init__()
        self.steps = 0

    def forward(self, x):
        if self.training:
            self.steps += 1
            if self.steps == int(os.environ.get("TOYS_INTERRUPT_AT", "0")):
                os.kill(os.getpid(), signal.SIGINT)
        return super().forward(x)


class Branching(nn.Module):
    """Computes outside PyTorch: cannot be captured."""

    def __init__(self):
        super().__init__()
        self.large = nn.Linear(64, 10)

    def forward(self, x):
        x = x.flatten(1)
        return self.large(torch.from_numpy(np.sin(x.detach().numpy())))  # the line that must be named


def interrupted():
    return Interrupted()


def branching():
    return Branching()


def _items(count, image=None, label=None):
    generator = torch.Generator().manual_seed(count)
    images = torch.randn(count, *SHAPE, generator=generator)
    return [(images[i] if image is None else image, i % 10 if label is None else label) for i in range(count)]


def noise():
    return _items(64), _items(32)


def empty():
    return [], _items(32)


def one_image():
    return _items(1), _items(32)


def nan_images():
    spoilt = _items(64)
    spoilt[7] = (torch.full(SHAPE, float("nan")), 7)
    return spoilt, _items(32)


def wrong_labels():
    return _items(64), _items(32, label=12)


def colour():
    image = torch.zeros(3, 8, 8)
    return _items(64, image), _items(32, image)
