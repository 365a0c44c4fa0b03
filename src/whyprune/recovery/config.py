"""What a recovery is asked to be: one frozen, checked record."""

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, ValidationError

from whyprune.errors import InputError
from whyprune.recovery.penalty import PENALTIES
from whyprune.results import Record

RENAMED = {"warmup": "warmup_fraction", "mixup": "mixup_alpha", "holdout": "validation_fraction"}
"""Earlier names of fields -> their names; the earlier ones are refused."""


class Recovery(Record):
    """How a network is trained, before or after pruning. Steps are optimiser steps; shares and fractions lie in [0, 1].

    Raises:
        InputError: an unknown field, or a value that is not allowed.
    """

    epochs: int = Field(10, ge=1)
    learning_rate: float = Field(0.01, gt=0, allow_inf_nan=False, description="the highest of the schedule")
    momentum: float = Field(0.9, ge=0, lt=1, description="of SGD; AdamW keeps torch's betas")
    weight_decay: float = Field(5e-4, ge=0, allow_inf_nan=False)
    optimizer: Literal["sgd", "adamw"] = "sgd"
    batch_size: int = Field(128, ge=1, description="per device; used when the data comes as single samples")
    warmup_fraction: float = Field(0.0, ge=0, lt=1, description="share of all steps with a rising learning rate")
    distill: float = Field(0.0, ge=0, le=1, description="share of the loss on the dense network's logits")
    temperature: float = Field(4.0, gt=0, allow_inf_nan=False, description="softens both logits when distilling")
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    follow: float = Field(
        0.0, ge=0, allow_inf_nan=False, description="weight of the loss on the dense network's channels"
    )
    mixup_alpha: float = Field(
        0.0, ge=0, allow_inf_nan=False, description="of the shares of images in pairs; 0 for none, 1 for even ones"
    )
    validation_fraction: float = Field(
        0.1, ge=0, lt=1, description="share of the training data that chooses the best epoch"
    )
    penalty: str | None = Field(None, description="a name in PENALTIES: what makes whole units small")
    penalty_weight: float = Field(0.0, ge=0, allow_inf_nan=False, description="of the penalty, in the loss")
    clip_grad_norm: float | None = Field(None, gt=0, allow_inf_nan=False)
    ema: float | None = Field(None, gt=0, lt=1, description="per-step decay of averaged weights, which are kept")
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"
    accelerator: str = Field("auto", description="as Lightning Fabric names it: cpu, cuda, mps, auto")
    devices: int | str = Field(1, description="how many, or which ('0,2'), or 'auto'")
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
            if self.penalty is None and self.penalty_weight > 0:
                raise InputError(
                    f"recovery: penalty_weight is {self.penalty_weight} and there is no penalty: "
                    f"choose one from {', '.join(PENALTIES)}"
                )


def first_problem(error: ValidationError) -> str:
    """The first thing pydantic found wrong, in one line: field, value, rule."""
    problem = error.errors(include_url=False)[0]
    field = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        return f"there is no field {field!r}; the fields are {', '.join(Recovery.model_fields)}"
    return f"{field} is {problem['input']!r}: {problem['msg']}"
