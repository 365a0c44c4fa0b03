"""The contract of a scorer, as a check that anybody can run on their own."""

from dataclasses import replace

import numpy as np
import torch

from whyprune.effects.effects import ESTIMANDS, Effects
from whyprune.errors import InputError
from whyprune.scoring.contract import ALL_INTERVENTIONS, NamedScorer, Question, Scorer, ScorerFacts
from whyprune.scoring.registry import SCORERS
from whyprune.structure.remove import remove
from whyprune.structure.state import State
from whyprune.testing import planted
from whyprune.testing.symmetries import check_symmetries
from whyprune.testing.untouched import left_alone

ROUNDING = 1e-4
GONE = (planted.COPY, planted.BYSTANDER)
"""What a pruned state lacks here: a unit that matters, and one that does not."""
FITTED = ("optimal", "closed-form")
UNKNOWN = ScorerFacts("estimator", "", "", "", "", interventions=ALL_INTERVENTIONS, individual=True)
"""What is taken for granted of a function that says nothing of itself."""


def check_scorer(scorer: Scorer | str, *, question: Question | None = None, images: int = 96) -> Effects:
    """Runs a scorer on a small network with planted truth and checks what every scorer must keep.

    The same seed gives the same numbers; the network, its weights and torch's generator are left alone; units are named
    once each, in the network's order, with finite numbers; the result says which estimand it is, which
    intervention and what it cost; intervals contain the mean; individual effects are kept if they were asked for, and
    average to it; and a dead unit is not said to matter: an effect's interval contains 0, a score is the smallest, and
    a curve rises by no more than for most units of the group (a scorer that looks at no images cannot know a dead
    unit, and need not). In a network of which units are gone the same holds of those that are left. Units in another
    order get the same numbers (from a scorer that draws for every unit, within its intervals), and what the facts say
    of scaled weights and of copies holds. What its facts do not list is refused.

    Args:
        scorer: the scorer, or the name of one; of one that carries no facts, none is checked.
        question: what to ask; default: everything by default, with individual effects where there are any.
        images: how many images it gets.

    Returns:
        What it says of the network as it is.

    Raises:
        AssertionError: the contract is broken; the message says where.
        InputError: it is no scorer.
    """
    scorer = SCORERS(scorer) if isinstance(scorer, str) else scorer
    if not callable(scorer):
        raise InputError(f"{scorer!r:.60} is no scorer: give a function (state, batches, question) -> Effects")
    case = planted.case(1, images)
    facts = scorer.facts if isinstance(scorer, NamedScorer) else UNKNOWN
    question = question or Question(per_image=facts.individual)
    found = _check_state(scorer, facts, State.of(case.network), question, case)
    _check_state(scorer, facts, remove(State.of(case.network), [case.unit(k) for k in GONE]), question, case)
    if isinstance(scorer, NamedScorer):
        if question.forward_passes is None:  # what a budget pays for first may depend on the order of units
            check_symmetries(found, facts, lambda c: scorer(State.of(c.network), [c.batch], question), case)
        _check_refusals(scorer, State.of(case.network), case)
    return found


def _check_state(scorer: Scorer, facts: ScorerFacts, state: State, question: Question, case: planted.Case) -> Effects:
    """One state, judged twice, then two of its units."""
    batches = [case.batch]
    generator = torch.get_rng_state()
    with left_alone(state.network.model, state.model):
        found, again = scorer(state, batches, question), scorer(state, batches, question)
    assert torch.equal(generator, torch.get_rng_state()), "torch's global generator was used: draw from question.seed"
    assert isinstance(found, Effects), f"it gave {type(found).__name__}, not Effects"
    assert found.mean.tolist() == again.mean.tolist(), "the same seed gave other numbers"
    _check_shape(found, state, facts)
    _check_numbers(found, facts, question)
    _check_dead(found, case.unit(planted.DEAD), facts)
    some = (case.unit(planted.PLAIN), case.unit(planted.DEAD))
    few = scorer(state, batches, replace(question, units=some))
    assert set(few.units) == set(some), f"asked for units {some}, got {few.units}"
    return found


