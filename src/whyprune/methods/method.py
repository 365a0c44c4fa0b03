"""`Method`: what a pruning method is made of, and what it says of itself."""

from dataclasses import asdict, dataclass, field, replace
from typing import Any

from whyprune.allocation.allocate import check_search_plans, chosen_allocator, facts_of, name_of
from whyprune.allocation.contract import Allocator, AllocatorFacts
from whyprune.allocation.fitness import JOINT_EFFECT, Fitness
from whyprune.allocation.space import BLOCK
from whyprune.errors import InputError
from whyprune.methods.schedule import Schedule
from whyprune.recovery.penalty import PENALTIES
from whyprune.repair.registry import REPAIRS, repair_named
from whyprune.scoring.contract import NamedScorer, Scorer, ScorerFacts
from whyprune.scoring.registry import SCORERS


@dataclass(frozen=True)
class Method:
    """A frozen composition of the parts of a pruning method.

    Attributes:
        name: recorded in plans and reports.
        scorer: judges units in every round: a name or a scorer of one's own.
        allocation: how much goes where: a name, an allocator of one's own, or None for what suits the scorer.
        schedule: rounds, and what is done in between.
        repair: what is done without labels to the weights that stay.
        intervention: the value v of do(unit := v) that the scorer is asked for; None for its own default.
        reduction: over the coupled slices of a unit: `mean`, `sum` or `max`; None for the scorer's own default.
        images: images that the scorer is given in every round; None for what its facts say, 0 for all of them.
        kinds: the kinds of decision variables: `width`, and `block` where residual blocks may go as a whole.
        penalty: the penalty that training before pruning adds to its loss; empty for none. It needs a training.
        penalty_weight: of that penalty, where the training names none of its own.
        fitness: what an allocation that measures plans minimises: `joint-effect`, or an error on labelled images,
            `batch-norm`, `refit` or `short-training[:EPOCHS]`; see `Fitness`. Others do not look at it.
        search_plans: how many plans such an allocation measures at most; None for its own default.
        summary: what it does, in one sentence without a full stop; empty for that of the scorer.
        guarantee: what holds of its result, in words; empty for that of the scorer.
        paper: where it comes from; empty for that of the scorer.
        causal: the name of its causal variant; empty for the method with that of the scorer, if there is one.
    """

    name: str
    scorer: str | Scorer
    allocation: str | Allocator | None = None
    schedule: Schedule = field(default_factory=Schedule)
    repair: str = "refit"
    intervention: str | None = None
    reduction: str | None = None
    images: int | None = None
    kinds: tuple[str, ...] = ("width",)
    penalty: str = ""
    penalty_weight: float = 1e-4
    fitness: str = JOINT_EFFECT
    search_plans: int | None = None
    summary: str = ""
    guarantee: str = ""
    paper: str = ""
    causal: str = ""

    def __post_init__(self) -> None:
        repair_named(self.repair)
        kinds: object = self.kinds
        if not self.name or not kinds or isinstance(kinds, str):
            raise InputError(f"a method with name={self.name!r} and kinds={self.kinds!r}: give it a name, and a tuple")
        if not isinstance(self.schedule, Schedule):
            raise InputError(f"schedule={self.schedule!r}: give a Schedule, such as Schedule.parse('cubic:6')")
        for part, given in (("scorer", self.scorer), ("allocation", self.allocation)):
            if given is not None and not isinstance(given, str) and not callable(given):
                raise InputError(f"{part}={given!r}: give a name or a function")
        causal: object = self.causal
        if not isinstance(causal, str):
            raise InputError(
                f"causal={causal!r:.60}: give a method the name of its variant; Settings(causal=True) takes it"
            )
        if self.penalty:
            PENALTIES(self.penalty)
        Fitness.parse(self.fitness)
        if self.images is not None and self.images < 0:
            raise InputError(f"images={self.images}: give 0 for all, or a number of images")

    @property
    def judge(self) -> Scorer:
        """The scorer itself.

        Raises:
            InputError: there is none of that name.
            MissingDependencyError: it needs an optional library.
        """
        return SCORERS(self.scorer) if isinstance(self.scorer, str) else self.scorer

    @property
    def scorer_name(self) -> str:
        """What the scorer is called."""
        if isinstance(self.scorer, str):
            return self.scorer
        return str(getattr(self.scorer, "name", getattr(self.scorer, "__name__", "a scorer of one's own")))

    @property
    def variant(self) -> str:
        """What its causal variant is called; empty where there is none."""
        of_scorer = self.scorer_facts.causal
        if self.causal or not of_scorer:
            return self.causal
        return of_scorer if self.name == self.scorer_name else f"causal-{self.name}"

    @property
    def allocation_name(self) -> str:
        """What the allocation is called; empty where it follows from the scorer."""
        if self.allocation is None or isinstance(self.allocation, str):
            return self.allocation or ""
        return name_of(self.allocation)

    @property
    def allocation_facts(self) -> AllocatorFacts | None:
        """What the allocation says of itself; None where it follows from the scorer."""
        return None if self.allocation is None else facts_of(chosen_allocator(self.allocation))

    @property
    def searches(self) -> bool:
        """Whether plans are measured on the network, by the method's fitness."""
        return self.allocation_facts is not None and self.allocation_facts.searches

    @property
    def scorer_facts(self) -> ScorerFacts:
        """What the scorer says of itself; of a plain function little is known."""
        judge = self.judge
        if isinstance(judge, NamedScorer):
            return judge.facts
        said = (judge.__doc__ or "a scorer of one's own").splitlines()[0].rstrip(".")
        return ScorerFacts("criterion", said, "not stated", "not stated", "not stated")

    def with_parts(
        self,
        *,
        scorer: str | Scorer | None = None,
        allocation: str | Allocator | None = None,
        schedule: Schedule | None = None,
        repair: str | None = None,
        kinds: tuple[str, ...] | None = None,
        reduction: str | None = None,
        fitness: str | None = None,
        search_plans: int | None = None,
    ) -> "Method":
        """The same method with some parts replaced.

        A new scorer brings its own intervention, reduction and images, a new allocation its own number of plans.
        """
        parts = {"allocation": allocation, "schedule": schedule, "repair": repair, "kinds": kinds, "fitness": fitness}
        found = replace(self, **{name: part for name, part in parts.items() if part is not None})  # type: ignore[arg-type]
        if scorer is not None and scorer != self.scorer:
            found = replace(found, scorer=scorer, intervention=None, reduction=None, images=None)
        if search_plans is not None or found.allocation != self.allocation:
            found = replace(found, search_plans=search_plans)
        return found if reduction is None else replace(found, reduction=reduction)

    def checked(self) -> "Method":
        """The method itself, if its parts fit each other.

        Raises:
            InputError: an unknown name, an allocation that needs what the scorer does not measure, kinds of
                variables that a part cannot decide, or fewer plans than a search needs.
            MissingDependencyError: a part needs an optional library that is not installed.
        """
        facts, allocator = self.scorer_facts, self.allocation_facts
        facts.check_libraries(f"scorer {self.scorer_name!r} of method {self.name!r}")
        if allocator is not None:
            allocator.check_libraries(f"allocation {self.allocation_name!r} of method {self.name!r}")
            if allocator.needs == "curves" and facts.kind != "curves":
                raise InputError(
                    f"allocation {self.allocation_name!r} of method {self.name!r} needs response curves, which scorer "
                    f"{self.scorer_name!r} does not measure: choose another allocation as well, such as 'global'"
                )
            if allocator.needs == "natural_widths" and not facts.natural_widths:
                raise InputError(
                    f"allocation {self.allocation_name!r} of method {self.name!r} needs natural widths, which scorer "
                    f"{self.scorer_name!r} does not find: choose another scorer, such as 'feature-clusters'"
                )
            self._check_kinds(f"allocation {self.allocation_name!r} decides", allocator.kinds)
        if self.search_plans is not None:
            check_search_plans(allocator or AllocatorFacts(""), self.search_plans, self.allocation_name or "by scorer")
        self._check_kinds(f"scorer {self.scorer_name!r} judges", facts.kinds)
        if self.schedule.by_groups and BLOCK in self.kinds:
            raise InputError(
                f"schedule {self.schedule} goes group by group, and no whole residual blocks: leave out blocks, or "
                "choose another schedule"
            )
        if self.reduction is not None and not facts.reduces:
            raise InputError(f"scorer {self.scorer_name!r} reduces nothing over coupled slices: leave reduction out")
        return self

    def _check_kinds(self, who: str, kinds: tuple[str, ...]) -> None:
        if unknown := [kind for kind in self.kinds if kind not in kinds]:
            what = "whole residual blocks" if unknown[0] == BLOCK else f"variables of kind {unknown[0]!r}"
            raise InputError(f"{who} {', '.join(kinds)}, not {what}")

    def facts(self) -> dict[str, Any]:
        """What the method says of itself, as plain values: parts, cost, data, labels, gradients, guarantee, paper."""
        scorer, repair = self.scorer_facts, REPAIRS[self.repair]
        allocation = self.allocation_facts
        searching = allocation if allocation is not None and allocation.searches else scorer
        fitness = Fitness.parse(self.fitness) if searching is not scorer else None
        return {
            "name": self.name,
            "summary": self.summary or searching.summary,
            "scorer": self.scorer_name,
            "allocation": self.allocation_name or "by scorer",
            "schedule": str(self.schedule),
            "repair": self.repair,
            "kinds": list(self.kinds),
            "estimand": scorer.estimand,
            "images": scorer.images or searching is not scorer,
            "labels": _most_labels(scorer.labels, "no" if fitness is None else fitness.facts.labels),
            "gradients": scorer.gradients or bool(fitness and fitness.facts.training),
            "repair_gradients": repair.gradients,
            "training": bool(self.penalty or self.schedule.recovery_epochs or (fitness and fitness.facts.training)),
            "fitness": "" if fitness is None else str(fitness),
            "search_plans": self._plans if fitness is not None else 0,
            "cost": self._cost(fitness),
            "guarantee": self.guarantee or searching.guarantee,
            "allocation_guarantee": "" if allocation is None else allocation.guarantee,
            "paper": self.paper or searching.paper,
            "extra": ",".join(dict.fromkeys(filter(None, (scorer.extra, allocation.extra if allocation else "")))),
            "causal": self.variant,
            "scorer_facts": {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(scorer).items()},
        }

    @property
    def _plans(self) -> int:
        """How many plans a search measures at most."""
        return self.search_plans or (self.allocation_facts.plans if self.allocation_facts else 0)

    def _cost(self, fitness: Fitness | None) -> str:
        """What judging costs, in words; of a search how many plans it measures, what each costs, and the scorer's."""
        allocation = self.allocation_facts
        scorer = self.scorer_facts.cost + (f", on {self.images} images" if self.images else "")
        said = scorer
        if fitness is not None and allocation is not None:
            plans = f"up to {self._plans} networks" if self._plans else "networks"
            before = "" if scorer.startswith("none") else f"before it, {scorer}"
            said = "; ".join(filter(None, (f"{plans}, {fitness.cost}", allocation.cost, before)))
        return f"{said}, in every round" if self.schedule.in_rounds else said


def _most_labels(*needs: str) -> str:
    """The strongest need for labels of several parts."""
    return max(needs, key=("no", "outcome", "yes").index)
