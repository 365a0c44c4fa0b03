"""The four tasks: a small network each, how it is trained, and what it is judged by on test samples."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.tasks_data import NOTES, SHAPES, Maker, Split, drawn, enlarged, shapes, tones, turned

Metrics = dict[str, float]


def _layer(inputs: int, outputs: int, **options: Any) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False, **options)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU())


class UNet(nn.Module):
    """(B, 3, 32, 32) to a logit per class and pixel, (B, 4, 32, 32): two steps down and two up again."""

    def __init__(self, width: int = 10) -> None:
        super().__init__()
        w = width
        self.down0 = nn.Sequential(_layer(3, w), _layer(w, w))
        self.down1 = nn.Sequential(_layer(w, 2 * w), _layer(2 * w, 2 * w))
        self.middle = nn.Sequential(_layer(2 * w, 4 * w), _layer(4 * w, 4 * w))
        self.enlarge1 = nn.ConvTranspose2d(4 * w, 2 * w, 2, stride=2)
        self.up1 = _layer(4 * w, 2 * w)
        self.enlarge0 = nn.ConvTranspose2d(2 * w, w, 2, stride=2)
        self.up0 = _layer(2 * w, w)
        self.head = nn.Conv2d(w, SHAPES + 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Logits per pixel."""
        first = self.down0(x)
        second = self.down1(F.max_pool2d(first, 2))
        x = self.enlarge1(self.middle(F.max_pool2d(second, 2)))
        x = self.enlarge0(self.up1(torch.cat([x, second], 1)))
        head: Tensor = self.head(self.up0(torch.cat([x, first], 1)))
        return head


class Enlarger(nn.Sequential):
    """(B, 3, 16, 16) to (B, 3, 32, 32), after FSRCNN (Dong et al., ECCV 2016): a transposed convolution at the end."""

    def __init__(self, width: int = 32, inner: int = 12) -> None:
        super().__init__(
            *(nn.Conv2d(3, width, 5, padding=2), nn.PReLU(width), nn.Conv2d(width, inner, 1), nn.PReLU(inner)),
            *(nn.Conv2d(inner, inner, 3, padding=1), nn.PReLU(inner)),
            *(nn.Conv2d(inner, inner, 3, padding=1), nn.PReLU(inner)),
            *(nn.Conv2d(inner, width, 1), nn.PReLU(width)),
            nn.ConvTranspose2d(width, 3, 8, stride=2, padding=3),
        )


