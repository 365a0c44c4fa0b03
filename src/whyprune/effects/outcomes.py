"""Outcomes: what an intervention is judged by, one number per image, higher meaning more harm.

An outcome is called with what the network gives under the intervention, what the dense network gives on the same
images and, where it needs them, labels. `fit` gives it what it must know of the dense network once, on the calibration
images. Outcomes of logits are shown logits (B, K). A function or an outcome of the user's own is shown what the model
returns, whatever that is: a tensor, a tuple, a dict. `OutputShift` is shown rows (B, F) (see `OutputLayout`).
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol, Self, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor

from whyprune.effects.output_shift import OutputShift, finite
from whyprune.errors import InputError, WhypruneError
from whyprune.structure.network import Network
from whyprune.structure.outputs import OutputLayout
from whyprune.structure.state import State

OutcomeFunction = Callable[[Any, Any, Tensor | None], Tensor]
"""(what the model returns under the intervention, what the dense model returns, labels) -> harm per image, (B,)."""


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

    def fit(self, dense: Any, /) -> "Outcome":
        """The outcome, knowing what the dense model returns for the calibration images."""
        ...

    def __call__(self, output: Any, dense: Any, labels: Tensor | None, /) -> Tensor:
        """Harm per image, (B,), from what the model returns, what the dense one does, and labels."""
        ...


@runtime_checkable
class Quadratic(Protocol):
    """An outcome that is |z - z'|² / scale, z being linear in rows: known to second order wherever it is asked."""

    @property
    def scale(self) -> float | None:
        """What squared distances are divided by; None for an outcome that is not fitted yet."""
        ...

    def directions(self, rows: Tensor, /) -> Tensor:
        """z, (B, F), from rows."""
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
        finite(dense)
        flat = centred(dense.double())
        spread = float((flat - flat.mean(dim=0)).square().sum(dim=-1).mean())
        rounding = (8 * torch.finfo(dense.dtype).eps) ** 2 * float(dense.double().square().sum(dim=-1).mean())
        if not spread > rounding:
            raise InputError("the dense network gives the same logits for every calibration image: it has no outcome")
        return replace(self, scale=spread)

    def directions(self, rows: Tensor) -> Tensor:
        """The centred logits."""
        return centred(rows)

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

    def __call__(self, output: Any, dense: Any, labels: Tensor | None, /) -> Tensor:
        try:
            harm: object = self.function(output, dense, labels)
        except WhypruneError:
            raise
        except Exception as error:
            raise InputError(
                f"outcome {self.name} failed ({type(error).__name__}: {error!s:.200}): it is called as (output, "
                "dense_output, labels), the outputs being what the model returns, the labels None where there are none"
            ) from error
        if not isinstance(harm, Tensor) or harm.dim() != 1:
            given = f"shape {tuple(harm.shape)}" if isinstance(harm, Tensor) else f"a {type(harm).__name__}"
            raise InputError(f"outcome {self.name} gave {given}: give one number per image, as a tensor (B,)")
        return harm


@dataclass(frozen=True)
class Shown:
    """A user's outcome on rows: it is shown what the model returns, made from them again.

    Attributes:
        outcome: the user's.
        layout: of the model's output, whole.
    """

    outcome: Outcome
    layout: OutputLayout

    @property
    def name(self) -> str:
        """The user's name for it."""
        return self.outcome.name

    @property
    def needs_labels(self) -> bool:
        """Whether it can only be called with labels."""
        return self.outcome.needs_labels

    def fit(self, dense: Tensor, /) -> "Shown":
        """The user's outcome, fitted to what the dense model returns for all images."""
        return replace(self, outcome=self.outcome.fit(self.layout.raw(dense)))

    def __call__(self, rows: Tensor, dense: Tensor, labels: Tensor | None, /) -> Tensor:
        """Harm per image.

        Raises:
            InputError: the outcome gives something else than one number per image.
        """
        harm: object = self.outcome(self.layout.raw(rows), self.layout.raw(dense), labels)
        if not isinstance(harm, Tensor) or harm.shape != rows.shape[:1]:
            given = f"shape {tuple(harm.shape)}" if isinstance(harm, Tensor) else f"a {type(harm).__name__}"
            raise InputError(f"outcome {self.name} gave {given}: give one number per image, as a tensor (B,)")
        if not bool(torch.isfinite(harm).all()):
            raise InputError(f"outcome {self.name} gave NaN or infinite harm: give one finite number per image")
        return harm if harm.is_floating_point() else harm.to(rows.dtype)


OUTCOMES: dict[str, Callable[[], Outcome]] = {
    "logit-shift": LogitShift,
    "output-shift": OutputShift,
    "cross-entropy": CrossEntropy,
    "margin": Margin,
    "prediction-change": PredictionChange,
}
OF_LOGITS = (LogitShift, CrossEntropy, Margin, PredictionChange, ClassLogit)


def as_outcome(outcome: Outcome | str | OutcomeFunction | None, layout: OutputLayout | None = None) -> Outcome:
    """An outcome from itself, its name or a function `(output, dense output, labels) -> harm per image`.

    Args:
        outcome: what harm is; None for `LogitShift` where the output is a vector of logits, else `OutputShift`.
        layout: of the network's output: the outcome is then one of rows (B, F).

    Raises:
        InputError: the name is unknown, or the outcome cannot be told from such an output.
    """
    if outcome is None:
        chosen: Outcome = LogitShift() if layout is None or layout.is_logits else OutputShift()
    elif isinstance(outcome, str):
        if outcome not in OUTCOMES:
            raise InputError(f"no outcome named {outcome!r}: choose from {', '.join(OUTCOMES)}, or give a function")
        chosen = OUTCOMES[outcome]()
    elif isinstance(outcome, Outcome) and not isinstance(outcome, type):
        chosen = outcome
    elif callable(outcome) and not isinstance(outcome, type):
        chosen = _Custom(outcome)
    else:
        raise InputError(f"an outcome is a name, an instance or a function, not {outcome!r:.80}")
    return chosen if layout is None else _on_rows(chosen, layout)


def judged(start: Network | State, outcome: Outcome | str | OutcomeFunction | None) -> tuple[State, Outcome]:
    """The state, whose rows hold what an outcome sees, and the outcome as one of these rows; not fitted yet."""
    state = State.of(start)
    chosen = as_outcome(outcome, state.network.outputs)
    layout = state.network.outputs.for_all(isinstance(chosen, Shown))
    if layout is state.network.outputs:
        return state, chosen
    network = replace(state.network, outputs=layout)
    return State(network, state.model, state.removed, likeness=False), as_outcome(chosen, layout)


def _on_rows(outcome: Outcome, layout: OutputLayout) -> Outcome:
    if isinstance(outcome, OutputShift):
        return outcome.of(layout)
    if isinstance(outcome, OF_LOGITS):
        if not layout.is_logits:
            raise InputError(
                f"outcome {outcome.name} is one of logits: {layout.no_logits()}; use 'output-shift', a function of "
                "your own, or choose an output with outputs=…"
            )
        return outcome
    return Shown(outcome.outcome if isinstance(outcome, Shown) else outcome, layout.for_all())


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
