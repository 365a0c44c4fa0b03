"""The training loop: steps, validation, the best weights, checkpoints."""

import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from whyprune.data.batches import Batch
from whyprune.errors import DivergedError, InputError
from whyprune.progress import Progress
from whyprune.recovery import checkpoint as files
from whyprune.recovery.features import Tap, feature_loss
from whyprune.recovery.job import Job, Validation
from whyprune.recovery.mixup import Mixture, mixed
from whyprune.recovery.objective import learning_rate_at, recovery_loss
from whyprune.recovery.optimizer import make_average, make_optimizer, optimizer_tensors, restore_optimizer
from whyprune.recovery.randomness import Stream, generator, seed_all
from whyprune.recovery.sources import checked_labels
from whyprune.recovery.terms import PenaltyTerm
from whyprune.results import RecoveryEpoch

if TYPE_CHECKING:
    from lightning_fabric import Fabric


def train(fabric: "Fabric", job: Job) -> tuple[files.TrainingState, files.Tensors]:
    """Runs a recovery to its end on the devices of `fabric`.

    Returns:
        The last state, and the best epoch's parameters and buffers, on the CPU.
    """
    training = Training(fabric, job)
    training.start()
    with Progress(job.progress and fabric.is_global_zero) as bars:
        total = job.recovery.epochs * training.steps
        bar = bars.add("recover", total, (training.state.epoch - 1) * training.steps + training.state.step)
        while training.state.epoch <= job.recovery.epochs:
            for loss in training.rest_of_epoch():
                bars.advance(bar, description=training.describe(loss))
            training.end_epoch()
    return training.state, fabric.broadcast(training.best)


