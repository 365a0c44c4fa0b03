"""The door of the room: a pruned network and training data in, a recovered network out."""

import atexit
from collections.abc import Callable, Sequence
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
from whyprune.recovery.config import Recovery
from whyprune.recovery.features import Twin
from whyprune.recovery.randomness import repeatable
from whyprune.recovery.sources import checked_labels, class_numbers
from whyprune.recovery.split import Parts, split_data
from whyprune.recovery.training import Job, Logits, StepHook, train
from whyprune.results import RecoveryEpoch
from whyprune.structure.copies import duplicate

if TYPE_CHECKING:
    from lightning_fabric import Fabric


@dataclass(frozen=True)
class RecoveryResult:
    """The recovered network, in evaluation mode, and how it got there.

    `best_epoch` counts from 1; `seconds` is the wall time of all epochs, an interrupted run's included.
    """

    model: nn.Module
    history: list[RecoveryEpoch]
    best_epoch: int
    seconds: float


def recover(
    model: nn.Module,
    data: Any,
    recovery: Recovery,
    *,
    dense: nn.Module | None = None,
    layers: Sequence[Twin] = (),
    outcome_of: Callable[[Any], Tensor] | None = None,
    positional: int = 1,
    seed: int = 0,
    checkpoint: str | Path | None = None,
    resume: bool = False,
    checkpoint_interval_s: float = 30.0,
    progress: bool = True,
    on_step: StepHook | None = None,
) -> RecoveryResult:
    """Fine-tunes a pruned network and keeps the epoch that is best on a held-out part of the training data.

    Order, augmentation and dropout are functions of (seed, epoch, step), so a resumed run ends with the
    weights of a run that was never interrupted, bit by bit on the same machine. On a tie the later epoch is
    kept. Without a held-out part the last epoch is kept; without labels (`distill=1`) the lowest held-out
    loss decides.

    Args:
        model: the pruned network; it is not changed. Parameters that require no gradient stay as they are.
        data: a map-style dataset of (x, y), a `DataLoader`, or batches as `as_batch` reads them; see
            `split_data`.
        recovery: how to train.
        dense: the network to distil from; needed when `recovery.distill` or `follow` is above 0; it is not changed.
        layers: what `twins` gives, for `recovery.follow`.
        outcome_of: from the network's output to logits (B, K); `logits_of` when None.
        positional: how many positional inputs the network takes.
        seed: 0 or more; of the split, the order, augmentation and dropout.
        checkpoint: a file, written after every epoch and at least every `checkpoint_interval_s` seconds; an
            older one is written over unless `resume`.
        resume: go on from `checkpoint`, which must be of the same network, data, seed and recovery.
        checkpoint_interval_s: 0 writes after every step.
        progress: show a bar on standard error if that is a terminal.
        on_step: called with (epoch, step), both from 1, after every step.

    Raises:
        InputError: arguments or data that cannot be used, a loss that is not finite, a checkpoint that cannot
            be written.
        FormatError: a checkpoint that is missing, corrupt or of another recovery.
        KeyboardInterrupt: passed on; the last checkpoint stays.
    """
    _check_arguments(recovery, dense, layers, seed, checkpoint, resume)
    leads = dense is not None and (recovery.distill > 0 or recovery.follow > 0)
    teacher = _copy(dense).eval().requires_grad_(False) if dense is not None and leads else None
    net, logits = _copy(model), _reader(outcome_of)
    fabric = _fabric(recovery)
    with repeatable():
        parts = split_data(data, recovery.holdout, recovery.batch_size, seed, positional)
        classes = _check_first_batch(net, teacher, parts, logits, recovery)
        job = Job(
            net=net,
            dense=teacher,
            layers=layers if recovery.follow > 0 else (),
            parts=parts,
            recovery=recovery,
            seed=seed,
            classes=classes,
            channels_last=_runs_channels_last(net, teacher, parts, logits),
            logits=logits,
            asked=_asked(model, teacher, parts, recovery, seed),
            checkpoint=None if checkpoint is None else Path(checkpoint),
            checkpoint_interval_s=checkpoint_interval_s,
            resume=resume,
            progress=progress,
            on_step=on_step,
        )
        joined = _in_group()
        try:
            state, best = fabric.launch(train, job)  # type: ignore[arg-type]
        finally:
            if _in_group() and not joined:
                atexit.register(_leave_group)
    recovered = _copy(model)
    files.restore(recovered, best)
    return RecoveryResult(recovered.eval(), state.history, state.best_epoch, state.seconds)


