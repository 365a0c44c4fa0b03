"""The metrics of `causal_tools`: an estimate against what interventions on audit images gave."""

from collections import defaultdict
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F
from scipy.stats import spearmanr
from torch import nn

import whyprune as wp
from benchmarks.causal_tools_networks import Case
from whyprune.effects.effects import Effects
from whyprune.interventions.worlds import Worlds
from whyprune.scoring.contract import Question
from whyprune.scoring.registry import SCORERS

SHARES = (0.05, 0.1, 0.3)
BOTTOM = 0.25


@dataclass
class Truth:
    """What the audit images say, measured once for each estimand."""

    case: Case
    outcome: str
    depth: float
    subsets: int
    known: dict[tuple[str, str, float], Effects] = field(default_factory=dict)

    @cached_property
    def single(self) -> Effects:
        """Single effects of setting units to zero, of all units on all audit images."""
        return self._measured("exact", "zero", None, None)

    def of(self, found: Effects) -> Effects | None:
        """The effects of the same estimand and intervention; None where there is no truth to compare with."""
        names = {"single": "exact", "context": "random-masks", "shapley": "shapley"}
        if found.estimand not in names:
            return None
        if found.estimand == "single" and found.intervention == "zero":
            return self.single
        key = (found.estimand, found.intervention, found.rate if found.estimand == "context" else 0.0)
        if key not in self.known:
            forward_passes = None if found.estimand == "single" else self.depth * len(self.case.network.units)
            self.known[key] = self._measured(names[found.estimand], found.intervention, forward_passes, key[2] or None)
        return self.known[key]

    def _measured(self, method: str, intervention: str, forward_passes: float | None, rate: float | None) -> Effects:
        question = Question(
            self.case.outcome(self.outcome), intervention, forward_passes=forward_passes, rate=rate, seed=99
        )
        return SCORERS(method)(self.case.network, [self.case.audit], question)

    @cached_property
    def worlds(self) -> Worlds:
        """128 of the audit images, on which joint effects are measured."""
        return Worlds(self.case.network, [self.case.audit[slice(0, 128)]], outcome=self.case.outcome(self.outcome))

    @cached_property
    def joint(self) -> dict[float, tuple[np.ndarray, np.ndarray]]:
        """Share of units -> (masks (subsets, units), joint effects (subsets,))."""
        worlds = self.worlds
        rng = np.random.default_rng(7)
        found = {}
        for share in SHARES:
            count = max(2, int(share * len(worlds.units)))
            masks = np.zeros((self.subsets, len(worlds.units)), dtype=bool)
            for mask in masks:
                mask[rng.choice(len(worlds.units), count, replace=False)] = True
            found[share] = masks, np.array([worlds.joint(mask).mean() for mask in masks])
        return found


def judged(found: Effects, truth: Truth) -> dict[str, float | None]:
    """All metrics that need no pruning; None where a metric does not apply."""
    single, mean = truth.single.mean, found.mean
    row: dict[str, float | None] = {
        "spearman": rank_correlation(mean, single),
        "spearman_within": within(found.groups, mean, single),
        "bottom_overlap": _overlap(mean, single),
    }
    for share, (masks, effects) in truth.joint.items():
        row[f"joint_r2_{share:g}"] = _spread(masks @ mean, effects)
    claimed = truth.of(found)
    if claimed is None:
        return row
    low, high = found.interval
    stated = np.isfinite(low) & np.isfinite(high)
    error = np.where(np.isfinite(claimed.standard_error), claimed.standard_error, 0)
    inside = (low - 2 * error <= claimed.mean) & (claimed.mean <= high + 2 * error)
    strict = (low <= claimed.mean) & (claimed.mean <= high)
    large = np.abs(claimed.mean) > 2 * error
    return row | {
        "claimed_spearman": rank_correlation(mean, claimed.mean),
        "sign_accuracy": float((np.sign(mean) == np.sign(claimed.mean))[large].mean()) if large.any() else None,
        "mae": float(np.abs(mean - claimed.mean).mean()),
        "mae_over_mean_effect": float(np.abs(mean - claimed.mean).mean() / np.abs(claimed.mean).mean()),
        "coverage": float(strict[stated].mean()) if stated.any() else None,
        "coverage_allowing_truth_error": float(inside[stated].mean()) if stated.any() else None,
        "coverage_of_single": float(((low <= single) & (single <= high))[stated].mean()) if stated.any() else None,
        "interval_width": float((high - low)[stated].mean()) if stated.any() else None,
        "calibration_slope": _slope(mean, claimed.mean),
    }


