"""One cell of the table of methods: a plan by the pipeline's own steps, and what is left after each repair."""

import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

import whyprune as wp
from benchmarks.methods_table_pairs import REPAIRS, Row, packed, unpacked
from benchmarks.methods_table_subject import Subject, composed
from whyprune.allocation.allocate import chosen_allocator, default_allocation
from whyprune.allocation.contract import NamedAllocator
from whyprune.devices import accuracy
from whyprune.effects.effects import Effects
from whyprune.methods import Method
from whyprune.pipeline.run import Run
from whyprune.pipeline.start import start_run
from whyprune.pipeline.steps import Chosen, choose, removed, repaired
from whyprune.scoring.contract import NamedScorer
from whyprune.structure.state import State
from whyprune.workspace.setup import choose_augmentation

AS_REGISTERED = {"batch_norm": "batch-norm", "refit": "refit"}
SAME = ("network", "test_images", "calibration_images", "views", "git_commit", "removed_digest")
"""Rows that agree in these cut the same units from the same network with the same code."""


@dataclass
class Passes:
    """Image-forwards as scorers and evaluators count them, over all rounds; one dense pass of an image is 1."""

    scored: float = 0.0
    evaluated: float = 0.0
    effects: Effects | None = None
    """What the scorer said last."""

    def counted(self, method: Method) -> Method:
        """The same method, its passes counted here."""
        judge, allocation = method.judge, method.allocation
        if isinstance(judge, NamedScorer):
            method = replace(method, scorer=replace(judge, function=self._scorer(judge)))
        if allocation is not None and isinstance(chosen := chosen_allocator(allocation), NamedAllocator):
            method = replace(method, allocation=replace(chosen, function=self._allocator(chosen)))
        return method

    def _scorer(self, judge: NamedScorer) -> Any:
        def asked(state: Any, batches: Any, question: Any) -> Any:
            found = judge.function(state, batches, question)
            self.scored, self.effects = self.scored + found.forward_passes, found
            return found

        return asked

    def _allocator(self, chosen: NamedAllocator) -> Any:
        def asked(space: Any, objective: Any, budget: Any, **more: Any) -> Any:
            before = 0.0 if objective.evaluator is None else objective.evaluator.forward_passes
            point = chosen.function(space, objective, budget, **more)
            if objective.evaluator is not None:
                self.evaluated += objective.evaluator.forward_passes - before
            return point

        return asked

    def allocation(self, method: Method, budget: wp.Budget) -> str:
        """Which allocation the method had, its own or what suits what the scorer said."""
        suited = "" if self.effects is None else default_allocation(self.effects, budget)
        return method.allocation_name or suited

    @property
    def total(self) -> float | None:
        """All of them; None where a scorer does not count."""
        both = self.scored + self.evaluated
        return both if np.isfinite(both) else None


def cell(subject: Subject, name: str, ratio: float, seed: int, known: Sequence[Row], about: Row) -> dict[str, Any]:
    """Plans once, as `whyprune prune` does, and measures the cut network as it is and after each repair.

    Args:
        subject: network and images.
        name: of the method.
        ratio: how many times fewer MACs.
        seed: of the calibration images and of everything drawn.
        known: rows of the record, whose measurements of the same units are taken over.
        about: fields of the row: key, settings, commit, command, machine.
    """
    method = gradient_free(composed(name))
    run = started(subject, name, method, ratio, seed)
    passes = Passes()
    run.method = passes.counted(run.method)
    start = time.process_time()
    chosen = choose(run)
    planning = time.process_time() - start
    bare = removed(run, chosen)
    cost, dense = run.network.cost(bare.removed), run.dense.cost()  # of a widened network, that of the one given
    row = {
        **about,
        "dense_top1_percent": subject.dense_top1_percent,
        "macs_ratio": cost.macs / dense.macs,
        "params_ratio": cost.params / dense.params,
        "removed_units": len(bare.removed),
        "removed_digest": digest(bare),
        "in_rounds": method.schedule.in_rounds,
        "planning_cpu_s": planning,
        "dense_pass_cpu_s": subject.dense_pass_cpu_s,
        "planning_dense_passes": planning / subject.dense_pass_cpu_s,
        "image_forwards": passes.total,
        **needs(name, method),
        "allocation": passes.allocation(method, run.budget),
        "notes": run.notes,
    }
    return row | accuracies(subject, run, bare, chosen, row, known)


