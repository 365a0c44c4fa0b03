"""What all cells of the table of methods share: networks and images, and methods with another allocation."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import torch
from torch import nn

from benchmarks.common import calibration, test_images, trained
from benchmarks.methods_table_pairs import SETTINGS
from whyprune.allocation.allocate import chosen_allocator, facts_of
from whyprune.data import DataSource
from whyprune.devices import accuracy
from whyprune.methods import Method, method_named

Batches = Sequence[tuple[torch.Tensor, torch.Tensor]]
"""Images (B, 3, H, W) and labels (B,)."""


@dataclass(frozen=True, eq=False)
class Subject:
    """A trained network, and the images that all methods get.

    Attributes:
        name: of the network.
        source: the data.
        calibration_images: drawn from the training split by seed; methods, repairs and searches see no others.
        test_images: the first of the test split; read for the accuracies of the row alone.
        views: augmented views of every calibration image in the last repair.
        search_plans: how many plans a search measures at most; None for its own default.
    """

    name: str
    source: DataSource
    calibration_images: int
    test_images: int
    views: int
    search_plans: int | None = None

    def settings(self, name: str) -> dict[str, Any]:
        """The fields of a method's row that say so; a method that measures no plans is asked for no number of them."""
        found = {field: getattr(self, field) for field in SETTINGS}
        return found if searches(name) else found | {"search_plans": None}

    @cached_property
    def trained(self) -> tuple[nn.Module, Any]:
        """The dense network and its normalisation."""
        return trained(self.name)

    @cached_property
    def test(self) -> Batches:
        """The test images."""
        return list(test_images(self.source, self.trained[1], self.test_images))

    @lru_cache(maxsize=1)  # noqa: B019 - subjects live as long as the process
    def drawn(self, seed: int) -> Batches:
        """The calibration images of a seed."""
        return list(calibration(self.source, self.trained[1], self.calibration_images, seed))

    @cached_property
    def dense_top1_percent(self) -> float:
        """Accuracy of the dense network."""
        return accuracy(self.trained[0], self.test, progress=False).top1_percent

    @cached_property
    def dense_pass_cpu_s(self) -> float:
        """CPU seconds of one dense pass over the calibration images in this process: the better of two."""
        batches = [images for images, _ in self.drawn(0)]
        return min(_cpu_seconds_of_a_pass(self.trained[0], batches) for _ in range(2))


def composed(name: str) -> Method:
    """A method by its name, or by `NAME+ALLOCATION` with another allocation."""
    method, _, allocation = name.partition("+")
    return method_named(method).with_parts(allocation=allocation or None)


def searches(name: str) -> bool:
    """Whether a method measures plans on the network while it looks for one."""
    allocation = composed(name).allocation
    return allocation is not None and facts_of(chosen_allocator(allocation)).needs == "evaluator"


def _cpu_seconds_of_a_pass(model: nn.Module, batches: Sequence[torch.Tensor]) -> float:
    start = time.process_time()
    with torch.inference_mode():
        for images in batches:
            model(images)
    return time.process_time() - start
