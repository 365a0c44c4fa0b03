"""`Schedule`: in how many rounds a network is pruned, what each aims at, and what is done in between.

`geometric` steps make the network a fixed factor cheaper each round. `cubic` rounds remove much while there is much
that does little, and little in the end: kept(t) = 1 - (1 - r) (1 - (1 - t / n)^3) for a ratio r in n rounds (Zhu and
Gupta, "To prune, or not to prune", 2017 [P], for the sparsity of weights; here for every cost that is bounded [I]).
"""

import math
from dataclasses import dataclass, replace
from typing import Literal, get_args

from whyprune.allocation.budget import Budget
from whyprune.errors import InputError
from whyprune.structure.cost import Cost

Kind = Literal["one-shot", "geometric", "cubic"]
SCHEDULES: tuple[str, ...] = get_args(Kind)
STEP, ROUNDS = 2.0, 4
SMALLEST_STEP, MOST_ROUNDS = 1.01, 1000
"""Each round measures and repairs: more of them take days and change nothing."""
ABOUT = {
    "one-shot": ("all in one round: units are judged once, and the budget is met at once", ""),
    "geometric": ("every round makes the network about STEP times cheaper, until the budget is met", ""),
    "cubic": (
        "ROUNDS rounds, large ones first and small ones last: kept(t) = 1 - (1 - r) (1 - (1 - t / n)^3)",
        "Zhu & Gupta 2017, for the sparsity of weights",
    ),
}
"""Kind -> what it does, and where it comes from."""


@dataclass(frozen=True)
class Schedule:
    """Rounds of scoring, allocating, removing and repairing.

    Attributes:
        kind: `one-shot`, `geometric` or `cubic`.
        step: of `geometric`: how many times cheaper the network gets in a round, about.
        rounds: of `cubic`: how many there are.
        replan: plan the last round again, once, in two smaller steps where its measured joint effect is well above the
            predicted one.
        certain: before the last round only units go whose interval lies below that of all that would stay; at least
            half of a round's units go all the same, so that rounds come to an end.
        recovery_epochs: epochs of fine-tuning after every round but the last; needs a recovery.

    Raises:
        InputError: a value of the wrong kind or out of range.
    """

    kind: Kind = "one-shot"
    step: float = STEP
    rounds: int = ROUNDS
    replan: bool = True
    certain: bool = False
    recovery_epochs: int = 0

    def __post_init__(self) -> None:
        if self.kind not in SCHEDULES:
            raise InputError(f"no schedule {self.kind!r}: choose from {', '.join(SCHEDULES)}")
        if not isinstance(self.step, int | float) or not SMALLEST_STEP <= self.step < math.inf:
            raise InputError(f"schedule geometric:{self.step}: give a step of {SMALLEST_STEP} or more, such as 1.5")
        if not isinstance(self.rounds, int) or not 1 <= self.rounds <= MOST_ROUNDS:
            raise InputError(f"schedule cubic:{self.rounds}: give a number of rounds from 1 to {MOST_ROUNDS}")
        if not isinstance(self.recovery_epochs, int) or self.recovery_epochs < 0:
            raise InputError(f"schedule with recovery_epochs={self.recovery_epochs}: give a whole number, 0 for none")
        if self.kind == "one-shot" and self.recovery_epochs:
            raise InputError("schedule one-shot has no rounds to train between: choose geometric or cubic")

    @classmethod
    def parse(cls, text: str, start: "Schedule | None" = None) -> "Schedule":
        """Reads `one-shot`, `geometric`, `geometric:1.5` (the step) or `cubic:6` (the rounds).

        Args:
            text: the schedule.
            start: whose other fields are kept.

        Raises:
            InputError: an unknown kind, or no number.
        """
        kind, colon, number = text.partition(":")
        try:
            changed = {} if not colon else {"rounds": int(number)} if kind == "cubic" else {"step": float(number)}
        except ValueError:
            raise InputError(f"schedule {text!r}: write KIND or KIND:NUMBER, such as geometric:1.5") from None
        if kind == "one-shot" and colon:
            raise InputError(f"schedule {text!r}: one-shot takes no number")
        return replace(start or cls(), kind=kind, **changed)  # type: ignore[arg-type]

    @property
    def in_rounds(self) -> bool:
        """Whether there may be more than one round."""
        return self.kind != "one-shot"

    def count(self, budget: Budget, dense: Cost) -> int:
        """How many rounds there are for a budget."""
        if self.kind == "one-shot":
            return 1
        if self.kind == "cubic":
            return self.rounds
        farthest = max(getattr(dense, kind) / limit for kind, limit in budget.limits(dense).items())
        return max(1, round(math.log(max(farthest, 1.0)) / math.log(self.step)))

    def target(self, budget: Budget, dense: Cost, now: Cost, number: int, count: int) -> Budget:
        """What round `number` of `count` (from 0) aims at, from a network that costs `now`."""
        if self.kind != "cubic":
            return budget.between(dense, now, 1 / (count - number))
        part = 1 - (1 - (number + 1) / count) ** 3
        ratios = {k: limit / getattr(dense, k) for k, limit in budget.limits(dense).items()}
        return Budget(**{k: min(1 - (1 - r) * part, getattr(now, k) / getattr(dense, k)) for k, r in ratios.items()})

    def __str__(self) -> str:
        numbers = {"geometric": f":{self.step:g}", "cubic": f":{self.rounds}"}
        return self.kind + numbers.get(self.kind, "")
