"""Pruning before training: what is asked of a network whose weights are drawn, and what is left out."""

from dataclasses import replace

from whyprune.allocation.allocate import chosen_allocator, facts_of
from whyprune.errors import InputError
from whyprune.methods import Method
from whyprune.pipeline.settings import Settings
from whyprune.recovery import Recovery
from whyprune.recovery.config import from_scratch

CHOOSE = "choose a method that needs none, such as 'precrop', 'preconfig', 'synflow' or 'random'"
NOTE = (
    "The network was pruned before training: its weights are drawn. There is no trained network to compare with, so no "
    "accuracy of the dense network, no joint effect and no refutation was measured, and nothing was refitted."
)
STILL_UNTRAINED = "The pruned network is not trained yet: train it, or ask for a recovery (--finetune-epochs)."


def before_training(
    method: Method, settings: Settings, recovery: Recovery | None
) -> tuple[Method, Recovery | None, list[str]]:
    """The method without repair, the recovery as a training from scratch, and sentences for the report.

    Raises:
        InputError: a part of the method, or of the recovery, needs a trained network.
    """
    facts = method.scorer_facts
    if facts.kind != "criterion":
        raise InputError(
            f"method {method.name!r} measures what units do in a trained network, and this one is not trained: {CHOOSE}"
        )
    if method.allocation is not None and facts_of(chosen_allocator(method.allocation)).needs == "evaluator":
        raise InputError(
            f"allocation {method.allocation_name!r} measures plans on a trained network, and this one is not trained: "
            f"{CHOOSE}"
        )
    if settings.repair not in (None, "none"):
        raise InputError(
            f"repair {settings.repair!r} goes towards a trained network, and this one is not trained: leave repair out"
        )
    if recovery is not None and (recovery.distill or recovery.follow):
        raise InputError("distill and follow go towards the dense network, which is not trained: leave them out")
    notes = [NOTE]
    if facts.images:
        notes.append(f"{method.scorer_name!r} judged units by images seen through weights that are drawn.")
    if recovery is None:
        notes.append(STILL_UNTRAINED)
    return replace(method, repair="none"), None if recovery is None else from_scratch(recovery), notes