def _check_shape(found: Effects, state: State, facts: ScorerFacts) -> None:
    names = [unit.name for unit in state.units]
    assert list(found.units) == names, "units are not those that are there, each once, in the network's order"
    assert found.given == tuple(unit.name for unit in state.removed), "the result does not say what is gone"
    assert len(found.groups) == len(found.mean) == len(found.standard_error) == len(names)
    assert found.estimand in ESTIMANDS
    assert found.estimand != ("single" if state.removed else "conditional"), "the wrong one of single and conditional"
    assert found.method, "the result does not name its method"
    assert found.estimand in ("score", "curve") or found.intervention, "an effect without the value of its intervention"
    assert found.estimand == "score" or found.outcome, "an effect without its outcome"
    assert found.estimand != "context" or 0 < found.rate < 1, "a context effect without its rate"
    assert found.forward_passes > 0 or not facts.images, "the cost in forward passes is not counted"


def _check_numbers(found: Effects, facts: ScorerFacts, question: Question) -> None:
    assert np.isfinite(found.mean).all(), "effects that are not finite"
    low, high = found.interval
    stated = np.isfinite(low) & np.isfinite(high)
    assert (low[stated] <= found.mean[stated] + ROUNDING).all(), "an interval above its mean"
    assert (found.mean[stated] <= high[stated] + ROUNDING).all(), "an interval below its mean"
    if found.estimand not in ("score", "curve") and not found.approximate:
        assert stated.all(), "an unbiased estimate without an interval"
    if facts is not UNKNOWN:
        assert (found.per_image is not None) == question.per_image, "individual effects are not kept as asked for"
    if found.per_image is not None:
        assert found.per_image.shape[0] == len(found.units)
        assert np.allclose(found.per_image.mean(axis=1), found.mean, rtol=1e-3, atol=ROUNDING), "they have another mean"


def _check_dead(found: Effects, dead: str, facts: ScorerFacts) -> None:
    if not facts.images:
        return  # weights do not tell that a unit is dead
    index = found.units.index(dead)
    low, high = (bound[index] for bound in found.interval)
    if found.estimand == "curve":
        group = found.mean[np.array(found.groups) == found.groups[index]]
        assert found.mean[index] <= np.median(group) + ROUNDING, "a dead unit goes late"
    elif found.estimand == "score" or not (np.isfinite(low) or found.given):
        assert found.mean[index] <= found.mean.min() + ROUNDING, "a dead unit is ranked above another"
    elif not np.isfinite(low):  # where units are gone already, one more may do good: 0 is not the lowest effect
        assert abs(found.mean[index]) <= np.median(np.abs(found.mean)), "a dead unit is said to matter more than most"
    elif found.given and found.intervention in FITTED:  # a constant for a dead unit may mend what the others left
        assert low - ROUNDING <= 0, "a dead unit is said to do harm"
    else:
        assert low - ROUNDING <= 0 <= high + ROUNDING, "a dead unit is said to have an effect"


def _check_refusals(scorer: NamedScorer, state: State, case: planted.Case) -> None:
    """Whatever the facts do not list is refused before any work."""
    facts = scorer.facts
    unheard = [Question(intervention=value) for value in ALL_INTERVENTIONS if value not in facts.interventions]
    unheard += [] if facts.rated else [Question(rate=0.1)]
    unheard += [] if facts.reduces else [Question(reduction="sum")]
    unheard += [] if facts.individual else [Question(per_image=True)]
    unheard += [Question(kinds=(*facts.kinds, "head"))]
    for question in unheard:
        assert _refuses(scorer, state, case, question), f"{question} is not among its facts, and not refused"


def _refuses(scorer: NamedScorer, state: State, case: planted.Case, question: Question) -> bool:
    try:
        scorer(state, [case.batch], question)
    except InputError:
        return True
    return False
