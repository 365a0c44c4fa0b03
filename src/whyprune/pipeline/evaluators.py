"""What a method's search measures plans with, and on which images: its fitness, from its name to an `Evaluator`.

Plans are measured on a third of the planning images at most, and networks mended on others. Images of the audit, on
which the joint effect of the result is measured, are never among them, and test images are not known here.
"""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from whyprune.allocation.evaluator import MeasuredEffects, MeasuredPlans
from whyprune.allocation.fitness import BATCH_NORM, JOINT_EFFECT, REFIT, Fitness
from whyprune.allocation.kept_plans import KeptPlans
from whyprune.allocation.measured_errors import MeasuredErrors, Mending
from whyprune.data.batches import Batch, chunked, cut_images, joined, split_images
from whyprune.devices.evaluation import device_of
from whyprune.effects.outcomes import Outcome
from whyprune.errors import InputError
from whyprune.methods import Method
from whyprune.recovery import Recovery, recover
from whyprune.recovery.sources import class_numbers
from whyprune.repair import reestimate_batch_norm, repair
from whyprune.repair.registry import repair_named
from whyprune.structure.network import Network
from whyprune.structure.state import State
from whyprune.structure.training import training_error

SHORT = {"learning_rate": 0.01, "momentum": 0.9, "weight_decay": 1e-4, "batch_size": 32, "validation_fraction": 0.0}
"""ACP [C]: momentum and decay, batches of 64, rate 0.1. At that rate thirty steps would undo the weights; ours [I]."""
SHARE, BATCH = 1 / 3, 128


def evaluator_of(
    method: Method,
    state: State,
    view: Sequence[Batch],
    *,
    outcome: Outcome | str | None = None,
    seed: int = 0,
    kept: KeptPlans | None = None,
) -> MeasuredPlans:
    """Measures plans from a state on as the method's fitness says.

    Args:
        method: whose allocation is a search.
        state: where plans start.
        view: planning images; the first third at most is measured on, others mend.
        outcome: what harm is, for joint effects and refits.
        seed: of everything drawn.
        kept: plans that an interrupted search has measured.

    Raises:
        InputError: fewer than six images.
    """
    fitness = Fitness.parse(method.fitness)
    rest, looked_at = split_images(view, SHARE, fitness.facts.measured_on)
    fit = cut_images(rest, fitness.facts.mended_on)[0]
    if fitness.kind == JOINT_EFFECT:
        fit = fit if repair_named(method.repair).between_rounds else []
        return MeasuredEffects(state, looked_at, outcome, fit, seed=seed, kept=kept)
    mending = _mending(fitness, outcome, seed)
    return MeasuredErrors(state, looked_at, mending=mending, fit=fit, seed=seed, kept=kept)


def needs_labels(method: Method) -> bool:
    """Whether a method's search measures errors on labelled images."""
    return method.searches and Fitness.parse(method.fitness).facts.labels == "yes"


def check_labels(method: Method, batch: Batch) -> None:
    """Refuses images without labels where the fitness is an error, before any work.

    Raises:
        InputError: names the way out.
    """
    if needs_labels(method) and batch.labels is None:
        raise InputError(
            f"{_who(method)}, and the calibration data has no labels: give (inputs, labels) batches, or take the "
            "fitness that needs none, fitness='joint-effect' (--fitness joint-effect)"
        )


def check_fitness(method: Method, network: Network, images: Sequence[Batch]) -> None:
    """Refuses a network or images on which the method's fitness cannot be measured, before any work.

    Raises:
        InputError: outputs or labels that are no classes, or a network that does not train.
    """
    if not needs_labels(method):
        return
    other = "take fitness='joint-effect' (--fitness joint-effect)"
    if not network.outputs.is_logits:
        raise InputError(f"{_who(method)}, which needs classes: {network.outputs.no_logits()}; {other}")
    for batch in images:
        check_labels(method, batch)
        assert batch.labels is not None
        try:
            class_numbers(batch.labels, network.outputs.counting[0].shape[1])
        except InputError as error:
            raise InputError(f"{_who(method)}: {error}; or {other}") from None
    trains = Fitness.parse(method.fitness).facts.training
    if trains and (said := training_error(network.model, network.example)):
        raise InputError(f"{_who(method)}, and the model does not run in training mode: {said}; {other}")


def said_of(method: Method, network: Network) -> list[str]:
    """Sentences on what the fitness does not do on this network."""
    if method.searches and Fitness.parse(method.fitness).kind == BATCH_NORM and not _normalises(network):
        return ["No batch norm of this network keeps statistics, so plans were measured as cut, without any mending."]
    return []


def _normalises(network: Network) -> bool:
    return any(name.endswith("running_mean") for name, _ in network.model.named_buffers())


def _who(method: Method) -> str:
    return f"method {method.name!r} measures plans by the fitness {method.fitness!r}, an error on labelled images"


def _mending(fitness: Fitness, outcome: Outcome | str | None, seed: int) -> Mending:
    """What is done to a network before its error is measured."""
    if fitness.kind == BATCH_NORM:
        return Mending(str(fitness), _with_batch_norm, (0.0, 1.0))
    if fitness.kind == REFIT:
        return Mending(str(fitness), lambda state, fit: repair(state, fit, outcome=outcome, seed=seed), (1.0, 1.0))

    def trained(state: State, fit: Sequence[Batch]) -> State:
        on = {"epochs": fitness.epochs, "accelerator": device_of(state.model).type}
        how = Recovery.model_validate(SHORT | on)
        found = recover(
            state, _even(fit, how.batch_size), how, positional=state.network.positional, seed=seed, progress=False
        )
        return state.with_model(found.model)

    return Mending(f"{fitness} {SHORT}", trained, (0.0, 3.0 * fitness.epochs))


def _with_batch_norm(state: State, fit: Sequence[Batch]) -> State:
    return state.with_model(reestimate_batch_norm(state.model, _even(fit, BATCH), state.network.positional))


def _even(fit: Sequence[Batch], size: int) -> list[Batch]:
    """Batches of about so many images each, whatever batches the data came in: statistics of one image are none.

    Inputs of several sizes stay in the batches that they came in.
    """
    try:
        whole = joined(fit)
    except InputError:
        return chunked(fit, size)
    edges = np.linspace(0, len(whole), max(1, round(len(whole) / size)) + 1).round().astype(int)
    return [whole[slice(int(low), int(high))] for low, high in pairwise(edges)]