class Training:
    """A recovery under way: networks and optimiser on their device, and where it stands."""

    def __init__(self, fabric: "Fabric", job: Job) -> None:
        self.fabric, self.job = fabric, job
        self.steps = len(job.parts.train) // fabric.world_size
        if self.steps == 0:
            raise InputError(
                f"{len(job.parts.train)} training batch(es) for {fabric.world_size} devices: every device "
                "needs one; use smaller batches or fewer devices"
            )
        self.net = self._laid_out(fabric.to_device(job.net))
        self.dense = None if job.dense is None else self._laid_out(fabric.to_device(job.dense))
        self._taps = None
        if job.layers and self.dense is not None:
            self._taps = Tap(self.net, job.layers), Tap(self.dense, job.layers)
        self.wrapped, self.optimizer = fabric.setup(self.net, make_optimizer(self.net, job.recovery))
        self.penalty = None
        if job.penalty is not None and job.network is not None:
            self.penalty = PenaltyTerm.of(job.penalty, self.net, job.network, job.penalty_weight)
        self.average = None if job.recovery.ema is None else make_average(self.net, job.recovery.ema, fabric.device)
        self.state = files.TrainingState()
        self.best: files.Tensors = {}
        self._began = self._saved = time.monotonic()

    def start(self) -> None:
        """Goes on from the checkpoint when resuming; else writes the first one, which proves that it can."""
        if self.job.resume and self.job.checkpoint is not None:
            self._load(self.job.checkpoint)
        else:
            self._save()
        self._began = time.monotonic()

    def rest_of_epoch(self) -> Iterator[float]:
        """Runs the steps of the epoch that are left; gives the loss of each."""
        fabric, state = self.fabric, self.state
        batches = self.job.parts.train.batches(state.epoch, state.step, fabric.global_rank, fabric.world_size)
        self.net.train()
        for batch in batches:
            loss, penalty = self._step(batch)
            self._advance(
                step=self.state.step + 1,
                loss_sum=self.state.loss_sum + loss,
                penalty_sum=self.state.penalty_sum + penalty,
            )
            if time.monotonic() - self._saved >= self.job.checkpoint_interval_s:
                self._save()
            if self.job.on_step is not None:
                self.job.on_step(self.state.epoch, self.state.step)
            yield loss

    def end_epoch(self) -> None:
        """Evaluates the validation part, keeps the weights if no epoch was better, writes the checkpoint."""
        found = self.fabric.broadcast(self._evaluate() if self.fabric.is_global_zero else None)
        self._advance()
        state = self.state
        record = RecoveryEpoch(
            epoch=state.epoch,
            train_loss=state.loss_sum / self.steps,
            validation_top1_percent=None if found is None else found.top1_percent,
            learning_rate=self._learning_rate(state.step - 1),
            seconds=state.epoch_seconds,
            penalty=None if self.penalty is None else state.penalty_sum / self.steps,
        )
        changes: dict[str, float | None] = {
            "epoch": state.epoch + 1,
            "step": 0,
            "loss_sum": 0.0,
            "penalty_sum": 0.0,
            "epoch_seconds": 0.0,
        }
        # Without a validation part, and on a tie, the later epoch: its learning rate was lower.
        if found is None or state.best_score is None or found.score >= state.best_score:
            self.best = files.snapshot(self._kept())
            changes |= {"best_epoch": state.epoch, "best_score": None if found is None else found.score}
        self.state = state.model_copy(update=changes | {"history": [*state.history, record]})
        self._save()

    def describe(self, loss: float) -> str:
        """One line for the progress bar."""
        top1 = self.state.history[-1].validation_top1_percent if self.state.history else None
        accuracy = "" if top1 is None else f", validation accuracy {top1:.2f}%"
        return f"recover: epoch {self.state.epoch}/{self.job.recovery.epochs}, loss {loss:.3f}{accuracy}"

    def _step(self, batch: Batch) -> tuple[float, float]:
        """One optimiser step; the loss over all devices, and the penalty before its weight."""
        state, recovery = self.state, self.job.recovery
        for group in self.optimizer.param_groups:
            group["lr"] = self._learning_rate(state.step)
        key = (self.job.seed, state.epoch, state.step, self.fabric.global_rank)
        batch, mixture = self._mixed(self._ready(batch), key)
        seed_all(Stream.MODEL, *key)
        loss = self._loss(self._logits(self.wrapped, batch), batch, mixture)
        if self._taps is not None:
            loss = loss + recovery.follow * feature_loss(*self._taps)
        penalty = 0.0
        if self.penalty is not None:
            term = self.penalty(f"epoch {state.epoch}, step {state.step + 1}")
            loss, penalty = loss + self.penalty.weight * term, float(term.detach())
        mean = self.fabric.all_reduce(loss.detach(), reduce_op="mean")
        value = float(cast(Tensor, mean))
        if not math.isfinite(value):
            raise DivergedError(self._diverged(f"epoch {state.epoch}, step {state.step + 1}", value))
        self.fabric.backward(loss)
        if recovery.clip_grad_norm is not None:
            self.fabric.clip_gradients(
                self.wrapped, self.optimizer, max_norm=recovery.clip_grad_norm, error_if_nonfinite=False
            )
        self.optimizer.step()
        self.optimizer.zero_grad()
        if self.penalty is not None:
            done = (state.epoch - 1) * self.steps + state.step + 1
            self.penalty.after_step(done, self.job.recovery.epochs * self.steps)
        if self.average is not None:
            self.average.update_parameters(self.net)
        return value, penalty

    @torch.no_grad()
    def _evaluate(self) -> Validation | None:
        if self.job.parts.validation is None:
            return None
        network = self._kept().eval()
        loss = right = rows = 0.0
        labelled = True
        for raw in self.job.parts.validation.batches(0):
            batch = self._ready(raw)
            logits = self._logits(network, batch)
            loss += float(self._loss(logits, batch)) * len(batch)
            rows += len(batch)
            labelled = labelled and batch.labels is not None
            right += 0 if batch.labels is None else int((logits.argmax(1) == batch.labels).sum())
        if not math.isfinite(loss):
            raise DivergedError(self._diverged(f"the validation part after epoch {self.state.epoch}", loss))
        return Validation(loss / rows, 100 * right / rows if labelled else None)

    def _mixed(self, batch: Batch, key: tuple[int, ...]) -> tuple[Batch, Mixture | None]:
        alpha = self.job.recovery.mixup_alpha
        return mixed(batch, alpha, generator(Stream.MIXUP, *key)) if alpha > 0 else (batch, None)

    def _loss(self, logits: Tensor, batch: Batch, mixture: Mixture | None = None) -> Tensor:
        dense_logits = None
        if self.dense is not None:
            with torch.no_grad():
                dense_logits = self._logits(self.dense, batch)
        return recovery_loss(logits, batch.labels, dense_logits, self.job.recovery, mixture)

    def _logits(self, network: nn.Module, batch: Batch) -> Tensor:
        with self.fabric.autocast():
            logits = self.job.logits(network, batch)
        return logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits

    def _ready(self, batch: Batch) -> Batch:
        # Labels are checked before the move: on the GPU the check would wait for the device.
        checked = checked_labels(batch, self.job.classes, needed=self.job.recovery.distill < 1)
        moved = cast(Batch, self.fabric.to_device(checked))
        return moved.channels_last() if self.job.channels_last else moved

    def _laid_out(self, network: nn.Module) -> nn.Module:
        return network.to(memory_format=torch.channels_last) if self.job.channels_last else network  # type: ignore[call-overload]

    def _kept(self) -> nn.Module:
        return self.net if self.average is None else self.average.module

    def _learning_rate(self, step: int) -> float:
        recovery = self.job.recovery
        done = (self.state.epoch - 1) * self.steps + step
        return learning_rate_at(done, recovery.epochs * self.steps, recovery.learning_rate, recovery.warmup_fraction)

    def _advance(self, **changes: float) -> None:
        now = time.monotonic()
        passed, self._began = now - self._began, now
        clocks = {"seconds": self.state.seconds + passed, "epoch_seconds": self.state.epoch_seconds + passed}
        self.state = self.state.model_copy(update=changes | clocks)

    def _diverged(self, where: str, value: float) -> str:
        rate = self.job.recovery.learning_rate
        return f"the loss is {value} in {where}: use a lower learning_rate (it is {rate}) or set clip_grad_norm"

    def _save(self) -> None:
        self._saved = time.monotonic()
        if self.job.checkpoint is None or not self.fabric.is_global_zero:
            return
        average = {} if self.average is None else files.snapshot(self.average)
        tensors = (
            files.prefixed("model", files.snapshot(self.net))
            | files.prefixed("best", self.best)
            | files.prefixed("average", average)
            | files.prefixed("optimizer", optimizer_tensors(self.optimizer))
        )
        scaler = self.fabric.strategy.precision.state_dict()
        files.write(self.job.checkpoint, files.Saved(origin=self.job.origin, state=self.state, scaler=scaler), tensors)

    def _load(self, path: Path) -> None:
        saved, tensors = files.read(path, self.job.origin)
        files.restore(self.net, files.under("model", tensors))
        if self.average is not None:
            files.restore(self.average, files.under("average", tensors))
        restore_optimizer(self.optimizer, files.under("optimizer", tensors))
        self.fabric.strategy.precision.load_state_dict(saved.scaler)
        self.best, self.state = files.under("best", tensors), saved.state
