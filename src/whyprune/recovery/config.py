"""What a recovery is asked to be: one frozen, checked record."""

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, ValidationError

from whyprune.errors import InputError
from whyprune.fields import OneOf
from whyprune.recovery.penalty import PENALTIES
from whyprune.results import Record

FROM_SCRATCH = {"sgd": 0.1, "adamw": 1e-3}
"""Optimiser -> the learning rate for drawn weights, unless another is asked for."""
WARMUP = 0.05
RENAMED = {"warmup": "warmup_fraction", "mixup": "mixup_alpha", "holdout": "validation_fraction"}
"""Earlier names of fields -> their names; the earlier ones are refused."""


class Recovery(Record):
    """How a network is trained, before or after pruning. Steps are optimiser steps; shares and fractions lie in 0 to 1.

    Attributes:
        epochs: passes over the training split.
        learning_rate: the highest of its cosine schedule.
        momentum: of SGD; AdamW keeps torch's betas.
        weight_decay: pull of weights towards zero.
        optimizer: how steps are made.
        batch_size: images per step and device; data that comes in batches keeps its own.
        warmup_fraction: share of all steps with a rising learning rate.
        distill: share of the loss that follows the dense network's logits instead of the labels.
        temperature: softens both networks' logits when distilling.
        label_smoothing: share of each label spread over all classes.
        follow: weight of the loss that follows the dense network's channels, layer by layer.
        mixup_alpha: train on images in pairs, one shining through the other: 0 for none, 1 for even shares.
        validation_fraction: share of the training split that is kept apart to choose the best epoch.
        penalty: what is added to the loss so that whole units become small.
        penalty_weight: of the penalty, in the loss.
        clip_grad_norm: the largest norm of a step's gradient; default: gradients are not clipped.
        ema: decay per step of averaged weights, which are kept instead of the last ones; default: no average.
        precision: number format of the training.
        accelerator: as Lightning Fabric names it: cpu, cuda, mps, auto.
        devices: how many devices, which (0,2), or auto.
        strategy: how Lightning Fabric spreads the training over devices.

    Raises:
        InputError: an unknown field, or a value that is not allowed.
    """

    epochs: int = Field(10, ge=1)
    learning_rate: float = Field(0.01, gt=0, allow_inf_nan=False)
    momentum: float = Field(0.9, ge=0, lt=1)
    weight_decay: float = Field(5e-4, ge=0, allow_inf_nan=False)
    optimizer: Literal["sgd", "adamw"] = "sgd"
    batch_size: int = Field(128, ge=1)
    warmup_fraction: float = Field(0.0, ge=0, lt=1)
    distill: float = Field(0.0, ge=0, le=1)
    temperature: float = Field(4.0, gt=0, allow_inf_nan=False)
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    follow: float = Field(0.0, ge=0, allow_inf_nan=False)
    mixup_alpha: float = Field(0.0, ge=0, allow_inf_nan=False)
    validation_fraction: float = Field(0.1, ge=0, lt=1)
    penalty: Annotated[str | None, OneOf(PENALTIES)] = None
    penalty_weight: float = Field(0.0, ge=0, allow_inf_nan=False)
    clip_grad_norm: float | None = Field(None, gt=0, allow_inf_nan=False)
    ema: float | None = Field(None, gt=0, lt=1)
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"
    accelerator: str = "auto"
    devices: int | str = 1
    strategy: Literal["auto", "ddp", "ddp_find_unused_parameters_true", "ddp_fork", "ddp_notebook"] = "auto"

    if not TYPE_CHECKING:  # type checkers keep the signature made from the fields

        def __init__(self, **fields: Any) -> None:
            for name in fields.keys() & RENAMED.keys():
                raise InputError(f"recovery: the field {name!r} is called {RENAMED[name]!r} now")
            try:
                super().__init__(**fields)
            except ValidationError as error:
                raise InputError(f"recovery: {first_problem(error)}") from None
            if self.penalty is not None and self.penalty not in PENALTIES:
                PENALTIES(self.penalty)
            if self.penalty is not None and not self.penalty_weight > 0:
                raise InputError(
                    f"recovery: the penalty {self.penalty!r} has no weight: give penalty_weight, such as 1e-4"
                )
            if self.penalty is None and self.penalty_weight > 0:
                raise InputError(
                    f"recovery: penalty_weight is {self.penalty_weight} and there is no penalty: "
                    f"choose one from {', '.join(PENALTIES)}"
                )


def from_scratch(recovery: Recovery) -> Recovery:
    """The same training for weights that are drawn: with a higher, at first rising learning rate, unless asked for."""
    usual = {"learning_rate": FROM_SCRATCH[recovery.optimizer], "warmup_fraction": WARMUP}
    return recovery.model_copy(update={k: v for k, v in usual.items() if k not in recovery.model_fields_set})


def first_problem(error: ValidationError) -> str:
    """The first thing pydantic found wrong, in one line: field, value, rule."""
    problem = error.errors(include_url=False)[0]
    field = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        return f"there is no field {field!r}; the fields are {', '.join(Recovery.model_fields)}"
    return f"{field} is {problem['input']!r}: {problem['msg']}"
