"""The scorer `responsibility`: blame, the expected responsibility of a unit for the network's predictions.

Sources: Chockler and Halpern, "Responsibility and blame: a structural-model approach" (JAIR 2004); Debbi, "Causal
explanation of convolutional neural networks" (CexCNN, ECML PKDD 2021), who ranks filters by it.
dr(f, x) = 1 / (1 + k(f, x)); blame(f) = E_x[dr(f, x)].
[P] Responsibility per image and class, used to prune. [I] Contingency sets that are run, never added up (see
`contingency`); the event without a threshold set by hand; Wilson's intervals over images.

Blame is no effect: it counts how often, and how nearly, a unit decides. It sees copies of each other, which single
effects do not: each gets 1/2 where one of them is needed, so one may go, and then the other is responsible alone. It
does not see what never comes near a change of prediction.
"""

from collections.abc import Sequence

import numpy as np

from whyprune.causal.responsibility.contingency import Contingency
from whyprune.causal.responsibility.event import Event
from whyprune.causal.responsibility.measure import checked_images, measured
from whyprune.causal.responsibility.result import share_interval
from whyprune.data.batches import Batch, cut_images
from whyprune.effects.effects import Effects
from whyprune.interventions.worlds import Worlds
from whyprune.scoring.contract import ALL_INTERVENTIONS, Question, scorer
from whyprune.structure.network import Network
from whyprune.structure.state import State

IMAGES = 128
HARM = 0.1
"""Of `OutputShift`: a tenth of the way to as far as images' outputs are from their mean."""


@scorer(
    "responsibility",
    kind="estimator",
    summary="blame: the mean over images of 1 / (1 + k), k other units having to go before this one decides the "
    "prediction",
    estimand="score",
    cost="a forward pass per unit and image, and up to one more for every size of set tried; all pairs as well, up to "
    "64 units; on 128 images",
    guarantee="every contingency set is run, none inferred; k is exact if 0, else an upper bound unless proven; "
    "Wilson's intervals over images; says nothing of harm that never comes near a change of prediction",
    paper="Chockler and Halpern, JAIR 2004; Debbi, CexCNN, ECML PKDD 2021",
    labels="no",
    interventions=ALL_INTERVENTIONS,
    individual=True,
    scaling="invariant",
    duplicates="alike",
)
def responsibility(state: State, batches: Sequence[Batch], question: Question) -> Effects:
    """Blame of units for the class that the network as it stands predicts, whatever outcome is asked for.

    Where the output is no vector of logits, there is no class: the event is then that the harm stays below `HARM`.
    """
    event = Event() if state.network.outputs.is_logits else Event(harm=HARM)
    return blame(state, batches, question, event, Contingency())


def blame(
    start: Network | State, batches: Sequence[Batch], question: Question, event: Event, contingency: Contingency
) -> Effects:
    """Blame of units for an event, on at most `IMAGES` images where no budget is given.

    Args:
        start: a traced model, or a state of it.
        batches: images; labels only if the event is about an outcome that needs them.
        question: intervention, units, budget; the outcome where `event` is about its harm.
        event: what units are causes of.
        contingency: how contingency sets are searched.

    Raises:
        InputError: fewer than two images, or a budget that pays for fewer.
    """
    most = (
        IMAGES if question.forward_passes is None else max(2, int(question.forward_passes / 2))
    )  # half of it for seeing images at all
    batches = cut_images(batches, most)[0]
    checked_images(sum(map(len, batches)))
    outcome = question.outcome if event.harm is not None else "prediction-change"
    worlds = Worlds(start, batches, outcome=outcome, intervention=question.intervention)
    found = measured(
        worlds,
        event,
        contingency,
        units=question.units,
        forward_passes=question.forward_passes,
        progress=question.progress,
    )
    values = found.values
    images = checked_images(values.shape[1])
    return Effects(
        units=found.units,
        groups=found.groups,
        mean=found.blame,
        standard_error=values.std(axis=1, ddof=1) / np.sqrt(images),
        samples=images,
        outcome=found.event,
        intervention=found.intervention,
        estimand="score",
        method="responsibility",
        given=worlds.given,
        per_image=values.astype(np.float32) if question.per_image else None,
        forward_passes=found.forward_passes,
        bounds=share_interval(found.blame, images),
    )
