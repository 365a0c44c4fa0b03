"""`Run`: what every step of one run shares, and how a run starts: checked, traced, its images split."""

import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import nn
from torch.utils.data import Dataset, IterableDataset

from whyprune.allocation import Budget, Constraints, Space, check_reachable
from whyprune.allocation.fitness import Fitness
from whyprune.data.batches import Batch, as_batch
from whyprune.data.calibration import Augment, Calibration, calibrate, few_images
from whyprune.data.expected import expected_batch
from whyprune.data.opened import BATCH_SIZE, first_of, length_of, opened, rereadable
from whyprune.data.outputs import logits_of
from whyprune.devices import Accuracy, Device, LabelsError, accuracy
from whyprune.devices.registry import device as device_named
from whyprune.effects.outcomes import Outcome, OutcomeFunction, judged
from whyprune.effects.output_shift import OutputShift
from whyprune.errors import InputError
from whyprune.methods import Method
from whyprune.pipeline.arguments import checked_arguments
from whyprune.pipeline.device_budget import DeviceBudget, check_device, on_device, with_memory
from whyprune.pipeline.evaluators import check_fitness, check_labels, needs_labels
from whyprune.pipeline.settings import Settings
from whyprune.recovery import Recovery, RecoveryResult, recover
from whyprune.recovery.sources import checked_labels
from whyprune.results import RecoveryEpoch
from whyprune.structure.capture import as_example
from whyprune.structure.entry import Entered, entered
from whyprune.structure.network import Network
from whyprune.structure.notes import notes_on
from whyprune.structure.outputs import Named
from whyprune.structure.trace import trace
from whyprune.structure.training import training_error

CALIBRATION = "the calibration data"
TRAINING = "training.safetensors"
"""The checkpoint of a training before pruning, in the workspace."""


@dataclass
class Run:
    """What every step of one run shares.

    Attributes:
        network: the traced model, priced where the budget needs it.
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
        trained: the epochs of a training before pruning.
        timings: seconds per step.
        notes: sentences for the report.
    """

    network: Network
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


