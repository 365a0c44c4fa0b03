"""What every scorer is asked, what it answers, and what it says of itself."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol, get_args

import numpy as np

from whyprune.data.batches import Batch
from whyprune.effects.effects import Effects
from whyprune.effects.outcomes import Outcome
from whyprune.errors import InputError
from whyprune.fields import check_fields
from whyprune.interventions.values import CONSTANT, InterventionValue
from whyprune.named import check_installed
from whyprune.structure.network import Network
from whyprune.structure.state import State

ALL_INTERVENTIONS: tuple[str, ...] = get_args(InterventionValue)
CONSTANT_INTERVENTIONS: tuple[str, ...] = CONSTANT
Scaling = Literal["", "invariant", "proportional", "dependent"]
Duplicates = Literal["", "alike", "one-first"]
WITHOUT_CARRIED = tuple(value for value in ALL_INTERVENTIONS if value != "carried")


@dataclass(frozen=True)
class Question:
    """What a scorer is asked for.

    Attributes:
        outcome: what harm is; None for `LogitShift`, where the output is no vector of logits `OutputShift`.
        intervention: the value v of do(unit := v); None for the scorer's own default.
        units: names of the units to judge; None for all that are still there.
        per_image: keep individual effects, where the scorer has them.
        forward_passes: most dense forward passes of one image to spend, all in all; None for the scorer's own
            default. Scorers that run interventions keep to it, up to one round of their work.
        rate: probability with which other units are gone, for `context` effects; None for the default.
        kinds: the kinds of decision variables to judge: `width`, and `block` where residual blocks may go as a whole.
        reduction: over the coupled slices of a unit: `mean`, `sum` or `max`; None for the scorer's own.
        seed: of everything drawn.
        progress: show a progress bar.
    """

    outcome: Outcome | str | None = None
    intervention: str | None = None
    units: tuple[str, ...] | None = None
    per_image: bool = False
    forward_passes: float | None = None
    rate: float | None = None
    kinds: tuple[str, ...] = ("width",)
    reduction: str | None = None
    seed: int = 0
    progress: bool = False


class Scorer(Protocol):
    """From a state, images and a question to effects: higher means more harm when the unit goes."""

    def __call__(self, state: State, batches: Sequence[Batch], question: Question, /) -> Effects:
        """Judges units that are still there.

        Raises:
            InputError: data, names, a question or a budget that cannot be honoured.
        """
        ...


@dataclass(frozen=True)
class ScorerFacts:
    """What a scorer says of itself; tables of methods are written from this, and questions are held against it.

    Attributes:
        kind: `criterion` (a score that estimates no effect), `estimator` (an effect with an interval or a claim), or
            `curves` (response curves of whole groups).
        summary: what it does, in one sentence without a full stop.
        estimand: which effect it estimates, in words.
        cost: what it costs, in words.
        guarantee: what holds of its numbers, in words.
        paper: where it comes from.
        images: whether it looks at images.
        labels: `no`, `outcome` (if the outcome needs them) or `yes`.
        gradients: whether it takes derivatives of the network.
        interventions: those it can honour, its default first; empty where it has none.
        rated: whether it honours `rate`.
        individual: whether it can keep effects per image.
        kinds: the kinds of decision variables it can judge.
        reduces: whether it scores slices of coupled weights or tensors, and honours `reduction`.
        scaling: what a factor c > 0 that a layer takes over from its readers does to scores, behind a ReLU, where it
            leaves the function as it is: `invariant` (nothing, but for ties), `proportional` (all of the group by one
            factor: their order stays), `dependent` (their order may change); empty where nothing is said.
        duplicates: how exact copies of a unit are scored: `alike` (a copy is no reason to go), `one-first` (of two
            one goes first, and the other is worth what both were); empty where nothing is said.
        drawn: whether it draws for every unit by its place, so that the same units in another order get other draws:
            then only what the intervals say stays.
        natural_widths: whether it says how many units of a group are distinct.
        most_images: images of a run it is given at most; None for `Settings.effect_images`, 0 for all there are.
        libraries: optional ones that it imports, as modules are called.
        extra: the optional dependency that brings them.
        judge: the scorer whose answers a refutation measures again; empty for itself.
        causal: the name of its causal variant; empty where it has none.
    """

    kind: Literal["criterion", "estimator", "curves"]
    summary: str
    estimand: str
    cost: str
    guarantee: str
    paper: str = ""
    images: bool = True
    labels: Literal["no", "outcome", "yes"] = "outcome"
    gradients: bool = False
    interventions: tuple[str, ...] = ()
    rated: bool = False
    individual: bool = False
    kinds: tuple[str, ...] = ("width",)
    reduces: bool = False
    scaling: Scaling = ""
    duplicates: Duplicates = ""
    drawn: bool = False
    natural_widths: bool = False
    most_images: int | None = None
    libraries: tuple[str, ...] = ()
    extra: str = ""
    judge: str = ""
    causal: str = ""

    def __post_init__(self) -> None:
        check_fields(self)

    def check_libraries(self, who: str) -> None:
        """Refuses a scorer whose optional libraries are not there, before any work.

        Raises:
            MissingDependencyError: names them, and the extra that brings them.
        """
        check_installed(who, self.libraries, self.extra)


@dataclass(frozen=True)
class NamedScorer:
    """A scorer under a name, with its facts; it refuses what it cannot honour before any work."""

    name: str
    facts: ScorerFacts
    function: Scorer

    def __call__(self, start: Network | State, batches: Sequence[Batch], question: Question, /) -> Effects:
        """Judges units of a state, or of a network of which nothing is removed.

        Raises:
            InputError: the question asks for something that this scorer cannot honour, or as the scorer says.
            MissingDependencyError: it needs an optional library.
        """
        self.facts.check_libraries(f"scorer {self.name!r}")
        state = State.of(start)
        found: object = self.function(state, batches, self.accepted(question))
        if not isinstance(found, Effects):
            raise InputError(f"scorer {self.name!r} gave {type(found).__name__}: it has to give Effects")
        if broken := [name for name, mean in zip(found.units, found.mean, strict=True) if not np.isfinite(mean)]:
            raise InputError(
                f"scorer {self.name!r} gives {len(broken)} of {len(found.units)} units no finite number, such as "
                f"{broken[0]!r}: look for NaN in the network's outputs and weights"
            )
        return replace(found, given=tuple(unit.name for unit in state.removed))

    def accepted(self, question: Question) -> Question:
        """The question with the scorer's own default intervention filled in.

        Raises:
            InputError: it asks for something that this scorer cannot honour.
        """
        known = self.facts.interventions
        if question.intervention is not None and question.intervention not in known:
            has = f"choose from {', '.join(known)}" if known else "it sets units to no value: leave it out"
            raise InputError(f"scorer {self.name!r} has no intervention {question.intervention!r}: {has}")
        if question.rate is not None and not self.facts.rated:
            raise InputError(
                f"scorer {self.name!r} cannot honour rate={question.rate:g}: it judges units with all others there"
            )
        if question.per_image and not self.facts.individual:
            raise InputError(f"scorer {self.name!r} has no effects per image: leave per_image out")
        if question.reduction is not None and not self.facts.reduces:
            raise InputError(f"scorer {self.name!r} reduces nothing over coupled slices: leave reduction out")
        if unknown := [kind for kind in question.kinds if kind not in self.facts.kinds]:
            raise InputError(f"scorer {self.name!r} judges {', '.join(self.facts.kinds)}, not {unknown[0]!r}")
        if question.intervention is None and known:
            return replace(question, intervention=known[0])
        return question


def scorer(name: str, **facts: Any) -> Callable[[Scorer], NamedScorer]:
    """Gives a function a name and facts: what is registered as a scorer.

    Args:
        name: the name it is registered under.
        facts: the fields of `ScorerFacts`.
    """
    return lambda function: NamedScorer(name, ScorerFacts(**facts), function)
