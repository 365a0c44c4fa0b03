"""A penalty in a training: made once, checked in every step."""

import math
from dataclasses import dataclass

from torch import Tensor, nn

from whyprune.errors import InputError
from whyprune.recovery.penalty import Penalty, PenaltyFactory, name_of
from whyprune.structure.network import Network


@dataclass(frozen=True)
class PenaltyTerm:
    """The penalty of a training, what it is called, and its weight in the loss."""

    name: str
    penalty: Penalty
    weight: float

    @classmethod
    def of(cls, factory: PenaltyFactory, model: nn.Module, network: Network, weight: float) -> "PenaltyTerm":
        """Makes the penalty of a model, which is where it trains."""
        return cls(name_of(factory), factory(model, network), weight)

    def __call__(self, where: str) -> Tensor:
        """The penalty now, before its weight.

        Raises:
            InputError: it is no scalar, or not finite.
        """
        found = self.penalty()
        if not isinstance(found, Tensor) or found.dim() != 0:
            what = f"a tensor of shape {tuple(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
            raise InputError(f"the penalty {self.name!r} gives {what}: it must be a tensor with one number, shape ()")
        if not math.isfinite(value := float(found.detach())):
            raise InputError(
                f"the penalty {self.name!r} is {value} in {where}: use a lower penalty_weight or learning_rate, "
                "or, if the penalty is your own, run check_penalty on it"
            )
        return found

    def after_step(self, step: int, steps: int) -> None:
        """Lets the penalty act on the model, if it does so at all."""
        act = getattr(self.penalty, "after_step", None)
        if act is not None:
            act(step, steps)
