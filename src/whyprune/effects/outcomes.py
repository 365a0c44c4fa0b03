"""Outcomes: what an intervention is judged by, one number per image, higher meaning more harm.

An outcome is called with the logits under the intervention, the dense network's logits on the same images
and, where it needs them, labels. `fit` gives it what it must know of the dense network once, on the calibration
images.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol, Self, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor

from whyprune.errors import InputError

OutcomeFunction = Callable[[Tensor, Tensor, Tensor | None], Tensor]


@runtime_checkable
class Outcome(Protocol):
    """The contract of an outcome; `name` identifies it in results."""

    @property
    def name(self) -> str:
        """What results call it."""
        ...

    @property
    def needs_labels(self) -> bool:
        """Whether it can only be called with labels."""
        ...

    def fit(self, dense: Tensor, /) -> "Outcome":
        """The outcome, knowing the dense logits (N, K) of the calibration images."""
        ...

    def __call__(self, logits: Tensor, dense: Tensor, labels: Tensor | None, /) -> Tensor:
        """Harm per image, (B,), from logits (B, K), dense logits (B, K) and labels (B,)."""
        ...


class _FitsAnyNetwork:
    """An outcome that need not know anything of the dense network beforehand."""

    def fit(self, _dense: Tensor, /) -> Self:
        """The outcome itself."""
        return self


def centred(logits: Tensor) -> Tensor:
    """Logits less their mean over classes: what softmax and argmax can see of them."""
    return logits - logits.mean(dim=-1, keepdim=True)


@dataclass(frozen=True)
class LogitShift:
    """Squared distance of centred logits to the dense network's, over the variance of the dense logits.

    0 means unchanged; 1 means as far off as two images' logits are from their mean. Needs no labels. It stays
    informative on images the network was trained on, where cross-entropy and KL divergence are saturated.
    """

    scale: float | None = None
    name: str = "logit-shift"
    needs_labels: bool = False

    def fit(self, dense: Tensor, /) -> "LogitShift":
        """Takes the scale from the dense logits."""
        if len(dense) < 2:
            raise InputError(f"{len(dense)} image(s) of data: at least 2 are needed to see how far logits spread")
        flat = centred(dense.double())
        spread = float((flat - flat.mean(dim=0)).square().sum(dim=-1).mean())
        rounding = (8 * torch.finfo(dense.dtype).eps) ** 2 * float(dense.double().square().sum(dim=-1).mean())
        if not spread > rounding:
            raise InputError("the dense network gives the same logits for every calibration image: it has no outcome")
        return replace(self, scale=spread)

    def __call__(self, logits: Tensor, dense: Tensor, _labels: Tensor | None, /) -> Tensor:
        """Harm per image."""
        if self.scale is None:
            raise InputError("LogitShift has no scale yet: call fit with the dense logits first")
        return (centred(logits) - centred(dense)).square().sum(dim=-1) / self.scale


@dataclass(frozen=True)
class CrossEntropy(_FitsAnyNetwork):
    """Cross-entropy of the labels, in nats."""

    name: str = "cross-entropy"
    needs_labels: bool = True

    def __call__(self, logits: Tensor, _dense: Tensor, labels: Tensor | None, /) -> Tensor:
        """Harm per image."""
        return F.cross_entropy(logits, _class_labels(labels, logits, self.name), reduction="none")


@dataclass(frozen=True)
class Margin(_FitsAnyNetwork):
    """How far the label's logit is behind the best other one: the classification margin with its sign turned."""

    name: str = "margin"
    needs_labels: bool = True

    def __call__(self, logits: Tensor, _dense: Tensor, labels: Tensor | None, /) -> Tensor:
        """Harm per image."""
        own = _class_labels(labels, logits, self.name).unsqueeze(-1)
        others = logits.scatter(-1, own, -torch.inf).amax(dim=-1)
        return others - logits.gather(-1, own).squeeze(-1)


@dataclass(frozen=True)
class PredictionChange(_FitsAnyNetwork):
    """1 where the predicted class differs from the dense network's, else 0. Needs no labels."""

    name: str = "prediction-change"
    needs_labels: bool = False

    def __call__(self, logits: Tensor, dense: Tensor, _labels: Tensor | None, /) -> Tensor:
        """Harm per image."""
        return (logits.argmax(dim=-1) != dense.argmax(dim=-1)).to(logits.dtype)


@dataclass(frozen=True)
class ClassLogit:
    """How far the centred logit of one class falls below the dense network's. Needs no labels."""

    index: int
    needs_labels: bool = False

    @property
    def name(self) -> str:
        """`class-logit-K`."""
        return f"class-logit-{self.index}"

    def fit(self, dense: Tensor, /) -> "ClassLogit":
        """Checks that the class exists."""
        if not 0 <= self.index < dense.shape[-1]:
            raise InputError(f"class {self.index} does not exist: the network has {dense.shape[-1]} classes")
        return self

    def __call__(self, logits: Tensor, dense: Tensor, _labels: Tensor | None, /) -> Tensor:
        """Harm per image."""
        return (centred(dense) - centred(logits))[..., self.index]


@dataclass(frozen=True)
class _Custom(_FitsAnyNetwork):
    """A user's function as an outcome."""

    function: OutcomeFunction
    needs_labels: bool = False

    @property
    def name(self) -> str:
        return str(getattr(self.function, "__name__", type(self.function).__name__))

    def __call__(self, logits: Tensor, dense: Tensor, labels: Tensor | None, /) -> Tensor:
        harm = self.function(logits, dense, labels)
        if not isinstance(harm, Tensor) or harm.shape != logits.shape[:1]:
            given = f"shape {tuple(harm.shape)}" if isinstance(harm, Tensor) else f"a {type(harm).__name__}"
            raise InputError(f"outcome {self.name} gave {given}: give one number per image, as a tensor (B,)")
        return harm


OUTCOMES: dict[str, Callable[[], Outcome]] = {
    "logit-shift": LogitShift,
    "cross-entropy": CrossEntropy,
    "margin": Margin,
    "prediction-change": PredictionChange,
}


def as_outcome(outcome: Outcome | str | OutcomeFunction | None) -> Outcome:
    """An outcome from itself, its name or a function `(logits, dense logits, labels) -> harm per image`.

    Raises:
        InputError: the name is unknown.
    """
    if outcome is None:
        return LogitShift()
    if isinstance(outcome, str):
        if outcome not in OUTCOMES:
            raise InputError(f"no outcome named {outcome!r}: choose from {', '.join(OUTCOMES)}, or give a function")
        return OUTCOMES[outcome]()
    if isinstance(outcome, Outcome) and not isinstance(outcome, type):
        return outcome
    if callable(outcome) and not isinstance(outcome, type):
        return _Custom(outcome)
    raise InputError(f"an outcome is a name, an instance or a function, not {outcome!r:.80}")


def _class_labels(labels: Tensor | None, logits: Tensor, name: str) -> Tensor:
    if labels is None:
        raise InputError(f"outcome {name} needs labels: give (inputs, labels) batches, or outcome='logit-shift'")
    classes = logits.shape[-1]
    if labels.is_floating_point() or labels.shape != logits.shape[:-1]:
        raise InputError(
            f"outcome {name} needs one integer label per image, not {labels.dtype} of shape {tuple(labels.shape)}"
        )
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < classes:
        raise InputError(
            f"the labels run from {int(labels.min())} to {int(labels.max())}: the network has {classes} classes"
        )
    return labels.long()
