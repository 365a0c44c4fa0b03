"""Elimination: what the layers that read a unit lose for good when it goes, and the others carry what they can.

The unique effect of a unit on its readers, in closed form. For a reader with inputs X, target Y and weights W fitted by
least squares with a ridge, H = X'X + ridge, a unit whose channels are the rows c takes with it
tr(W_c' ([H^-1]_cc)^-1 W_c): what the squared error rises by when the rest is fitted again. The unit of the least loss
goes, W and H^-1 are those of the rest, and so on: OBS for whole channels, as OSSCAR (Meng et al., ICML 2024 [C]), OBC
(Frantar & Alistarh, NeurIPS 2022 [C]) and ZipLM (Kurtic et al., NeurIPS 2023 [A]) have it. [I] A unit's score is its
loss at the step at which it goes, as a share of the variance of the reader's target, and at least that of the step
before it, so that scores keep the greedy order, which is that of response curves. [I] Where several layers read a
group, their shares are summed (`cases`), and a reader that cannot be refitted loses all that a unit gives.

The causal idea: a unit that others can stand in for is free, one that nobody can is not, however large its weights; it
is judged at its readers, by an intervention that the rest answers. It would be wrong if units that are cheap at their
readers were dear at the network's output: if at the same widths it kept less accuracy than norms.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from whyprune.causal.response.cases import cases_of, jointly, paths
from whyprune.causal.response.elimination import Elimination
from whyprune.data.batches import Batch, cut_images
from whyprune.effects.effects import Effects, from_scores
from whyprune.errors import InputError
from whyprune.interventions.suffix import chosen_units
from whyprune.interventions.values import Intervention
from whyprune.scoring.contract import Question, scorer
from whyprune.scoring.paid import paid_images
from whyprune.structure.entry import entered
from whyprune.structure.network import Network
from whyprune.structure.replay import Replay
from whyprune.structure.state import State
from whyprune.structure.units import Unit

FIT_IMAGES = 512
"""Images of the least squares, at most."""
PASSES = 3.0
"""Per image: of the dense network, of the network as it is, and for the channels that several layers read."""
APART = 1e-9
"""Scores of two steps differ by this share at least, so that their order is the greedy one."""


def elimination_scores(
    start: Network | State,
    data: Iterable[Any],
    *,
    units: Sequence[Unit | str] | None = None,
    seed: int = 0,
) -> Effects:
    """What every unit takes with it at the step at which it goes, as a share of its readers' variance.

    Args:
        start: a traced model, or a state of it: then given what is gone, and towards the dense network's values.
        data: batches; labels are not used.
        units: which units (default: all that are there); all units of a group take part.
        seed: of sampled output places.

    Returns:
        Scores on one scale over all groups; 0 for a unit that nothing reads.

    Raises:
        InputError: there is no data, or an unknown unit.
    """
    state = State.of(start)
    chosen = chosen_units(state, units)
    batches = list(entered(data, state.network))
    images = sum(map(len, batches))
    if not images:
        raise InputError("there is no data: least squares need images")
    groups = {unit.group for unit in chosen}
    scores = {name: score for path in _paths(state, batches, groups, seed) for name, score in path.items()}
    return from_scores(
        chosen,
        [scores.get(unit.name, 0.0) for unit in chosen],
        method="elimination",
        samples=images,
        forward_passes=PASSES * images,
        across_groups=True,
        given=tuple(unit.name for unit in state.removed),
    )


def _paths(state: State, batches: Sequence[Batch], groups: set[str], seed: int) -> Iterator[dict[str, float]]:
    """Unit -> score, group by group."""
    replay = Replay.of(state)
    cases = [case for case in cases_of(replay, fewest=1) if case.group.name in groups]
    for case, path in paths(replay, Replay(state.network), cases, batches, lambda _: [0], seed):
        yield _rising(case.units, path)
    streams = [case for case in cases if case.job is None]
    if streams:
        value = Intervention("carried").fit(replay, batches)
        for case in streams:
            yield _rising(case.units, jointly(replay, case, value))


def _rising(units: Sequence[Unit], path: Elimination) -> dict[str, float]:
    """Losses by unit, in the order in which they go none smaller than the one before."""
    found, last = {}, 0.0
    for place, loss in zip(path.order, path.losses, strict=True):
        last = max(loss, last * (1 + APART))
        found[units[place].name] = last
    return found


@scorer(
    "elimination",
    kind="criterion",
    summary="what a unit's readers lose for good when it goes and the others carry what they can (OSSCAR, OBC)",
    estimand="score",
    cost="one elimination per group, and three forward passes per image",
    guarantee="each step is the best single removal under the readers' own least squares",
    paper="OSSCAR, Meng et al., ICML 2024; OBC, Frantar & Alistarh, NeurIPS 2022",
    labels="no",
    most_images=FIT_IMAGES,
    scaling="invariant",
    duplicates="one-first",
)
def elimination(state: State, batches: Sequence[Batch], question: Question) -> Effects:
    """Eliminates units of the groups that are asked for, on as many of the first images as the budget pays for."""
    paid = cut_images(paid_images(batches, question.forward_passes, PASSES), FIT_IMAGES)[0]
    return elimination_scores(state, paid, units=question.units, seed=question.seed)
