"""`Run`: what every step of one run shares."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from whyprune.allocation import Budget, Constraints, Space, check_reachable
from whyprune.data.calibration import Calibration
from whyprune.data.outputs import logits_of
from whyprune.devices import Accuracy, Device, LabelsError, accuracy
from whyprune.effects.outcomes import Outcome
from whyprune.methods import Method
from whyprune.pipeline.device_budget import DeviceBudget, on_device
from whyprune.pipeline.settings import Settings
from whyprune.recovery import Recovery
from whyprune.results import RecoveryEpoch
from whyprune.structure.entry import Entered
from whyprune.structure.network import Network
from whyprune.structure.widening import Widening


@dataclass
class Run:
    """What every step of one run shares.

    Attributes:
        network: the traced model, priced where the budget needs it, widened where the allocation wants that.
        dense: the network as it was given, which results are compared with.
        calibration: the images.
        budget: what the result may cost.
        method: how units are chosen, with the parts that the settings replace.
        outcome: what harm is.
        constraints: on widths; what is ignored or tied is in the network already.
        settings: how to go about it.
        recovery: how to fine-tune afterwards; None for not at all.
        training_data: labelled data, for training before pruning and recovery after it.
        test: labelled batches, only ever measured on.
        device: where networks are timed; None for PyTorch here.
        folder: for finished stages and checkpoints.
        resume: go on from what is in it.
        asked: what was asked for, as it is recorded.
        seed: of everything drawn.
        progress: show progress bars.
        device_budget: plans until the device confirms; None for budgets that need no device.
        untrained: whether the weights are drawn, not trained: there is nothing to compare with or to refit towards.
        widening: how the model was widened; None for not at all.
        trained: the epochs of a training before pruning.
        timings: seconds per step.
        notes: sentences for the report.
    """

    network: Network
    dense: Network
    calibration: Calibration
    budget: Budget
    method: Method
    outcome: Outcome
    constraints: Constraints
    settings: Settings
    recovery: Recovery | None
    training_data: Any
    test: Entered | None
    device: Device | None
    folder: Path | None
    resume: bool
    asked: dict[str, Any]
    seed: int
    progress: bool
    device_budget: DeviceBudget | None = None
    untrained: bool = False
    widening: Widening | None = None
    trained: list[RecoveryEpoch] = field(default_factory=list)
    timings: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Times a step."""
        start = time.perf_counter()
        yield
        self.timings[name] = self.timings.get(name, 0.0) + time.perf_counter() - start

    def accuracy(self, model: nn.Module, name: str) -> Accuracy | None:
        """Top-1 on the test data; None where there is none, or outputs or labels are no classes, which a note says."""
        outputs = self.network.outputs
        if self.test is None:
            return None
        if not outputs.is_logits:
            self.note(f"No accuracy was measured: {outputs.no_logits()}.")
            return None
        read = outputs.logits if outputs.asked else logits_of
        try:
            with self.step("measure accuracy"):
                return accuracy(model, self.test, progress=self.progress, description=f"Accuracy {name}", logits=read)
        except LabelsError as error:
            self.note(f"No accuracy was measured: {error}.")
            return None

    def note(self, sentence: str) -> None:
        """Keeps a sentence for the report, once."""
        if sentence not in self.notes:
            self.notes.append(sentence)

    def price_for_device(self) -> None:
        """Prices the network where the budget is on a device, and refuses a budget that nothing can meet.

        Raises:
            BudgetError: with the smallest reachable value.
            InputError: the device does not measure what is asked for.
        """
        with self.step("measure the device"):
            self.device_budget = on_device(
                self.network, self.budget, self.device, self.constraints, progress=self.progress
            )
        if self.device_budget is not None:
            self.network, self.constraints = self.device_budget.network, self.device_budget.constraints
            self.notes += self.device_budget.table.notes
        check_reachable(Space(self.network, self.constraints, kinds=self.method.kinds), self.budget)
