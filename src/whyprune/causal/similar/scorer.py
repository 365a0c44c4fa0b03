"""Causal filter similarity: similarity says who is asked, the joint intervention says who goes.

Geng & Niu, FSABP, Machine Learning 2022 [A]: of similar filters one can go. What is ours [I], group by group:

1. A pair of units is as close as its filters are (`scoring/filters.py`) or as what their readers see, sqrt(1 - r²),
   whichever is less. From the closest pair on, the unit of the smaller unique effect is asked: its effect under
   `carried`, what none of the others can carry. Where images do not tell, that of the smaller effect under `mean`.
2. With G the units of the group that go already and U the joint effect under `carried` (all of a set predicted from
   those outside of it), it goes too if U(G + u) - U(G), paired on the images, is clearly at most a tenth of what it
   does when nobody carries it (`mean`). So of copies all but one go, never all: the last one is asked given the others.
3. The others follow in the order of their effect given G. A score is what U rises by where the unit goes, given all
   that go before it; of the others, no less than that of the one before.

The idea is that the similarity of two filters is a guess at what they do, and the joint effect is the thing itself: a
pair that looks alike and does not stand in for each other stays, a pair that does not look alike and does loses one.
It is wrong if, on other images and after a refit, plans from these scores harm no less than plans from distances.

Linear predictions are fitted on other images than effects are measured on (`bench`). Units of other groups are all
there.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from whyprune.causal.similar.bench import Bench, Group, Joint
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
    summary="what a group's joint effect rises by; first go similar units that the joint intervention finds carried",
    estimand="score",
    cost="up to five partial forward passes per unit and image, on at most 64 images; one forward pass for each other",
    guarantee="of units that stand in for each other, one stays; scores are measured, on images that no prediction was "
    "fitted on; no interval",
    paper="Geng & Niu, Machine Learning 2022 (similarity); the rest is ours",
    natural_widths=True,
    most_images=0,
    scaling="invariant",
    duplicates="one-first",
)
def causal_filter_similarity(state: State, batches: Sequence[Batch], question: Question) -> Effects:
    """What every unit adds to the joint effect of those of its group that go before it; never below 0."""
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
    """Scores (units,), and how many units are not redundant."""
    joint = bench.joint(group)
    gone = _redundant(group, joint)
    others = [k for k in range(len(group.units)) if k not in gone]
    others.sort(key=lambda k: float(joint([*gone, k]).mean()))
    order = [*gone, *others]
    rises = np.diff([joint(order[:k]).mean() for k in range(len(order) + 1)]).clip(min=0)
    rises[len(gone) :] = np.maximum.accumulate(rises[len(gone) :])
    scores = np.empty(len(order))
    scores[order] = rises
    return scores, len(others)


def _redundant(group: Group, joint: Joint) -> list[int]:
    """Places of units that others carry, given all before; from the closest pair on one of each is asked, once."""
    gone, asked = list[int](), np.zeros(len(group.units), dtype=bool)
    for place, other in group.closest_first():
        if asked[place] or other in gone:
            continue
        asked[place] = True
        if group.carried(place, group.unique[place]) and group.carried(place, joint([*gone, place]) - joint(gone)):
            gone.append(place)
    return gone
