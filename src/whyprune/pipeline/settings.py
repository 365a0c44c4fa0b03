"""`Settings`: how `prune` goes about it, checked before any work."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Annotated, Literal

from pydantic import Field

from whyprune.allocation import ALLOCATORS, Budget
from whyprune.allocation.fitness import Fitness
from whyprune.allocation.space import BLOCK, WIDTH
from whyprune.errors import InputError
from whyprune.fields import OneOf, check_fields
from whyprune.methods import METHODS, Method, Schedule, method_named
from whyprune.repair.registry import REPAIRS
from whyprune.scoring.registry import SCORERS

EFFECT_PASSES = 4096.0
"""Four passes over 1,024 images: less than planning a ResNet-56 takes, so that the report never costs more."""


@dataclass(frozen=True)
class Settings:
    """How `prune` goes about it; the defaults are good. What is None is as the method has it.

    Attributes:
        scorer: who judges units in every round: any method that `whyprune methods` lists as a scorer.
        allocation: how much goes where; default by scorer, and the method `causal` has its own.
        reduction: how a criterion makes one score of a unit's coupled slices; default: their mean.
        schedule: rounds: one-shot, geometric:1.5 (times cheaper in each), or linear:6, exponential:6, cubic:6 or
            backward:6 (how many).
        recover_between: epochs of fine-tuning after every round but the last: prune and recover in rounds. It needs a
            recovery and a schedule with rounds.
        repair: what is done without labels to the weights that stay: a refit in closed form, a refit and then the
            layers of every residual branch together, means of the removed units in biases, batch-norm statistics only,
            or nothing.
        fitness: what an allocation that measures plans minimises: joint-effect (no labels), or an error on labelled
            images after batch-norm re-estimation (batch-norm), a refit (refit) or a short training
            (short-training:EPOCHS); default: as the method has it.
        search_plans: how many plans such an allocation measures at most; default: as many as it does by itself.
        views: augmented views of every calibration image in the final repair.
        effect_images: images on which single effects of units are measured at most.
        effect_passes: dense forward passes of one image that single effects may cost where the plan needs none: the
            report shows them. What they do not pay for is said to be not measured.
        ignore: names of groups or modules whose channels are kept, besides those of `Constraints.ignore`.
        latency: measure latency of both networks on this machine.
        refute: try to refute the effects behind the plan, on images kept apart for it.
        blocks: residual blocks may go as a whole; default: where a budget is on a device and the method can tell.
        heads: attention goes by whole heads, or by the width that all its heads share.
        outputs: which tensors of the network's output count, by name or number; default: `logits` where there are any,
            else all that hold images and numbers.

    Raises:
        InputError: an unknown name, or a number out of range.
    """

    scorer: Annotated[str | None, OneOf(SCORERS)] = None
    allocation: Annotated[str | None, OneOf(ALLOCATORS)] = None
    reduction: Literal["mean", "sum", "max"] | None = None
    schedule: str | None = None
    recover_between: Annotated[int | None, Field(ge=0)] = None
    repair: Annotated[str | None, OneOf(REPAIRS)] = None
    fitness: str | None = None
    search_plans: Annotated[int | None, Field(ge=1)] = None
    views: Annotated[int, Field(ge=1)] = 4
    effect_images: Annotated[int, Field(ge=2)] = 128
    effect_passes: Annotated[float, Field(ge=0)] = EFFECT_PASSES
    ignore: tuple[str, ...] = ()
    latency: bool = True
    refute: bool = True
    blocks: bool | None = None
    heads: Literal["whole", "width"] = "whole"
    outputs: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_fields(self)
        for field in ("ignore", "outputs"):
            given = getattr(self, field)
            if isinstance(given, str) or not isinstance(given, Iterable):
                raise InputError(f"{field}={given!r:.60}: give a tuple of names, such as ('stem',)")
        for field in ("latency", "refute"):
            if not isinstance(getattr(self, field), bool):
                raise InputError(f"{field}={getattr(self, field)!r:.60}: give True or False")
        if self.schedule is not None and not isinstance(self.schedule, str):
            raise InputError(f"schedule={self.schedule!r}: write it as text, such as 'cubic:6', or give it to a Method")
        if self.schedule is not None:
            Schedule.parse(self.schedule)
        if self.fitness is not None:
            Fitness.parse(self.fitness)

    def applied(self, method: str | Method, budget: Budget) -> Method:
        """The method with the parts that these settings replace, and the kinds of variables that this budget calls for.

        Raises:
            InputError: an unknown method, or parts that do not fit each other.
        """
        chosen = method_named(method)
        if self.blocks and BLOCK not in chosen.kinds:
            able = ", ".join(repr(name) for name in METHODS if BLOCK in METHODS(name).kinds)
            raise InputError(f"only method {able} measures what whole blocks do: leave out blocks with {chosen.name!r}")
        schedule = self._schedule(chosen.schedule)
        found = chosen.with_parts(
            scorer=self.scorer,
            allocation=self.allocation,
            schedule=schedule,
            repair=self.repair,
            reduction=self.reduction,
            fitness=self.fitness,
            search_plans=self.search_plans,
        )
        if self.fitness is not None and not found.searches:
            raise InputError(
                f"fitness={self.fitness!r} does nothing with method {found.name!r}, whose allocation measures no "
                "plans: leave it out, or choose a search, such as allocation='particle-swarm'"
            )
        whole = bool(budget.on_device) and not found.schedule.by_groups
        deciding = whole if self.blocks is None else self.blocks
        judged = bool(self.blocks) or BLOCK in found.scorer_facts.kinds  # what was asked for is refused, not dropped
        if not (deciding and judged and BLOCK in found.kinds):
            found = replace(found, kinds=tuple(kind for kind in found.kinds if kind != BLOCK) or (WIDTH,))
        return found.checked()

    def _schedule(self, usual: Schedule) -> Schedule:
        """The schedule of a method with what these settings replace."""
        found = usual if self.schedule is None else Schedule.parse(self.schedule, replace(usual, recovery_epochs=0))
        trained = usual.recovery_epochs if found.in_rounds else 0
        return replace(found, recovery_epochs=trained if self.recover_between is None else self.recover_between)
