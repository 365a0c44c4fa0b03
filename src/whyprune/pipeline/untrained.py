"""Pruning before training: what is asked of a network whose weights are drawn, and what is left out."""

from dataclasses import replace

from torch import Tensor, nn

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

FRESH = (
    "No batch norm of the network has seen an image: if it is not trained, say so, Settings(untrained=True) or "
    "--untrained; effects of drawn weights mean nothing."
)
SEEN = "Batch norms of the network have seen images, so that its weights may be trained: they were taken for drawn."


def doubts(model: nn.Module, *, untrained: bool) -> list[str]:
    """A sentence where batch norms contradict what is said of the weights; a network without any says nothing."""
    pairs = [(getattr(m, "running_mean", None), getattr(m, "running_var", None)) for m in model.modules()]
    held = [(mean, var) for mean, var in pairs if isinstance(mean, Tensor) and isinstance(var, Tensor)]
    fresh = all(not bool(mean.any()) and bool((var == 1).all()) for mean, var in held)
    return [] if not held or fresh == untrained else [FRESH if fresh else SEEN]


def before_training(
    method: Method, settings: Settings, training: Recovery | None, recovery: Recovery | None
) -> tuple[Method, Recovery | None, Recovery | None, list[str]]:
    """What is asked of a network that is not trained; of any other, all as it is.

    Without a training the method loses its repair, and the recovery trains from scratch. A training before pruning
    trains from scratch, and what it gives is pruned as a trained network.

    Returns:
        Method, training, recovery, and sentences for the report.

    Raises:
        InputError: a part of the method, or of the recovery, needs a trained network.
    """
    if not settings.untrained:
        return method, training, recovery, []
    if training is not None:
        return method, from_scratch(training), recovery, []
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
    return replace(method, repair="none"), None, None if recovery is None else from_scratch(recovery), notes
