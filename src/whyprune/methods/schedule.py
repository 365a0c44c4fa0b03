"""`Schedule`: in how many rounds a network is pruned, what each aims at, and what is done in between.

Rounds go along what is kept, from 1 to the ratio r that is asked for: in equal steps (`linear`), by equal factors
(`geometric`, told by the factor, and `exponential`, told by the number of rounds: both are kept(t) = r^(t / n)), or
much at first and little in the end: `cubic`, kept(t) = 1 - (1 - r) (1 - (1 - t / n)^3) (Zhu and Gupta, "To prune, or
not to prune", 2017 [P], for the sparsity of weights; here for every cost that is bounded [I]). A latency budget that
falls exponentially over 30 steps is HALP's (Shen et al., NeurIPS 2022 [C]).

`backward` goes another way: every round aims at the budget, but cuts a part of the groups only, those of the last
layers first (FSABP, Geng & Niu, Machine Learning 2022 [A]: from the last layer to the first; parts of several groups
are ours [I]). What is left is planned again in every round, on the network as it is by then.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal, TypeVar, get_args

from whyprune.allocation.budget import Budget
from whyprune.errors import InputError
from whyprune.structure.cost import Cost

Kind = Literal["one-shot", "linear", "geometric", "exponential", "cubic", "backward"]
SCHEDULES: tuple[str, ...] = get_args(Kind)
STEP, ROUNDS = 2.0, 4
SMALLEST_STEP, MOST_ROUNDS = 1.01, 1000
"""Each round measures and repairs: more of them take days and change nothing."""
EQUAL_FACTORS = ("geometric", "exponential")
IN_STEPS = ("linear", "cubic")
ABOUT = {
    "one-shot": ("all in one round: units are judged once, and the budget is met at once", ""),
    "linear": ("ROUNDS rounds that save equally much: kept(t) = 1 - (1 - r) t / n", ""),
    "geometric": ("every round makes the network about STEP times cheaper, until the budget is met", ""),
    "exponential": (
        "`geometric`, told by the number of rounds: kept(t) = r^(t / n) in ROUNDS rounds",
        "HALP, Shen et al., NeurIPS 2022",
    ),
    "cubic": (
        "ROUNDS rounds, large ones first and small ones last: kept(t) = 1 - (1 - r) (1 - (1 - t / n)^3)",
        "Zhu & Gupta 2017, for the sparsity of weights",
    ),
    "backward": (
        "ROUNDS rounds, each cuts a part of the groups, the last layers first; what is left is planned again in every "
        "round",
        "FSABP, Geng & Niu, Machine Learning 2022",
    ),
}
"""Kind -> what it does, and where it comes from."""
T = TypeVar("T")


@dataclass(frozen=True)
class Schedule:
    """Rounds of scoring, allocating, removing and repairing.

    Attributes:
        kind: `one-shot`, `linear`, `geometric`, `exponential`, `cubic` or `backward`.
        step: of `geometric`: how many times cheaper the network gets in a round, about.
        rounds: of the others: how many there are; of `backward` at most one for every group.
        replan: plan the last round again, once, in two smaller steps where its measured joint effect is well above the
            predicted one.
        certain: before the last round only units go whose interval lies below that of all that would stay; at least
            half of a round's units go all the same, so that rounds come to an end. `one-shot` and `backward` decide
            every group once, and keep no unit back.
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
            raise InputError(
                f"schedule {self.kind}:{self.rounds}: give a number of rounds from 1 to {MOST_ROUNDS}, such as "
                f"{self.kind}:{ROUNDS}"
            )
        if not isinstance(self.recovery_epochs, int) or self.recovery_epochs < 0:
            raise InputError(f"schedule with recovery_epochs={self.recovery_epochs}: give a whole number, 0 for none")
        if self.kind == "one-shot" and self.recovery_epochs:
            raise InputError(
                "schedule one-shot has no rounds to train between: choose one that has, such as linear:4, or ask for "
                "no training between rounds (recovery_epochs, --recover-between)"
            )

    @classmethod
    def parse(cls, text: str, start: "Schedule | None" = None) -> "Schedule":
        """Reads `one-shot`, `geometric`, `geometric:1.5` (the step) or `cubic:6` (the rounds; so for all others).

        Args:
            text: the schedule.
            start: whose other fields are kept.

        Raises:
            InputError: an unknown kind, or no number.
        """
        kind, colon, number = text.partition(":")
        if kind not in SCHEDULES:
            raise InputError(f"no schedule {text!r}: choose from {', '.join(SCHEDULES)}")
        if kind == "one-shot" and colon:
            raise InputError(f"schedule {text!r}: one-shot takes no number")
        try:
            changed = {} if not colon else {"step": float(number)} if kind == "geometric" else {"rounds": int(number)}
        except ValueError:
            raise InputError(
                f"schedule {text!r}: write KIND or KIND:NUMBER, such as geometric:1.5 (the step) or cubic:{ROUNDS} "
                "(how many rounds)"
            ) from None
        return replace(start or cls(), kind=kind, **changed)  # type: ignore[arg-type]

    @property
    def in_rounds(self) -> bool:
        """Whether there may be more than one round."""
        return self.kind != "one-shot"

    @property
    def by_groups(self) -> bool:
        """Whether a round cuts a part of the groups as far as they go, not all of them a part of the way."""
        return self.kind == "backward"

    def count(self, budget: Budget, dense: Cost) -> int:
        """How many rounds there are for a budget; by groups no more than there are groups."""
        if self.kind == "one-shot":
            return 1
        if self.kind != "geometric":
            return self.rounds
        farthest = max(getattr(dense, kind) / limit for kind, limit in budget.limits(dense).items())
        return max(1, round(math.log(max(farthest, 1.0)) / math.log(self.step)))

    def target(self, budget: Budget, dense: Cost, now: Cost, number: int, count: int) -> Budget:
        """What round `number` of `count` (from 0) aims at, from a network that costs `now`."""
        if self.kind not in IN_STEPS:  # by equal factors of what is left; by groups all the way at once
            return budget.between(dense, now, 1 / (count - number) if self.kind in EQUAL_FACTORS else 1.0)
        rest = 1 - (number + 1) / count
        part = 1 - (rest if self.kind == "linear" else rest**3)
        ratios = {k: limit / getattr(dense, k) for k, limit in budget.limits(dense).items()}
        return Budget(**{k: min(1 - (1 - r) * part, getattr(now, k) / getattr(dense, k)) for k, r in ratios.items()})

    def parts(self, groups: Sequence[T]) -> list[list[T]]:
        """Groups in the order in which layers run, in parts of one round each: the last layers first."""
        order, count = list(groups)[::-1], max(1, min(self.rounds, len(groups)))
        ends = [round(k * len(order) / count) for k in range(count + 1)]
        return [order[first:last] for first, last in pairwise(ends)]

    def __str__(self) -> str:
        if self.kind == "one-shot":
            return self.kind
        return f"{self.kind}:{self.step:g}" if self.kind == "geometric" else f"{self.kind}:{self.rounds}"