def start_run(
    model: nn.Module,
    data: Iterable[Any],
    *,
    budget: Budget,
    example_inputs: Any,
    method: str | Method,
    outcome: Outcome | OutcomeFunction | str | None,
    outputs: Named | Iterable[Named] | None,
    constraints: Constraints | None,
    settings: Settings | None,
    training: Recovery | None,
    recovery: Recovery | None,
    recovery_data: Any,
    test: Iterable[Any] | None,
    augment: Augment | None,
    workspace: str | os.PathLike[str] | None,
    resume: bool,
    asked: dict[str, Any] | None,
    device: Device | str | None,
    seed: int,
    progress: bool,
) -> Run:
    """Checks what was asked for, trains the model first if that was asked for, traces it, and splits the images.

    Raises:
        InputError: data, settings or constraints that cannot be used; a model in training mode.
        TraceError: the model cannot be captured.
    """
    wrapped, model = (
        model,
        checked_arguments(
            model,
            data,
            example_inputs,
            budget=budget,
            method=method,
            constraints=constraints,
            settings=settings,
            training=training,
            recovery=recovery,
            augment=augment,
            workspace=workspace,
            asked=asked,
            device=device,
            seed=seed,
        ),
    )
    folder = None if workspace is None else Path(workspace)
    settings = settings or Settings()
    chosen = settings.applied(method, budget)
    if chosen.penalty and training is None:
        raise InputError(f"method {chosen.name!r} trains with the penalty {chosen.penalty!r} first: give training=…")
    if training is not None and training.devices not in (1, "1"):
        raise InputError(f"training before pruning runs on one device, not on {training.devices!r}: leave devices at 1")
    if chosen.schedule.recovery_epochs and recovery is None:
        raise InputError(
            f"schedule {chosen.schedule} fine-tunes between rounds ({chosen.schedule.recovery_epochs} epochs each): "
            "give recovery=Recovery(epochs=…), on the command line --finetune-epochs, for how it trains and how long "
            "after the last round"
        )
    constraints = constraints or Constraints()
    constraints = replace(constraints, ignore=(*settings.ignore, *constraints.ignore))
    where = device_named(device) if isinstance(device, str) else device
    check_device(budget, where)
    example = as_example(example_inputs)
    data = rereadable(data, CALIBRATION)
    _check_first_labels(data, example, chosen)
    training_data = data
    if training is not None or recovery is not None:
        trained_with = training or recovery
        training_data = _training_data(data if recovery_data is None else recovery_data, example, trained_with)
    start = time.perf_counter()
    trained = None
    if training is not None:
        training = _with_penalty(training, chosen)
        trained = _trained(model, training_data, training, example_inputs, seed, folder, resume, progress)
    seconds, start = time.perf_counter() - start, time.perf_counter()
    traced = trace(
        trained.model if trained else model,
        example_inputs,
        heads=settings.heads,
        outputs=outputs if outputs is not None else settings.outputs or None,
    )
    network = with_memory(constraints.prepared(traced), budget, where)
    _check_recovery(network, recovery)
    _check_training_data(network, training_data, recovery)
    images = entered(data, network, CALIBRATION)
    calibration = calibrate(images, network.positional, augment, seed)
    check_fitness(chosen, network, (*calibration.planning, *calibration.audit))
    network, measured, said = _judged(network, outcome, calibration)
    run = Run(
        network=network,
        calibration=calibration,
        budget=budget,
        method=chosen,
        outcome=measured,
        constraints=replace(constraints, ignore=(), together=()),  # these two are in the network by now
        settings=settings,
        recovery=recovery,
        training_data=training_data,
        test=None if test is None else _test_data(test, network),
        device=where,
        folder=folder,
        resume=resume,
        asked={},
        seed=seed,
        progress=progress,
        notes=[*images.notes, *notes_on(network), *said],
    )
    run.notes += _said_of(run, wrapped, model)
    if trained is not None:
        run.trained, run.timings["train"] = list(trained.history), seconds
    run.timings["trace"] = time.perf_counter() - start
    run.asked = _asked(run, model, constraints, training, asked)
    return run


def _check_first_labels(data: Any, example: Batch, method: Method) -> None:
    """Refuses data without labels for a method whose search needs them, before the model is trained or traced."""
    if needs_labels(method):
        batches, _ = opened(data, example, CALIBRATION, BATCH_SIZE)
        try:
            first = as_batch(first_of(batches, CALIBRATION), max(len(example.args), 1))
        except InputError:  # what cannot be read has a message of its own, where all is read
            return
        check_labels(method, first)


def _judged(
    network: Network, outcome: Outcome | str | OutcomeFunction | None, calibration: Calibration
) -> tuple[Network, Outcome, list[str]]:
    """The network as the outcome sees it, the outcome, and sentences on what counts."""
    said = network.outputs.notes()
    if outcome is None and network.outputs.is_logits and _are_targets(calibration):
        outcome = OutputShift()
        said.append("The labels are real numbers, so harm is output-shift: outputs are compared uncentred.")
    state, measured = judged(network, outcome)
    return state.network, measured, said


def _said_of(run: Run, given: nn.Module, model: nn.Module) -> list[str]:
    """Sentences on the images, the model and the test data that the user gave."""
    said = [few] if (few := few_images(run.calibration.images)) else []
    if model is not given:
        said.append(f"The network inside the {type(given).__name__} is pruned, and comes back without it.")
    return said + (run.test.notes if isinstance(run.test, Entered) else [])


def _check_recovery(network: Network, recovery: Recovery | None) -> None:
    if recovery is not None and not network.outputs.is_logits:
        raise InputError(
            f"recovery trains towards classes: {network.outputs.no_logits()}; leave recovery out and fine-tune "
            "result.model with your own loss"
        )


def _are_targets(calibration: Calibration) -> bool:
    """Whether the images' labels are real numbers, as for regression."""
    labels = calibration.planning[0].labels
    return labels is not None and labels.is_floating_point()