def gradient_free(method: Method) -> Method:
    """The method without the fine-tuning between rounds that its schedule has: no row of this table is trained."""
    return replace(method, schedule=replace(method.schedule, recovery_epochs=0))


def started(subject: Subject, name: str, method: Method, ratio: float, seed: int) -> Run:
    """A run as `whyprune.prune` starts it, on all groups that it prunes by default."""
    images = subject.drawn(seed)
    plans = subject.settings(name)["search_plans"]
    effort = {} if plans is None else {"search_plans": plans}
    settings = wp.Settings(views=subject.views, latency=False, refute=False, effect_passes=0, **effort)
    left_out = dict.fromkeys(
        ("outcome", "outputs", "constraints", "training", "recovery", "recovery_data", "test", "workspace", "asked")
    )
    return start_run(
        subject.trained[0],
        images,
        budget=wp.Budget(macs=1 / ratio),
        example_inputs=images[0][0][:2],
        method=method,
        settings=settings,
        augment=choose_augmentation(subject.source.image_shape),
        resume=False,
        device=None,
        seed=seed,
        progress=False,
        **left_out,
    )


def needs(name: str, method: Method) -> dict[str, Any]:
    """Whether it used labels and gradients; the outcome, a shift of logits, needs no labels."""
    facts = method.facts()
    left_out = composed(name).schedule.recovery_epochs
    return {
        "labels": facts["labels"] == "yes",
        "gradients": bool(facts["gradients"]),
        "schedule": facts["schedule"],
        "fitness": facts.get("fitness", ""),
        "recovery_epochs_left_out": left_out,
    }


def digest(state: State) -> str:
    """Short for which units are gone."""
    return hashlib.sha256("\n".join(sorted(u.name for u in state.removed)).encode()).hexdigest()[:16]


def accuracies(
    subject: Subject, run: Run, bare: State, chosen: Chosen, row: Row, known: Sequence[Row]
) -> dict[str, Any]:
    """Top-1 percent and which images are right, as cut and after each repair; what is known is not measured again."""
    found: dict[str, Any] = {"right": {}, "repair_cpu_s": {}, "taken_from": {}}
    for repair in REPAIRS:
        other = same(row, known, repair)
        if other is None:
            start = time.process_time()
            state = mended(run, bare, chosen, repair)
            found["repair_cpu_s"][repair] = time.process_time() - start
            right = accuracy(state.model, subject.test, progress=False).correct
        else:
            right = unpacked(other["right"][repair], subject.test_images)
            found["taken_from"][repair] = f"{other['method']}, seed {other['seed']}"
        found["right"][repair] = packed(right)
        found[f"{repair}_top1_percent"] = 100 * float(np.mean(right))
    return found


def mended(run: Run, bare: State, chosen: Chosen, repair: str) -> State:
    """The cut network after a repair; a refit goes on from what rounds have refitted."""
    if repair == "plain":
        return bare
    now = replace(run, method=replace(run.method, repair=AS_REGISTERED[repair]))
    if repair == "refit":
        return repaired(now, bare, chosen)
    return repaired(now, bare, replace(chosen, state=bare, refitted=False))


def same(row: Row, known: Sequence[Row], repair: str) -> Row | None:
    """A row that measured the same network: the same units cut, and repaired from the same images."""

    def is_same(other: Row) -> bool:
        if "error" in other or any(other.get(field) != row[field] for field in SAME):
            return False
        if repair == "plain":
            return True
        refitted = repair == "refit" and (other["in_rounds"] or row["in_rounds"])
        return bool(other["seed"] == row["seed"] and not refitted)

    return next(filter(is_same, known), None)


def failed(about: Mapping[str, Any], error: Exception) -> dict[str, Any]:
    """The row of a method that gave no network, and why."""
    return {**about, "error": f"{type(error).__name__}: {error}"[:300]}
