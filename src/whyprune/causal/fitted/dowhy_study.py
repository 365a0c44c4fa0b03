"""`dowhy`: the four steps of DoWhy (model, identify, estimate, refute) on runs of the network.

Sharma and Kiciman, DoWhy: an end-to-end library for causal inference, 2020, arXiv:2011.04216. [P] the steps, the
estimator (linear regression with back-door adjustment) and the refuters are DoWhy's. [I] what it is given: masks drawn
at random, for which the question is identified by design; and covariates as a flat list. The network's own wiring as a
graph makes identification run through all subsets of its paths; so do the defaults beyond some 30 covariates.

On random masks the answer is a `context` effect with an interval that holds. On summaries of runs as they are it is
not the effect of anything: the image drives every unit, and no covariate blocks that. DoWhy's refuters do not tell:
they ask whether the estimate is stable, not whether it is right.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from whyprune.causal.fitted.designs import Design, design
from whyprune.causal.fitted.extra import quiet, required
from whyprune.causal.fitted.scm import affordable
from whyprune.data.batches import Batch
from whyprune.effects.effects import Effects
from whyprune.errors import InputError
from whyprune.interventions.suffix import chosen_units
from whyprune.progress import Progress
from whyprune.scoring.contract import WITHOUT_CARRIED, Question, scorer
from whyprune.structure.state import State

Adjust = Literal["none", "all", "same", "before"]
ADJUSTED = 64
LEVEL = 0.05
WARNING = (
    "DoWhy's refuters ask whether an estimate is stable. Inside networks they also passed estimates that were wrong, "
    "some of them in sign: passing is no evidence that this number is right. An intervention on held-out images is."
)
REFUTERS: dict[str, tuple[str, dict[str, Any]]] = {
    "placebo": ("placebo_treatment_refuter", {"placebo_type": "permute"}),
    "random common cause": ("random_common_cause", {}),
    "data subset": ("data_subset_refuter", {"subset_fraction": 0.8}),
    "bootstrap": ("bootstrap_refuter", {"required_variables": False}),
}
ASKS = {
    "placebo": "with the treatment shuffled over runs, the effect",
    "random common cause": "with a covariate of pure noise added, the effect",
    "data subset": "on random subsets of 80% of the runs, the effect",
    "bootstrap": "on runs drawn anew with replacement, the effect",
}


@dataclass(frozen=True)
class DoWhyRefutation:
    """What one refuter found.

    Attributes:
        name: which one.
        passed: p > 0.05: not refuted.
        p_value: two-sided.
        effect: the mean effect in its simulations.
        sentence: the same in words.
    """

    name: str
    passed: bool
    p_value: float
    effect: float
    sentence: str


@dataclass(frozen=True)
class DoWhyStudy:
    """The four steps for one treatment.

    Attributes:
        treatment: the unit or block.
        outcome: the outcome's name.
        steps: model, identify, estimate, refute: a sentence each.
        estimate: effect of the treatment's going on the outcome.
        standard_error: of the estimate.
        interval: 95%.
        refutations: one for each refuter that was question.
        warning: what passing them does not mean.
    """

    treatment: str
    outcome: str
    steps: tuple[str, ...]
    estimate: float
    standard_error: float
    interval: tuple[float, float]
    refutations: tuple[DoWhyRefutation, ...]
    warning: str = WARNING

    def __str__(self) -> str:
        told = "\n".join(f"  {r.sentence}" for r in self.refutations)
        return "\n".join([*self.steps, *([told, self.warning] if self.refutations else [])])


@scorer(
    "dowhy",
    kind="estimator",
    summary="DoWhy's linear regression on random masks, unit by unit",
    estimand="context effect at rate p (default 5%)",
    cost="one forward pass per mask, by default 32 masks per unit",
    guarantee="that of least squares; the same numbers as our own regression, more slowly",
    paper="Sharma and Kiciman, DoWhy, arXiv 2011.04216",
    interventions=WITHOUT_CARRIED,
    rated=True,
    extra="causal",
    libraries=("dowhy",),
    scaling="invariant",
    drawn=True,
)
def dowhy(state: State, batches: Sequence[Batch], question: Question) -> Effects:
    """One regression for each unit on runs under random masks.

    With up to 64 units the masks of all others are covariates; beyond that there are none: the masks are independent,
    so that this costs precision and no bias.

    Raises:
        MissingDependencyError: the extra `causal` is not installed.
        InputError: too few images or forward passes.
    """
    required("dowhy")
    worlds = affordable(state, batches, question, 10**9)
    chosen = chosen_units(state, question.units)
    table = design(worlds, question)
    adjust: Adjust = "all" if len(worlds.units) <= ADJUSTED else "none"
    found = []
    with Progress(question.progress) as bars:
        bar = bars.add("Estimating with DoWhy", len(chosen))
        for unit in chosen:
            found.append(_estimated(table, table.column(unit.name), adjust)[1:])
            bars.advance(bar)
    mean, error = (np.array([f[k] for f in found]) for k in (0, 1))
    parameters = 1 + (len(worlds.units) if adjust == "all" else 1)
    return Effects(
        units=tuple(u.name for u in chosen),
        groups=tuple(u.group for u in chosen),
        mean=mean,
        standard_error=error,
        samples=len(table.outcome),
        outcome=table.title,
        intervention=worlds.value.value,
        estimand="context",
        method="dowhy",
        given=worlds.given,
        rate=table.rate,
        forward_passes=worlds.forward_passes,
        degrees_of_freedom=float(max(len(table.outcome) - parameters, 1)),
    )


def dowhy_study(
    table: Design,
    treatment: str,
    *,
    adjust: Adjust = "all",
    refuters: Sequence[str] = tuple(REFUTERS),
    simulations: int = 100,
    seed: int = 0,
) -> DoWhyStudy:
    """DoWhy's four steps for one unit or block of a design.

    Args:
        table: the runs (`whyprune.causal.fitted.designs.design`).
        treatment: a column's name.
        adjust: columns taken as common causes: `none`, `all` others, those of the `same` site, or those of the site
            `before`. Beyond some 500 DoWhy becomes slow.
        refuters: which of DoWhy's refuters to run, of `REFUTERS`.
        simulations: of each; at least 100, below which DoWhy's p is one-sided.
        seed: of the refuters.

    Raises:
        MissingDependencyError: the extra `causal` is not installed.
        InputError: an unknown name, or fewer than 100 simulations.
    """
    unknown = sorted(set(refuters) - REFUTERS.keys())
    if unknown:
        raise InputError(f"no refuter named {unknown[0]!r}: choose from {', '.join(REFUTERS)}")
    if simulations < 100:
        raise InputError(f"{simulations} simulations: give at least 100, below which DoWhy's p-values are one-sided")
    column = table.column(treatment)
    causes = _causes(table, column, adjust)
    parts, estimate, error, interval = _estimated(table, column, adjust)
    done = tuple(_refuted(parts, name, estimate, simulations, seed) for name in refuters)
    steps: tuple[str, ...] = _sentences(table, treatment, len(causes), estimate, interval)
    if done:
        steps = (*steps, f"Refute: {sum(r.passed for r in done)} of {len(done)} checks passed.")
    return DoWhyStudy(treatment, table.title, steps, estimate, error, interval, done)


def _causes(table: Design, column: int, adjust: Adjust) -> list[int]:
    others = [k for k in range(len(table.names)) if k != column]
    if adjust == "all":
        return others
    if adjust in ("same", "before"):
        tier = table.tier[column] - (adjust == "before")
        return [k for k in others if table.tier[k] == tier]
    if adjust != "none":
        raise InputError(f"no adjustment {adjust!r}: choose none, all, same or before")
    return []


def _estimated(
    table: Design, column: int, adjust: Adjust
) -> tuple[tuple[Any, Any, Any], float, float, tuple[float, float]]:
    """((model, estimand, estimate), estimate, standard error, interval)."""
    library, pandas = required("dowhy"), required("pandas")
    causes = _causes(table, column, adjust)
    frame = pandas.DataFrame(table.values[:, [column, *causes]], columns=["t", *(f"w{k}" for k in causes)])
    frame["y"] = table.outcome
    before, after = (0.0, 1.0) if table.regime != "observational" else (float(table.values[:, column].mean()), 0.0)
    with quiet(0):
        model = library.CausalModel(frame, treatment="t", outcome="y", common_causes=[f"w{k}" for k in causes])
        estimand = model.identify_effect(proceed_when_unidentifiable=True, method_name="maximal-adjustment")
        found = model.estimate_effect(
            estimand,
            method_name="backdoor.linear_regression",
            effect_modifiers=[],
            control_value=before,
            treatment_value=after,
        )
        low, high = np.sort(np.ravel(found.get_confidence_intervals())).tolist()
        error = float(abs(np.ravel(found.get_standard_error())[0]))
    return (model, estimand, found), float(found.value), error, (low, high)


def _refuted(parts: tuple[Any, Any, Any], name: str, estimate: float, simulations: int, seed: int) -> DoWhyRefutation:
    model, estimand, found = parts
    method, options = REFUTERS[name]
    state = np.random.RandomState(seed)  # given a number, two refuters draw the same rows every time
    with quiet(seed):
        result = model.refute_estimate(
            estimand, found, method_name=method, num_simulations=simulations, random_state=state, **options
        )
    p, effect = float(result.refutation_result["p_value"]), float(np.mean(result.new_effect))
    passed = p > LEVEL
    target = "0" if name == "placebo" else f"the estimate {estimate:.3g}"
    verdict = "passed" if passed else "failed"
    sentence = (
        f"{name.capitalize()}: {verdict}: {ASKS[name]} is {effect:.3g}, which "
        f"{'agrees' if passed else 'does not agree'} with {target} (p = {p:.2g})."
    )
    return DoWhyRefutation(name, passed, p, effect, sentence)


def _sentences(
    table: Design, treatment: str, causes: int, estimate: float, interval: tuple[float, float]
) -> tuple[str, str, str]:
    taken = f"{causes} other columns are taken as common causes" if causes else "no common cause is assumed"
    if table.regime == "observational":
        model = f"Model: the mean activation of {treatment} may cause {table.title}; {taken}."
        identify = (
            "Identify: by back-door adjustment, if nothing else drives both. In a network that is not so: the image "
            "drives every unit."
        )
        what = f"setting {treatment} from its mean to 0"
    else:
        model = (
            f"Model: whether {treatment} is gone, drawn at random with probability {table.rate:g}, may cause the "
            f"change of {table.title}; {taken}."
        )
        identify = "Identify: by design: the masks were drawn at random, so nothing drives both them and the outcome."
        what = f"removing {treatment}, others being gone at random,"
    low, high = interval
    return (
        model,
        identify,
        f"Estimate: {what} changes {table.title} by {estimate:.3g} (95% interval {low:.3g} to {high:.3g}), by linear "
        f"regression on {len(table.outcome)} runs.",
    )
