"""The contract of a pruning method, as a check that anybody can run on their own."""

import copy
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import nn

from whyprune.allocation import Budget
from whyprune.errors import BudgetError
from whyprune.methods import Method, method_named
from whyprune.pipeline.result import Result
from whyprune.pipeline.settings import Settings
from whyprune.prune import prune
from whyprune.scoring.contract import NamedScorer
from whyprune.structure.file import load
from whyprune.testing import planted, variants
from whyprune.testing.symmetries import CLOSE
from whyprune.testing.untouched import left_alone

PLANS = 6
TEXTS = ("name", "summary", "scorer", "schedule", "repair", "estimand", "cost", "guarantee")


def check_method(method: str | Method, *, budget: Budget | None = None, images: int = 96) -> Result:
    """Prunes a small network with planted truth and checks what every method must keep.

    Its facts say what it is; the budget is met; the removal is proven; the network it was given is left alone; the same
    seed gives the same plan; the result comes back from its folder as it was; and a budget that nothing can meet ends
    in a `BudgetError` that names the smallest reachable ratio. With its channels in another order the network loses
    units of the same scores, where a method has one round, measures no plans and widens nothing, and its scorer draws
    for no unit.

    Args:
        method: the method, or the name of one.
        budget: what the result may cost; default: 70% of the MACs.
        images: how many images it gets.

    Returns:
        What it pruned to.

    Raises:
        AssertionError: the contract is broken; the message says where.
    """
    chosen = with_few_plans(method_named(method))
    facts = chosen.facts()
    for name in TEXTS:
        assert facts[name], f"the method does not say its {name}"
    case, budget = planted.case(1, images), budget or Budget(macs=0.7)
    before = copy.deepcopy(case.network.model)

    def run(model: nn.Module = case.network.model, budget: Budget = budget) -> Result:
        return prune(
            model,
            [(case.images, case.labels)],
            budget=budget,
            example_inputs=case.images[:2],
            method=chosen,
            settings=Settings(latency=False, refute=False, views=1, effect_images=48),
            seed=1,
            progress=False,
        )

    with left_alone(case.network.model):
        found, again = run(), run()
        _check_unreachable(run)
    measured = found.measurements
    assert budget.met_by(found.network.cost(found.network.select(found.plan.units)), found.network.cost()), (
        f"the budget {budget} is not met"
    )
    assert measured.verify.max_abs_difference <= measured.verify.tolerance, "the removal is not proven"
    assert measured.asked["method"] == found.plan.method == chosen.name, "the result is under another name"
    assert again.plan.units == found.plan.units, "the same seed gave another plan"
    _check_folder(found, before, case.images)
    if _is_ordered(chosen):
        _check_order(found, run)
    return found


def _is_ordered(method: Method) -> bool:
    """Whether channels in another order lose the same: rounds, searches, draws and copies see the order."""
    widens = method.allocation_facts is not None and method.allocation_facts.widens is not None
    seen = method.searches or method.schedule.in_rounds or widens
    return isinstance(method.judge, NamedScorer) and not (method.judge.facts.drawn or seen)


def with_few_plans(method: Method) -> Method:
    """The method, whose search, if it is one, measures no more plans than a check has time for."""
    if not method.searches or method.allocation_facts is None:
        return method
    return method.with_parts(search_plans=max(PLANS, method.allocation_facts.fewest_plans))


def _check_unreachable(run: Callable[..., Result]) -> None:
    said = ""
    try:
        run(budget=Budget(macs=1e-6))
    except BudgetError as error:
        said = str(error)
    assert "smallest reachable" in said, f"a budget that nothing can meet ended in {said!r}, not in what can be reached"


def _check_order(found: Result, run: Callable[..., Result]) -> None:
    """Which of two units with the same score goes may depend on their order, and nothing else."""
    model, _ = variants.in_another_order(found.network)
    other = run(model=model)
    assert found.plan.removed_per_group() == other.plan.removed_per_group(), (
        "channels in another order got other widths"
    )
    for group in found.plan.removed_per_group():
        scores, others = (
            np.sort([result.effects[name] for name in result.plan.units if name.startswith(f"{group}:")])
            for result in (found, other)
        )
        allowed = CLOSE * float(np.abs(found.effects.mean).max())
        assert np.allclose(scores, others, rtol=0, atol=allowed), (
            f"with channels in another order units of other scores go in {group!r}: {others}, not {scores}"
        )


def _check_folder(found: Result, fresh: torch.nn.Module, images: torch.Tensor) -> None:
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        found.save(Path(folder, "run"), onnx=False)
        loaded = load(copy.deepcopy(fresh), Path(folder, "run"))
        assert torch.equal(loaded(images), found.model(images)), "the result came back from its folder as another one"
