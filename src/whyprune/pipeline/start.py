"""How a run starts: checked, trained if that is asked for, traced, widened if that is wanted, its images split."""

import os
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from whyprune.allocation import Budget, Constraints
from whyprune.allocation.fitness import Fitness
from whyprune.data.calibration import Augment, Calibration, calibrate, few_images
from whyprune.data.opened import rereadable
from whyprune.devices import Device
from whyprune.devices.registry import device as device_named
from whyprune.effects.outcomes import Outcome, OutcomeFunction, judged
from whyprune.effects.output_shift import OutputShift
from whyprune.errors import InputError
from whyprune.methods import Method
from whyprune.pipeline.arguments import checked_arguments
from whyprune.pipeline.device_budget import check_device, with_memory
from whyprune.pipeline.evaluators import check_fitness
from whyprune.pipeline.given import check_recovery, test_data, training_data
from whyprune.pipeline.labels import check_labelled
from whyprune.pipeline.preconfigured import preconfigured
from whyprune.pipeline.run import Run
from whyprune.pipeline.settings import Settings
from whyprune.pipeline.untrained import before_training, doubts
from whyprune.recovery import Recovery, RecoveryResult, recover
from whyprune.structure.capture import as_example
from whyprune.structure.entry import Entered, entered
from whyprune.structure.network import Network
from whyprune.structure.notes import notes_on
from whyprune.structure.outputs import Named
from whyprune.structure.trace import trace

CALIBRATION = "the calibration data"
TRAINING = "training.safetensors"
"""The checkpoint of a training before pruning, in the workspace."""


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
    settings, constraints = settings or Settings(), constraints or Constraints()
    parts = _parts(settings.applied(method, budget), settings, training, recovery)
    constraints = replace(constraints, ignore=(*settings.ignore, *constraints.ignore))
    where = device_named(device) if isinstance(device, str) else device
    check_device(budget, where)
    example = as_example(example_inputs)
    data = rereadable(data, CALIBRATION)
    check_labelled(parts.method, outcome, data, example, CALIBRATION)
    trains = parts.training or parts.recovery
    to_train_on = data
    if trains is not None:
        to_train_on = training_data(data if recovery_data is None else recovery_data, example, trains)
    start = time.perf_counter()
    trained = None
    if parts.training is not None:
        trained = _trained(model, to_train_on, parts.training, example_inputs, seed, folder, resume, progress)
    seconds, start = time.perf_counter() - start, time.perf_counter()

    def traced(model: nn.Module) -> Network:
        counting = outputs if outputs is not None else settings.outputs or None
        found = trace(model, example_inputs, heads=settings.heads, outputs=counting)
        return with_memory(constraints.prepared(found), budget, where)

    dense = traced(trained.model if trained else model)
    free = replace(constraints, ignore=(), together=())  # these two are in the network by now
    wide = preconfigured(dense, budget, parts.method, free, traced, fresh=parts.untrained, seed=seed)
    network = wide.network
    check_recovery(network, to_train_on, parts.recovery)
    images = entered(data, network, CALIBRATION, whole=True)
    calibration = calibrate(images, network.positional, augment, seed)
    check_fitness(parts.method, network, (*calibration.planning, *calibration.audit))
    network, measured, said = _judged(network, outcome, calibration)
    run = Run(
        network=network,
        dense=dense if wide.widening else network,
        calibration=calibration,
        budget=wide.budget,
        method=parts.method,
        outcome=measured,
        constraints=free,
        settings=settings,
        recovery=parts.recovery,
        training_data=to_train_on,
        test=None if test is None else test_data(test, network),
        device=where,
        folder=folder,
        resume=resume,
        asked={},
        seed=seed,
        progress=progress,
        untrained=parts.untrained,
        widening=wide.widening,
        notes=[
            *parts.notes,
            *doubts(dense.model, untrained=parts.untrained),
            *wide.notes,
            *images.notes,
            *notes_on(network),
            *said,
        ],
    )
    run.notes += _said_of(run, wrapped, model)
    if trained is not None:
        run.trained, run.timings["train"] = list(trained.history), seconds
    run.timings["trace"] = time.perf_counter() - start
    run.asked = _asked(run, model, constraints, parts.training, {"budget": str(budget), **(asked or {})})
    return run


@dataclass(frozen=True)
class _Parts:
    """The method and the trainings around it, as they fit together, and sentences on what is left out."""

    method: Method
    training: Recovery | None
    recovery: Recovery | None
    untrained: bool
    notes: list[str]


def _parts(method: Method, settings: Settings, training: Recovery | None, recovery: Recovery | None) -> _Parts:
    """Method, training and recovery as they go together.

    Raises:
        InputError: they do not.
    """
    if method.penalty and training is None:
        raise InputError(f"method {method.name!r} trains with the penalty {method.penalty!r} first: give training=…")
    untrained = settings.untrained and training is None
    method, training, recovery, notes = before_training(method, settings, training, recovery)
    if training is not None:
        training = _with_penalty(training, method)
        if training.devices not in (1, "1"):
            raise InputError(
                f"training before pruning runs on one device, not on {training.devices!r}: leave devices at 1"
            )
    if method.schedule.recovery_epochs and recovery is None:
        epochs = method.schedule.recovery_epochs
        raise InputError(
            f"schedule {method.schedule} fine-tunes between rounds ({epochs} epoch{'s' * (epochs > 1)} each): "
            "give recovery=Recovery(epochs=…), on the command line --finetune-epochs, for how it trains and how long "
            "after the last round"
        )
    return _Parts(method, training, recovery, untrained, notes)


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
    few = "" if run.untrained else few_images(run.calibration.images)  # before training they prove the removal, no more
    said = [few] if few else []
    if model is not given:
        said.append(f"The network inside the {type(given).__name__} is pruned, and comes back without it.")
    return said + (run.test.notes if isinstance(run.test, Entered) else [])


def _are_targets(calibration: Calibration) -> bool:
    """Whether the images' labels are real numbers, as for regression."""
    labels = calibration.planning[0].labels
    return labels is not None and labels.is_floating_point()


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
        **({"untrained": True} if run.untrained else {}),
        **({"widened": run.widening.groups} if run.widening else {}),
        "seed": run.seed,
        **(more or {}),
    }
