"""`Settings`: how `prune` goes about it, checked before any work."""

from dataclasses import dataclass
from typing import Literal

from whyprune.allocation import ALLOCATORS, Budget
from whyprune.errors import InputError
from whyprune.pipeline.planners import ByCurves, ByEffects, Planner
from whyprune.scoring.registry import SCORERS

REPAIRS = ("refit", "reconstruct", "constants", "batch-norm", "none")
REFITTING = ("refit", "reconstruct")
"""Repairs that refit after every round of a method that plans in rounds."""
CAUSAL, CONDITIONAL = "causal", "conditional"
PLANNERS: dict[str, type[Planner]] = {CAUSAL: ByCurves, CONDITIONAL: ByEffects}
"""Methods that plan in rounds."""


@dataclass(frozen=True)
class Settings:
    """How `prune` goes about it; the defaults are good.

    Attributes:
        allocation: `uniform`, `global`, `curves` or `savings`; None picks by method. `causal` has its own.
        repair: `refit` (closed form), `reconstruct` (a refit, then the layers of every residual branch together),
            `constants` (means of the removed units in biases), `batch-norm` (statistics only) or `none`.
        views: augmented views of every calibration image in the final repair.
        effect_images: images on which single effects of all units are measured.
        ignore: names of groups or modules whose channels are kept, besides those of `Constraints.ignore`.
        latency: measure latency on this machine.
        refute: try to refute the effects behind the plan, on images that it was not made from.
        blocks: whether residual blocks may go as a whole (method `causal`); None: where a budget is on a device.
        heads: whether attention goes by "whole" heads or by the "width" that all its heads share (see `trace`).
    """

    allocation: str | None = None
    repair: str = "refit"
    views: int = 4
    effect_images: int = 128
    ignore: tuple[str, ...] = ()
    latency: bool = True
    refute: bool = True
    blocks: bool | None = None
    heads: Literal["whole", "width"] = "whole"

    def __post_init__(self) -> None:
        if self.repair not in REPAIRS:
            raise InputError(f"no repair named {self.repair!r}: choose from {', '.join(REPAIRS)}")
        if self.views < 1 or self.effect_images < 2:
            raise InputError(f"views={self.views}, effect_images={self.effect_images}: give at least 1 and 2")
        if self.allocation is not None and self.allocation not in ALLOCATORS:
            raise InputError(f"no allocation named {self.allocation!r}: choose from {', '.join(ALLOCATORS)}")

    def check_fits(self, method: str) -> None:
        """Refuses, before any work, what a method cannot do.

        Raises:
            InputError: an unknown method, or an allocation that does not go with it.
        """
        if method not in (*PLANNERS, *SCORERS):
            raise InputError(f"no method named {method!r}: choose from {', '.join((*PLANNERS, *SCORERS))}")
        if method in PLANNERS and self.allocation is not None:
            raise InputError(f"method {method!r} plans widths itself: leave out allocation={self.allocation!r}")
        if self.allocation == "curves" and method != "curves":
            raise InputError(f"allocation 'curves' needs response curves, which method {method!r} does not measure")
        if self.blocks and method != CAUSAL:
            raise InputError(f"only method {CAUSAL!r} measures what whole blocks do: leave out blocks with {method!r}")

    def takes_blocks(self, method: str, budget: Budget) -> bool:
        """Whether residual blocks may go as a whole: calls and additions take time that no width saves."""
        return method == CAUSAL and (bool(budget.on_device) if self.blocks is None else self.blocks)
