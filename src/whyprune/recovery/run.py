"""The door of the room: a network, pruned or not, and training data in, a trained network out."""

import atexit
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from whyprune.data.batches import Batch
from whyprune.data.outputs import logits_of
from whyprune.devices.evaluation import call, device_of
from whyprune.errors import InputError
from whyprune.recovery import checkpoint as files
from whyprune.recovery.checks import check_first_batch, runs_channels_last
from whyprune.recovery.config import Recovery
from whyprune.recovery.features import matched_layers
from whyprune.recovery.job import Job, Logits, StepHook
from whyprune.recovery.penalty import PENALTIES, PenaltyFactory, name_of
from whyprune.recovery.randomness import repeatable
from whyprune.recovery.split import Parts, split_data
from whyprune.recovery.training import train
from whyprune.results import RecoveryEpoch
from whyprune.structure.copies import duplicate
from whyprune.structure.network import Network
from whyprune.structure.precise import has_half, in_single, single, with_types_of
from whyprune.structure.state import State
from whyprune.structure.trace import trace
from whyprune.structure.wrapped import unwrapped

if TYPE_CHECKING:
    from lightning_fabric import Fabric


@dataclass(frozen=True)
class RecoveryResult:
    """The trained network, in evaluation mode, and how it got there.

    `best_epoch` counts from 1; `seconds` is the wall time of all epochs, an interrupted run's included.
    """

    model: nn.Module
    history: list[RecoveryEpoch]
    best_epoch: int
    seconds: float


def recover(
    start: nn.Module | State,
    data: Any,
    recovery: Recovery,
    *,
    dense: nn.Module | None = None,
    penalty: PenaltyFactory | None = None,
    network: Network | None = None,
    outcome_of: Callable[[Any], Tensor] | None = None,
    positional: int = 1,
    seed: int = 0,
    checkpoint: str | Path | None = None,
    resume: bool = False,
    checkpoint_interval_s: float = 30.0,
    progress: bool = True,
    on_step: StepHook | None = None,
) -> RecoveryResult:
    """Trains a network, before or after pruning, and keeps the epoch that is best on the validation data.

    A `State` brings along the dense network that `distill` and `follow` need. A plain module is trained as it is. A
    network in half precision is trained in single precision and gets its own types back.

    Order, augmentation and dropout are functions of (seed, epoch, step), so a resumed run ends with the
    weights of a run that was never interrupted, bit by bit on the same machine. The validation part is
    `recovery.validation_fraction` of the training data. On a tie the later epoch is kept. Without a validation part
    the last epoch is kept; without labels (`distill=1`) the lowest validation loss decides.

    A penalty acts on the units of `network`. Left out, that is `start.network` for a state that lacks nothing; else the
    module is traced as it is, on the state's example inputs or on the first rows of the data: after pruning a penalty
    acts on the units that are left, and units that `ignoring` kept whole count again unless `network` says so.

    Args:
        start: the network, or the state that pruning left; it is not changed. Parameters that require no gradient
            stay as they are.
        data: a map-style dataset of (x, y), a `DataLoader`, or batches as `as_batch` reads them; see
            `split_data`.
        recovery: how to train.
        dense: the network to distil a plain module from, needed when `recovery.distill` is above 0; it is not
            changed. A state has its own.
        penalty: a penalty of your own, in place of one by name (`recovery.penalty`): what it gives is added to the
            loss as it is; see `Penalty`, and `masking` for units that are held at zero.
        network: a trace of a module of the same architecture, for the penalty.
        outcome_of: from the network's output to logits (B, K); when None, the output that counts where one was chosen
            at the trace, else `logits_of`.
        positional: how many positional inputs the network takes.
        seed: 0 or more; of the split, the order, augmentation and dropout.
        checkpoint: a file, written after every epoch and at least every `checkpoint_interval_s` seconds; an
            older one is written over unless `resume`.
        resume: go on from `checkpoint`, which must be of the same network, data, seed and recovery.
        checkpoint_interval_s: 0 writes after every step.
        progress: show a bar on standard error if that is a terminal.
        on_step: called with (epoch, step), both from 1, after every step.

    Raises:
        InputError: arguments or data that cannot be used, a loss or a penalty that is not finite, a checkpoint that
            cannot be written.
        TraceError: a penalty is asked for, and the module cannot be traced.
        FormatError: a checkpoint that is missing, corrupt or of another recovery.
        KeyboardInterrupt: passed on; the last checkpoint stays.
    """
    start = start if isinstance(start, State) else unwrapped(start)
    _check_arguments(start, recovery, dense, penalty, seed, checkpoint, resume)
    given = start.model if isinstance(start, State) else start
    factory = PENALTIES(recovery.penalty) if recovery.penalty is not None else penalty
    read = outcome_of or _chosen(start)
    fabric = _fabric(recovery)
    with repeatable():
        parts = split_data(data, recovery.validation_fraction, recovery.batch_size, seed, positional)
        first = next(parts.train.batches(1))[slice(0, 2)]
        model = _single(given, first)
        teacher = _teacher(start, dense, recovery, first)
        net, logits = _copy(model), _reader(read, widened=has_half(given) and not has_half(model))
        classes = check_first_batch(net, teacher, parts, logits, recovery)
        traced = None if factory is None else network or _traced(start, net, parts)
        job = Job(
            net=net,
            dense=teacher,
            layers=matched_layers(start) if isinstance(start, State) and recovery.follow > 0 else (),
            parts=parts,
            recovery=recovery,
            seed=seed,
            classes=classes,
            channels_last=runs_channels_last(net, teacher, parts, logits),
            logits=logits,
            origin=_origin(model, teacher, parts, recovery, seed, factory, traced),
            checkpoint=None if checkpoint is None else Path(checkpoint),
            checkpoint_interval_s=checkpoint_interval_s,
            resume=resume,
            progress=progress,
            on_step=on_step,
            penalty=factory,
            penalty_weight=1.0 if recovery.penalty is None else recovery.penalty_weight,
            network=traced,
        )
        joined = _in_group()
        try:
            state, best = fabric.launch(train, job)  # type: ignore[arg-type]
        finally:
            if _in_group() and not joined:
                atexit.register(_leave_group)
    recovered = _copy(model)
    files.restore(recovered, best)
    recovered = with_types_of(recovered, given)
    return RecoveryResult(recovered.eval(), state.history, state.best_epoch, state.seconds)


