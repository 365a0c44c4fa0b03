"""A small residual network for 8x8 digits, and its training: seconds on a laptop, for demonstrations."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from whyprune.data import DataSource, Loader, Normalization
from whyprune.models.initialization import initialize
from whyprune.models.resnet import BasicBlock

EPOCHS = 8
BATCH_SIZE = 64
PEAK_LEARNING_RATE = 0.01
WEIGHT_DECAY = 0.01


class DigitsCNN(nn.Module):
    """A stem, a block with an identity shortcut, a strided block that widens, and a linear layer."""

    def __init__(self, num_classes: int = 10, channels: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, 32, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(32)
        self.block1 = BasicBlock(32, 32, stride=1)
        self.block2 = BasicBlock(32, 64, stride=2)
        self.linear = nn.Linear(64, num_classes)
        initialize(self)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, H, W) to logits (B, num_classes)."""
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.block2(self.block1(x))
        logits: Tensor = self.linear(x.mean(dim=(2, 3)))
        return logits


def digits_cnn(num_classes: int = 10, channels: int = 1) -> DigitsCNN:
    """6 layers, 75 thousand parameters."""
    return DigitsCNN(num_classes, channels)


def train_digits(
    model: nn.Module,
    source: DataSource,
    seed: int,
    progress: Callable[[int, int, float], None] | None = None,
) -> None:
    """Trains a small network from scratch on `source.train`, in place; it ends in evaluation mode.

    The weights are drawn anew from `seed`, so that on one machine the result depends on the seed alone.

    Args:
        model: a built-in network.
        source: uint8 images, normalised here by their own mean and standard deviation.
        seed: of the weights and of the order of the images.
        progress: called after each epoch with its number from 1, the number of epochs, and the mean loss.

    Raises:
        InputError: labels that are no classes of the source.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        initialize(model)
    batches = Loader(
        source.train,
        Normalization.of(source.train),
        BATCH_SIZE,
        shuffle_seed=seed,
        num_classes=source.num_classes,
    )
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_LEARNING_RATE, total_steps=EPOCHS * len(batches))
    model.train()
    with _one_thread():
        for epoch in range(EPOCHS):
            batches.set_epoch(epoch)
            loss = _train_epoch(model, batches, optimizer, schedule)
            if progress is not None:
                progress(epoch + 1, EPOCHS, loss)
    model.eval()


@contextmanager
def _one_thread() -> Iterator[None]:
    """So small a network trains faster on one thread, and the same on any number of cores."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _train_epoch(
    model: nn.Module,
    batches: Loader,
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
) -> float:
    """The mean loss over the epoch's images."""
    total = 0.0
    for images, labels in batches:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(images), labels)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
        total += loss.item() * len(labels)
    return total / batches.images
