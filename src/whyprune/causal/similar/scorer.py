"""Causal filter similarity: similarity says who is asked, the joint intervention says who goes.

Geng & Niu, FSABP, Machine Learning 2022 [A]: of similar filters one can go. What is ours [I], group by group:

1. A pair of units is as close as its filters are (`scoring/filters.py`) or as what their readers see, sqrt(1 - r²),
   whichever is less. From the closest pair on, the unit of the smaller unique effect is asked: its effect under
   `carried`, what none of the others can carry. Where images do not tell, that of the smaller effect under `mean`.
2. With G the units of the group that go already and U the joint effect under `carried` (all of a set predicted from
   those outside of it), it goes too if U(G + u) - U(G), paired on the images, is clearly at most a tenth of what it
   does when nobody carries it (`mean`). So of copies all but one go, never all: the last one is asked given the others.
3. The score is that difference: for units that go, at their time; for those that stay, given all that go.

The idea is that the similarity of two filters is a guess at what they do, and the joint effect is the thing itself: a
pair that looks alike and does not stand in for each other stays, a pair that does not look alike and does loses one.
It is wrong if, on other images and after a refit, plans from these scores harm no less than plans from distances.

Linear predictions are fitted on other images than effects are measured on (`bench`). Units of other groups are all
there.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from whyprune.causal.similar.bench import Bench, Group
from whyprune.data.batches import Batch
from whyprune.effects.effects import Effects, from_scores
from whyprune.interventions.suffix import chosen_units
from whyprune.progress import Progress
from whyprune.scoring.contract import Question, scorer
from whyprune.structure.state import State

Floats = NDArray[np.float64]


@scorer(
    "causal-filter-similarity",
    kind="criterion",
    summary="unique effect, given the similar units that go before: those that the joint intervention finds redundant",
    estimand="score",
    cost="up to four partial forward passes per unit and image, on at most 64 images; one forward pass for each other",
    guarantee="of units that stand in for each other, one stays; scores are measured, on images that no prediction was "
    "fitted on; no interval",
    paper="Geng & Niu, Machine Learning 2022 (similarity); the rest is ours",
    natural_widths=True,
    most_images=0,
)
def causal_filter_similarity(state: State, batches: Sequence[Batch], question: Question) -> Effects:
    """Conditional unique effects of every unit, within its group; never below 0."""
    chosen = chosen_units(state, question.units)
    bench = Bench(state, batches, question)
    scores, widths = dict[str, float](), dict[str, int]()
    with Progress(question.progress) as bars:
        bar = bars.add("Asking similar filters", len(bench.units))
        for group in bench.groups():
            found, stay = _walked(bench, group)
            scores |= dict(zip((u.name for u in group.units), found.tolist(), strict=True))
            widths[group.units[0].group] = stay
            bars.advance(bar, len(group.units))
    kept = {u.group for u in chosen}
    return from_scores(
        chosen,
        [max(scores[u.name], 0.0) for u in chosen],
        method="causal-filter-similarity",
        samples=bench.images,
        outcome=bench.outcome.name,
        given=tuple(u.name for u in state.removed),
        forward_passes=bench.forward_passes,
        across_groups=True,
        natural_widths={name: width for name, width in widths.items() if name in kept},
        diagnostics={"asked": float(bench.asked), "redundant": float(len(bench.units) - sum(widths.values()))},
    )


def _walked(bench: Bench, group: Group) -> tuple[Floats, int]:
    """Scores (units,), and how many stay; from the closest pair on, the unit of less unique effect is asked, once."""
    scores, base = group.unique.mean(axis=1), np.zeros(bench.images)
    gone, asked = list[int](), np.zeros(len(group.units), dtype=bool)
    joint = bench.sets(group.units)
    for place, other in group.closest_first():
        if asked[place] or other in gone:
            continue
        asked[place] = True
        if not group.carried(place, group.unique[place]):
            continue
        together = joint([*gone, place]) if gone else group.unique[place]
        if group.carried(place, together - base):
            scores[place] = (together - base).mean()
            gone.append(place)
            base = together
    for place in set(range(len(group.units))) - set(gone) if gone else ():
        scores[place] = (joint([*gone, place]) - base).mean()
    return scores, len(group.units) - len(gone)
