"""What every allocator is given, what it answers, and what it says of itself."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from whyprune.allocation.budget import Budget
from whyprune.allocation.objective import Objective
from whyprune.allocation.space import Point, Space
from whyprune.fields import check_fields
from whyprune.named import check_installed

Needs = Literal["order", "curves", "evaluator", "natural_widths"]


class Allocator(Protocol):
    """Chooses a point of a space within a budget; meets the budget, or says why it cannot."""

    def __call__(
        self, space: Space, objective: Objective, budget: Budget, *, seed: int = 0, progress: bool = False
    ) -> Point:
        """A feasible point whose cost is within the budget.

        Raises:
            BudgetError: none was found; says the smallest reachable value where even that is above the budget.
            InputError: the objective lacks what this allocator needs.
        """
        ...


@dataclass(frozen=True)
class Wish:
    """What an allocation would widen before anything is removed.

    Attributes:
        more: group -> units that it gains.
        budget: of the crop that follows, in absolute numbers: ratios are to the network before.
        notes: sentences for the report.
    """

    more: Mapping[str, int]
    budget: Budget
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class AllocatorFacts:
    """What an allocator says of itself.

    Attributes:
        summary: what it does, in one sentence without a full stop.
        needs: `order` (any effects or scores), `curves` (measured response curves), `evaluator` (images, to measure
            points on the network), or `natural_widths` (a scorer that finds how many units of a group are distinct).
        kinds: the kinds of variables that it decides.
        guarantee: what holds of its points, in words.
        cost: what it costs beside scoring, in words.
        paper: where it comes from.
        plans: how many points it measures by default; 0 for an allocator that is no search.
        fewest_plans: how many it has to measure at least.
        libraries: optional ones that it imports, as modules are called.
        extra: the optional dependency that brings them.
        widens: from a space, a budget and the groups that can be widened to what it would widen; None for nothing.
    """

    summary: str
    needs: Needs = "order"
    kinds: tuple[str, ...] = ("width",)
    guarantee: str = ""
    cost: str = ""
    paper: str = ""
    widens: Callable[[Space, Budget, Collection[str]], Wish] | None = None
    plans: int = 0
    fewest_plans: int = 1
    libraries: tuple[str, ...] = ()
    extra: str = ""

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def searches(self) -> bool:
        """Whether it measures points on the network."""
        return self.needs == "evaluator"

    def check_libraries(self, who: str) -> None:
        """Refuses an allocator whose optional libraries are not there, before any work.

        Raises:
            MissingDependencyError: names them, and the extra that brings them.
        """
        check_installed(who, self.libraries, self.extra)


@dataclass(frozen=True)
class NamedAllocator:
    """An allocator under a name, with its facts."""

    name: str
    facts: AllocatorFacts
    function: Allocator

    def __call__(
        self, space: Space, objective: Objective, budget: Budget, *, seed: int = 0, progress: bool = False
    ) -> Point:
        """A feasible point whose cost is within the budget; raises as the allocator does.

        Raises:
            MissingDependencyError: the optional library that it needs is not installed.
        """
        self.facts.check_libraries(f"allocation {self.name!r}")
        return self.function(space, objective, budget, seed=seed, progress=progress)


def allocator(name: str, **facts: Any) -> Callable[[Allocator], NamedAllocator]:
    """Gives a function a name and facts: what is registered as an allocator.

    Args:
        name: the name it is registered under.
        facts: the fields of `AllocatorFacts`.
    """
    return lambda function: NamedAllocator(name, AllocatorFacts(**facts), function)