def _check_arguments(
    start: nn.Module | State,
    recovery: Recovery,
    dense: nn.Module | None,
    penalty: PenaltyFactory | None,
    seed: int,
    checkpoint: str | Path | None,
    resume: bool,
) -> None:
    if not isinstance(recovery, Recovery):
        raise InputError(f"recovery={recovery!r:.80}: give a Recovery, such as Recovery(epochs=5)")
    if isinstance(start, State) and dense is not None:
        raise InputError("a state has its dense network: leave dense out, or give the module, state.model")
    if not isinstance(start, State):
        for name in ("distill", "follow"):
            if getattr(recovery, name) > 0 and dense is None:
                raise InputError(
                    f"recovery.{name} is {getattr(recovery, name)} and there is no dense network: give the State "
                    "that pruning left, or dense=… to distil"
                )
        if recovery.follow > 0:
            raise InputError(
                f"recovery.follow is {recovery.follow} and there is no layer to follow: give the State that pruning "
                "left, not its module"
            )
    if penalty is not None and recovery.penalty is not None:
        raise InputError(f"two penalties, {recovery.penalty!r} by name and {name_of(penalty)!r}: leave one out")
    if seed < 0:
        raise InputError(f"seed is {seed}: give 0 or more")
    if resume and checkpoint is None:
        raise InputError("resume needs the checkpoint to go on from: give checkpoint=…")


def _single(model: nn.Module, batch: Batch) -> nn.Module:
    """The model, or a copy in single precision where it has half-precision numbers and runs so."""
    return single(_copy(model), batch.to(device_of(model))) if has_half(model) else model


def _teacher(start: nn.Module | State, dense: nn.Module | None, recovery: Recovery, batch: Batch) -> nn.Module | None:
    """The dense network in evaluation mode, if anything of it is followed."""
    found = start.network.model if isinstance(start, State) else dense
    if found is None or (recovery.distill == 0 and recovery.follow == 0):
        return None
    return _copy(_single(found, batch)).eval().requires_grad_(False)


def _traced(start: nn.Module | State, net: nn.Module, parts: Parts) -> Network:
    """The network whose units a penalty acts on."""
    if isinstance(start, State) and start.is_dense:
        return start.network
    example = start.network.example if isinstance(start, State) else next(parts.train.batches(1))[slice(0, 2)]
    return trace(_copy(net).eval(), example.to(device_of(net)))


def _copy(model: nn.Module) -> nn.Module:
    try:
        return duplicate(model)
    except (RuntimeError, TypeError) as error:
        raise InputError(f"the network {type(model).__name__} cannot be copied: {error}") from error


def _fabric(recovery: Recovery) -> "Fabric":
    # Imported here: it takes a second, which who does not recover need not wait for.
    from lightning_fabric import Fabric
    from lightning_fabric.utilities.exceptions import MisconfigurationException

    try:
        return Fabric(
            accelerator=recovery.accelerator,
            strategy=recovery.strategy,
            devices=recovery.devices,
            precision=recovery.precision,
        )
    except (ValueError, TypeError, RuntimeError, ImportError, MisconfigurationException) as error:
        wanted = recovery.model_dump(include={"accelerator", "devices", "strategy", "precision"})
        raise InputError(f"recovery cannot run on {wanted}: {error}") from error


def _in_group() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized()


def _leave_group() -> None:
    """Ends gloo's threads while Python runs: one that outlives it aborts the process (PyTorch issue 190489)."""
    if _in_group():
        torch.distributed.destroy_process_group()


def _chosen(start: nn.Module | State) -> Callable[[Any], Tensor] | None:
    """How the output is read that was chosen at the trace; None where nothing was chosen.

    Raises:
        InputError: what counts is no vector of logits.
    """
    if not isinstance(start, State):
        return None
    outputs = start.network.outputs
    if not outputs.is_logits:
        raise InputError(f"recovery trains towards classes: {outputs.no_logits()}; give outcome_of=, from it to logits")
    return outputs.logits if outputs.asked else None


def _reader(outcome_of: Callable[[Any], Tensor] | None, *, widened: bool) -> Logits:
    read = outcome_of or logits_of

    def logits(network: nn.Module, batch: Batch) -> Tensor:
        return read(call(network, in_single(batch) if widened else batch))

    return logits


def _origin(
    model: nn.Module,
    dense: nn.Module | None,
    parts: Parts,
    recovery: Recovery,
    seed: int,
    penalty: PenaltyFactory | None,
    network: Network | None,
) -> files.TrainingOrigin:
    batches = {"train_batches": len(parts.train), "validation_batches": len(parts.validation or ())}
    return files.TrainingOrigin(
        recovery=recovery.model_dump(),
        seed=seed,
        data=batches,
        model=files.fingerprint(model),
        dense={} if dense is None else files.fingerprint(dense),
        penalty=None if penalty is None else name_of(penalty),
        units=0 if network is None else len(network.units),
    )