def lowest(case: Case, scores: np.ndarray, share: float) -> list[str]:
    """Names of the units to remove: the lowest scores first, a tenth of every group stays."""
    units, count = case.network.units, int(share * len(case.network.units))
    left = {g.name: len(g.units) - max(1, len(g.units) // 10) for g in case.network.groups}
    chosen: list[str] = []
    for k in np.argsort(scores, kind="stable"):
        if len(chosen) == count:
            break
        if left[units[k].group]:
            left[units[k].group] -= 1
            chosen.append(units[k].name)
    return chosen


def pruned_accuracy(case: Case, names: list[str], *, recovered: bool) -> dict[str, float]:
    """Audit accuracy in percent: plain, batch norm re-estimated; if asked for, refitted and fine-tuned with labels."""
    plain = wp.remove(case.network, names)
    found = {
        "plain": plain,
        "batch_norm": wp.reestimate_batch_norm(plain, [case.pool]),
    }
    if recovered:
        found["refit"] = wp.repair(wp.State(case.network, plain, case.network.select(names)), [case.pool]).model
        found["fine_tuned"] = _fine_tuned(case, plain)
    return {name: _accuracy(case, model) for name, model in found.items()}


def _accuracy(case: Case, model: nn.Module) -> float:
    with torch.no_grad():
        right = model(case.audit.args[0]).argmax(dim=1) == case.audit.labels
    return 100 * float(right.float().mean())


def _fine_tuned(case: Case, plain: nn.Module, epochs: int = 3) -> nn.Module:
    """AdamW on the images the network learnt from, the same for everybody."""
    tuned = wp.reestimate_batch_norm(plain, [case.pool]).train()
    optimizer = torch.optim.AdamW(tuned.parameters(), 2e-3, weight_decay=0.01)
    generator = torch.Generator().manual_seed(0)
    for _ in range(epochs):
        for rows in torch.randperm(len(case.learnt), generator=generator).split(64):
            part = case.learnt[rows]
            optimizer.zero_grad()
            F.cross_entropy(tuned(part.args[0]), part.labels).backward()
            optimizer.step()
    return tuned.eval()


def within(groups: tuple[str, ...], one: np.ndarray, other: np.ndarray) -> float | None:
    """Mean over groups of at least five units of the rank correlation inside."""
    members = defaultdict(list)
    for k, group in enumerate(groups):
        members[group].append(k)
    found = [rank_correlation(one[m], other[m]) for m in members.values() if len(m) >= 5]
    return float(np.mean(found)) if found else None


def rank_correlation(one: np.ndarray, other: np.ndarray) -> float:
    """Spearman's; 0 where either is constant."""
    if np.ptp(one) == 0 or np.ptp(other) == 0:
        return 0.0
    return float(spearmanr(one, other)[0])


def _overlap(one: np.ndarray, other: np.ndarray) -> float:
    count = max(1, int(BOTTOM * len(one)))
    return len(set(np.argsort(one)[:count]) & set(np.argsort(other)[:count])) / count


def _spread(predicted: np.ndarray, measured: np.ndarray) -> float:
    """Squared correlation: scores have no unit."""
    return 0.0 if np.ptp(predicted) == 0 else float(np.corrcoef(predicted, measured)[0, 1] ** 2)


def _slope(estimate: np.ndarray, truth: np.ndarray) -> float | None:
    return None if np.ptp(estimate) == 0 else float(np.polyfit(estimate, truth, 1)[0])
