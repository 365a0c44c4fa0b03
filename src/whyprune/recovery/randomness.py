"""Randomness as a function of (seed, epoch, step), not of history: resuming needs no generator state."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum

import numpy as np
import torch


class Stream(IntEnum):
    """Independent uses of one seed."""

    VALIDATION = 0
    ORDER = 1
    DATA = 2
    MODEL = 3
    MIXUP = 4


def generator(stream: Stream, *key: int) -> np.random.Generator:
    """A generator made of the key alone."""
    return np.random.default_rng([int(stream), *key])


def seed_all(stream: Stream, *key: int) -> None:
    """Seeds Python, NumPy and torch, which augmentation and dropout draw on, with a number from the key."""
    number = int(np.random.SeedSequence([int(stream), *key]).generate_state(1)[0])
    random.seed(number)
    np.random.seed(number)  # noqa: NPY002 - the caller's data code may use the global generator
    # Not torch.manual_seed: as long as CUDA is not initialised it formats a traceback every time.
    torch.default_generator.manual_seed(number)
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.manual_seed_all(number)
    if torch.backends.mps.is_available():
        torch.mps.manual_seed(number)


@contextmanager
def repeatable() -> Iterator[None]:
    """Deterministic cuDNN algorithms inside; afterwards the caller's generators are as they were."""
    cudnn = torch.backends.cudnn
    flags = cudnn.deterministic, cudnn.benchmark
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002
    devices = [torch.cuda.current_device()] if torch.cuda.is_initialized() else []  # type: ignore[no-untyped-call]
    with torch.random.fork_rng(devices=devices):
        try:
            cudnn.deterministic, cudnn.benchmark = True, False
            yield
        finally:
            cudnn.deterministic, cudnn.benchmark = flags
            random.setstate(python)
            np.random.set_state(numpy)  # noqa: NPY002