def _training_data(data: Any, example: Batch, recovery: Recovery | None) -> Any:
    """Labelled data to train on, as `recover` takes it; its first batch has to be what the network takes.

    Raises:
        InputError: it is not.
    """
    what, size = "the recovery data", BATCH_SIZE if recovery is None else recovery.batch_size
    kept = rereadable(data, what)
    batches, _ = opened(kept, example, what, size)
    if (first := first_of(batches, what)) is None and not length_of(batches):
        raise InputError(f"{what} is empty: give labelled batches")
    expected_batch(first, example, what)
    return kept if isinstance(kept, Dataset) and not isinstance(kept, IterableDataset) else batches


def _test_data(data: Any, network: Network) -> Entered:
    """Labelled batches to measure on; the first has to be what the network takes.

    Raises:
        InputError: it is not.
    """
    what = "the test data"
    found = entered(data, network, what, replayed=False)
    if (first := first_of(found, what)) is None:
        raise InputError(f"{what} is empty: give labelled batches, or leave test out")
    if network.outputs.is_logits:  # what the last step would refuse, before any work
        read = network.outputs.logits if network.outputs.asked else logits_of
        with suppress(LabelsError):
            accuracy(network.model, [first], progress=False, logits=read)
    return found


def _check_training_data(network: Network, data: Any, recovery: Recovery | None) -> None:
    """Refuses training data whose first batch has other sizes or labels than the network takes, before any work."""
    if recovery is None:
        return
    if error := training_error(network.model, network.example):
        raise InputError(
            f"the model does not run in training mode on example_inputs, which recovery needs: {error}; where training "
            "takes more inputs, such as labels, fine-tune result.model with your own loss"
        )
    what = "the recovery data"
    first = first_of(entered(data, network, what, replayed=False), what)
    if first is not None:
        checked_labels(first, network.outputs.counting[0].shape[1], needed=recovery.distill < 1)


def _with_penalty(training: Recovery, method: Method) -> Recovery:
    """The training, with the method's penalty where it names none of its own."""
    if not method.penalty or training.penalty is not None:
        return training
    fields = training.model_dump() | {"penalty": method.penalty, "penalty_weight": method.penalty_weight}
    return Recovery(**fields)


def _trained(
    model: nn.Module,
    data: Any,
    training: Recovery,
    example_inputs: Any,
    seed: int,
    folder: Path | None,
    resume: bool,
    progress: bool,
) -> RecoveryResult:
    """A copy of the model, trained before anything is pruned; an interrupted training goes on from its checkpoint."""
    checkpoint = None if folder is None else folder / TRAINING
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
    return recover(
        model,
        data,
        training,
        positional=max(len(as_example(example_inputs).args), 1),
        seed=seed,
        checkpoint=checkpoint,
        resume=resume and checkpoint is not None and checkpoint.exists(),
        progress=progress,
    )


def _asked(
    run: Run, model: nn.Module, constraints: Constraints, training: Recovery | None, more: dict[str, Any] | None
) -> dict[str, Any]:
    return {
        "model": type(model).__name__,
        "budget": str(run.budget),
        "method": run.method.name,
        "scorer": run.method.scorer_name,
        "outcome": run.outcome.name,
        "outputs": [t.name for t in run.network.outputs.counting],
        "calibration_images": run.calibration.images,
        "repair": run.method.repair,
        "allocation": run.method.allocation_name or None,
        "reduction": run.method.reduction,
        "fitness": str(Fitness.parse(run.method.fitness)) if run.method.searches else None,
        "search_plans": run.method.search_plans,
        "schedule": str(run.method.schedule),
        "recover_between": run.method.schedule.recovery_epochs or None,
        "blocks": "block" in run.method.kinds,
        "ignore": list(constraints.ignore),
        "constraints": replace(constraints, ignore=()).as_dict(),
        "training": None if training is None else training.model_dump(mode="json"),
        "recovery": None if run.recovery is None else run.recovery.model_dump(mode="json"),
        "device": None if run.device is None else run.device.name,
        "seed": run.seed,
        **(more or {}),
    }
