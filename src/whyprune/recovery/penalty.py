"""Penalties: what a training adds to its loss so that whole units become small, and what it does after every step."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor, nn

from whyprune.named import Named
from whyprune.structure.network import Network


class Penalty(Protocol):
    """A penalty made for one training of one model.

    It may also have `after_step(step: int, steps: int) -> None`, called after every optimiser step, `step` counting
    from 1 over all epochs up to `steps`: it may change the model in place, as masks that are held do. What a penalty
    does must follow from the model and the step alone: then a resumed training is the uninterrupted one.
    """

    def __call__(self) -> Tensor:
        """A scalar of 0 or more, on the model's device and of its type; called in every step, before the backward."""
        ...


class PenaltyFactory(Protocol):
    """Makes a penalty for a training."""

    def __call__(self, model: nn.Module, network: Network, /) -> Penalty:
        """The penalty of `model`.

        Args:
            model: the module that is trained, where it is trained; its parameters stay the same objects.
            network: a trace of the same architecture: slices of its units name parameters of `model`.

        Raises:
            InputError: the model has nothing that the penalty acts on.
        """
        ...


@dataclass(frozen=True)
class PenaltyFacts:
    """What a penalty says of itself.

    Attributes:
        summary: what it adds to the loss, in one sentence without a full stop.
        paper: where it comes from.
    """

    summary: str
    paper: str = ""


@dataclass(frozen=True)
class NamedPenalty:
    """A factory of penalties under a name, with its facts."""

    name: str
    facts: PenaltyFacts
    factory: PenaltyFactory

    def __call__(self, model: nn.Module, network: Network, /) -> Penalty:
        """See `PenaltyFactory`."""
        return self.factory(model, network)


def penalty(name: str, *, summary: str, paper: str = "") -> Callable[[PenaltyFactory], NamedPenalty]:
    """Gives a factory (a function or a class) a name and facts: what is registered as a penalty.

    Args:
        name: the name it is registered under.
        summary: see `PenaltyFacts`.
        paper: see `PenaltyFacts`.
    """
    return lambda factory: NamedPenalty(name, PenaltyFacts(summary, paper), factory)


def name_of(factory: PenaltyFactory) -> str:
    """What a factory is called in messages and checkpoints."""
    found = getattr(factory, "name", None) or getattr(factory, "__qualname__", None)
    return str(found or type(factory).__qualname__)


PENALTIES: Named[PenaltyFactory] = Named(
    "penalty",
    {
        "group-lasso": "whyprune.recovery.penalties.group_lasso:group_lasso",
        "bn-l1": "whyprune.recovery.penalties.bn_l1:bn_l1",
    },
    "whyprune.penalties",
)
"""Name -> factory; other packages add theirs by the entry-point group `whyprune.penalties`."""