class Listener(nn.Sequential):
    """(B, 1, 1024) to a logit per note: convolutions in one dimension."""

    def __init__(self) -> None:
        layers: list[nn.Module] = []
        sizes = [(1, 16, 32, 4), (16, 24, 16, 2), (24, 32, 8, 2), (32, 48, 8, 2)]
        for inputs, outputs, kernel, stride in sizes:
            layers += [
                nn.Conv1d(inputs, outputs, kernel, stride=stride, padding=kernel // 2, bias=False),
                nn.BatchNorm1d(outputs),
                nn.ReLU(),
            ]
        super().__init__(*layers, nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(48, NOTES))


class TwoHeads(nn.Module):
    """(B, 3, 32, 32) to logits of ten digits (B, 10), and sine and cosine of the angle (B, 2)."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        w = width
        self.body = nn.Sequential(_layer(3, w, stride=2), _layer(w, 2 * w), nn.MaxPool2d(2), _layer(2 * w, 3 * w))
        self.digit = nn.Sequential(_layer(3 * w, 3 * w, stride=2), nn.Flatten(), nn.Linear(3 * w * 16, 10))
        self.angle = nn.Sequential(_layer(3 * w, 2 * w, stride=2), nn.Flatten(), nn.Linear(2 * w * 16, 2))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Logits, and sine and cosine."""
        x = self.body(x)
        return self.digit(x), self.angle(x)


@dataclass(frozen=True)
class Task:
    """One task.

    Attributes:
        build: the network, with random weights.
        maker: of its data.
        loss: (output, targets) -> a number to train by.
        measure: (output, targets) -> metrics; the names say their unit.
        trivial: metrics of one answer for all samples.
        epochs: of training.
        usual: (name, metrics) of what is done without a network, where there is such a thing.
        samples: to train on.
        batch: of how many.
        rate: the highest learning rate.
    """

    build: Callable[[], nn.Module]
    maker: Maker
    loss: Callable[[Any, tuple[Tensor, ...]], Tensor]
    measure: Callable[[Any, tuple[Tensor, ...]], Metrics]
    trivial: Callable[[Split], Metrics]
    epochs: int
    usual: tuple[str, Callable[[Split], Metrics]] | None = None
    samples: int = 4_000
    batch: int = 64
    rate: float = 3e-3


def mean_iou(classes: Tensor, truth: Tensor) -> float:
    """Percent: intersection over union of a class over all pixels, the mean over classes, background included."""
    found = [
        float(((classes == c) & (truth == c)).sum() / ((classes == c) | (truth == c)).sum().clamp(min=1))
        for c in range(SHAPES + 1)
    ]
    return 100 * sum(found) / len(found)


def psnr_db(found: Tensor, truth: Tensor) -> float:
    """Peak signal to noise ratio for values of 0 to 1, the mean over pictures."""
    errors = (found.clamp(0, 1) - truth).square().flatten(1).mean(1)
    return float((-10 * errors.clamp(min=1e-10).log10()).mean())


def degrees_off(found: Tensor, truth: Tensor) -> float:
    """The mean error of angles given by sine and cosine."""
    off = torch.atan2(found[:, 0], found[:, 1]) - torch.atan2(truth[:, 0], truth[:, 1])
    off = (off + math.pi) % (2 * math.pi) - math.pi
    return float(off.abs().mean()) * 180 / math.pi


def _bicubic(pictures: Tensor) -> Tensor:
    return F.interpolate(pictures, scale_factor=2, mode="bicubic", align_corners=False)


def _right_percent(logits: Tensor, truth: Tensor) -> float:
    return 100 * float((logits.argmax(1) == truth).float().mean())


def _commonest_percent(truth: Tensor) -> float:
    return 100 * float(truth.bincount().max()) / len(truth)


TASKS: dict[str, Task] = {
    "segmentation": Task(
        UNet,
        shapes,
        lambda output, targets: F.cross_entropy(output, targets[0]),
        lambda output, targets: {"miou_percent": mean_iou(output.argmax(1), targets[0])},
        lambda split: {"miou_percent": mean_iou(torch.zeros_like(split.targets[0]), split.targets[0])},
        epochs=8,
    ),
    "super-resolution": Task(
        Enlarger,
        enlarged,
        lambda output, targets: F.l1_loss(output, targets[0]),
        lambda output, targets: {"psnr_db": psnr_db(output, targets[0])},
        lambda split: {"psnr_db": psnr_db(torch.full_like(split.targets[0], 0.5), split.targets[0])},
        usual=("bicubic", lambda split: {"psnr_db": psnr_db(_bicubic(split.inputs + 0.5), split.targets[0])}),
        epochs=10,
        batch=16,
        rate=6e-3,
    ),
    "audio": Task(
        Listener,
        tones,
        lambda output, targets: F.cross_entropy(output, targets[0]),
        lambda output, targets: {"right_percent": _right_percent(output, targets[0])},
        lambda split: {"right_percent": _commonest_percent(split.targets[0])},
        epochs=7,
    ),
    "two-heads": Task(
        TwoHeads,
        turned,
        lambda output, targets: F.cross_entropy(output[0], targets[0]) + 4 * F.mse_loss(output[1], targets[1]),
        lambda output, targets: {
            "right_percent": _right_percent(output[0], targets[0]),
            "degrees_off": degrees_off(output[1], targets[1]),
        },
        lambda split: {
            "right_percent": _commonest_percent(split.targets[0]),
            "degrees_off": degrees_off(torch.tensor([[0.0, 1.0]]).expand_as(split.targets[1]), split.targets[1]),
        },
        epochs=8,
    ),
}


def train(task: Task, seed: int, quick: bool = False) -> nn.Module:
    """The task's network, trained from a seed: AdamW, with a warm-up and one cosine."""
    torch.manual_seed(seed)
    model = task.build()
    data = drawn(task.maker, task.samples // (2 if quick else 1), seed)
    epochs = max(1, task.epochs // (2 if quick else 1))
    optimizer = torch.optim.AdamW(model.parameters(), task.rate, weight_decay=1e-4)
    steps = epochs * -(-len(data) // task.batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, task.rate, steps)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(epochs):
        for part in torch.randperm(len(data), generator=generator).split(task.batch):
            optimizer.zero_grad()
            task.loss(model(data.inputs[part]), tuple(t[part] for t in data.targets)).backward()
            optimizer.step()
            schedule.step()
    return model.eval()


def judged(task: Task, model: nn.Module, test: Split) -> Metrics:
    """The task's metrics of a network."""
    model = model.eval()
    with torch.inference_mode():
        parts = [model(batch) for batch in test.inputs.split(250)]
    whole = torch.cat(parts) if isinstance(parts[0], Tensor) else tuple(map(torch.cat, zip(*parts, strict=True)))
    return task.measure(whole, test.targets)