def _check_arguments(
    recovery: Recovery,
    dense: nn.Module | None,
    layers: Sequence[Twin],
    seed: int,
    checkpoint: str | Path | None,
    resume: bool,
) -> None:
    for name in ("distill", "follow"):
        if getattr(recovery, name) > 0 and dense is None:
            raise InputError(
                f"recovery.{name} is {getattr(recovery, name)} and there is no dense network: give dense=…"
            )
    if recovery.follow > 0 and not layers:
        raise InputError(
            f"recovery.follow is {recovery.follow} and there is no layer to follow: give layers=twins(network, units)"
        )
    if seed < 0:
        raise InputError(f"seed is {seed}: give 0 or more")
    if resume and checkpoint is None:
        raise InputError("resume needs the checkpoint to go on from: give checkpoint=…")


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
        asked = recovery.model_dump(include={"accelerator", "devices", "strategy", "precision"})
        raise InputError(f"recovery cannot run on {asked}: {error}") from error


def _in_group() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized()


def _leave_group() -> None:
    """Ends gloo's threads while Python runs: one that outlives it aborts the process (PyTorch issue 190489)."""
    if _in_group():
        torch.distributed.destroy_process_group()


def _reader(outcome_of: Callable[[Any], Tensor] | None) -> Logits:
    read = outcome_of or logits_of

    def logits(network: nn.Module, batch: Batch) -> Tensor:
        return read(call(network, batch))

    return logits


@torch.no_grad()
def _check_first_batch(
    net: nn.Module, dense: nn.Module | None, parts: Parts, logits: Logits, recovery: Recovery
) -> int:
    """Runs both networks on one batch, so that what cannot work ends here; gives the number of classes K."""
    raw = next(parts.train.batches(1))
    shapes = {
        name: _checked_logits(logits(network.eval(), raw.to(device_of(network))), len(raw), name)
        for name, network in (("the network", net), ("the dense network", dense))
        if network is not None
    }
    if len(set(shapes.values())) > 1:
        raise InputError(f"the logits differ in shape: {shapes}; distil from a network with the same classes")
    classes = shapes["the network"][1]
    checked_labels(raw, classes, needed=recovery.distill < 1)
    if parts.labels is not None:
        class_numbers(parts.labels, classes)
    return classes


@torch.no_grad()
def _runs_channels_last(net: nn.Module, dense: nn.Module | None, parts: Parts, logits: Logits) -> bool:
    """Whether both networks run on images with channels last, which trains faster; `view` on activations does not."""
    raw = next(parts.train.batches(1))[slice(0, 1)]
    if not any(t.dim() == 4 for t in raw.tensors()):
        return False
    try:
        for network in filter(None, (net, dense)):
            logits(network.eval(), raw.to(device_of(network)).channels_last())
    except (RuntimeError, InputError):
        return False
    return True


def _checked_logits(logits: Tensor, rows: int, name: str) -> tuple[int, int]:
    if logits.dim() != 2 or logits.shape[0] != rows:
        raise InputError(f"{name} gives logits of shape {tuple(logits.shape)} for {rows} rows: recovery needs (B, K)")
    if not bool(torch.isfinite(logits).all()):
        raise InputError(f"{name} gives NaN or infinite logits before training: its weights are broken")
    return rows, int(logits.shape[1])


def _asked(model: nn.Module, dense: nn.Module | None, parts: Parts, recovery: Recovery, seed: int) -> files.Asked:
    batches = {"train_batches": len(parts.train), "holdout_batches": len(parts.holdout or ())}
    return files.Asked(
        recovery=recovery.model_dump(),
        seed=seed,
        data=batches,
        model=files.fingerprint(model),
        dense={} if dense is None else files.fingerprint(dense),
    )
