"""Are the effects right? Estimators of single, context and Shapley effects on ResNet-20 / CIFAR-10 against the truth.

* Truth of `single`: exact effects of all units on many test images, kept in --workspace, so that a rerun goes on.
* Coverage of `exact` and of the control variate of `adaptive`: images are drawn from that table again and again, which
  is the estimator itself, as both are functions of individual effects (and guesses).
* `adaptive` itself: runs on the network with a share of the cost of the truth; its ranks within layers, its intervals.
* `random-masks`: runs on the network against brute force for a sample of units: the same set with and without the unit.
* `shapley`: the long run of a sample of units is the population from which its pairs of orders are drawn again (does
  the interval hold?), and stretches of it are compared with the rest (is it the same quantity?). That the estimator
  is not biased cannot be shown at this size; `tests/causal/test_shapley.py` shows it by enumeration.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import spearmanr
from scipy.stats import t as t_distribution

import whyprune as wp
from benchmarks.common import arguments, cifar10, fingerprint, test_images, trained, write_record
from whyprune.causal.adaptive.control_variate import estimates
from whyprune.causal.adaptive.estimator import Race, race
from whyprune.causal.exact import exact_effects
from whyprune.causal.masks.random_masks import MaskDesign, masked_runs, regress
from whyprune.causal.masks.shapley import Orders, play
from whyprune.effects.effects import from_samples
from whyprune.effects.intervals import moments, skew_corrected
from whyprune.effects.outcomes import LogitShift
from whyprune.errors import MissingDependencyError
from whyprune.interventions.sensitivity import sensitivity
from whyprune.interventions.worlds import Worlds
from whyprune.scoring.contract import Question
from whyprune.scoring.registry import SCORERS
from whyprune.structure.replay import Replay
from whyprune.testing.matrix import WRONG, planted_outcomes

BLOCK, SAMPLES, REPEATS = 128, 256, 300
RATE = 0.05


class Unscaled(LogitShift):
    """`LogitShift` before it is divided by the spread of the logits, which depends on all images."""

    def fit(self, _dense: torch.Tensor, /) -> "Unscaled":
        """Itself."""
        return self


class Drawn:
    """The network on images drawn from those of `worlds`, independently."""

    def __init__(self, worlds: Worlds, count: int, rng: np.random.Generator) -> None:
        self.units, self.images = worlds.units, count
        self._worlds, self._numbers = worlds, rng.integers(0, worlds.images, count)

    def effects(self, masks: np.ndarray, images: np.ndarray) -> np.ndarray:
        """Effects of every row's set on its image."""
        return self._worlds.effects(masks, self._numbers[images])


def stored(path: Path, images: torch.Tensor, measure: Any) -> np.ndarray:
    """(units, images) numbers of all images, measured block by block; a file that is there is gone on with."""
    found = [np.load(path)[:, : len(images)]] if path.exists() else []
    done = found[0].shape[1] if found else 0
    for start in range(done, len(images), BLOCK):
        found.append(measure(images[start : start + BLOCK]))
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, np.concatenate(found, axis=1))
        print(f"{path.name}: {start + found[-1].shape[1]} of {len(images)} images", flush=True)
    return np.concatenate(found, axis=1).astype(np.float64)


def true_effects(network: wp.Network, images: torch.Tensor, workspace: Path) -> tuple[np.ndarray, float]:
    """Individual effects (units, images), unscaled, and the cost of exact effects per image."""
    outcome = Unscaled(scale=1.0)
    cost = exact_effects(network, [images[:2]], outcome=outcome).forward_passes / 2

    def measure(block: torch.Tensor) -> np.ndarray:
        found = exact_effects(network, [block], outcome=outcome, per_image=True).per_image
        assert found is not None
        return found

    return stored(workspace / "effects.npy", images, measure), cost


def guessed_effects(network: wp.Network, images: torch.Tensor, workspace: Path) -> np.ndarray:
    """Gradient guesses (units, images), unscaled."""

    def measure(block: torch.Tensor) -> np.ndarray:
        shifts = sensitivity(Replay(network), [block], LogitShift(), probes=16).shifts
        return shifts.double().square().mean(dim=0).float().numpy()

    return stored(workspace / "guesses.npy", images, measure)


def from_table(network: wp.Network, effects: np.ndarray, guesses: np.ndarray) -> list[dict[str, Any]]:
    """Coverage of what is a function of individual effects, by drawing images again."""
    names = [g.name for g in network.groups]
    groups = np.array([names.index(u.group) for u in network.units])
    rng, inside = np.random.default_rng(0), slice(0, guesses.shape[1])
    truth, smaller = effects.mean(axis=1), effects[:, inside].mean(axis=1)
    rows = []
    for n in (64, 128, SAMPLES):
        ranks: dict[str, list[float]] = {"exact": [], "adaptive": []}
        hits: dict[str, list[np.ndarray]] = {"exact": [], "exact, t-interval": [], "adaptive": []}
        for _ in range(REPEATS):
            drawn = effects[:, rng.integers(0, effects.shape[1], n)]
            about = {"outcome": "logit-shift", "intervention": "zero", "estimand": "single", "method": "exact"}
            low, high = from_samples(network.units, drawn.astype(np.float32), **about).interval
            hits["exact"].append((low <= truth) & (truth <= high))
            low, high = t_interval(drawn)
            hits["exact, t-interval"].append((low <= truth) & (truth <= high))
            many = rng.integers(0, guesses.shape[1], 4 * n)
            found = estimates(effects[:, many[:n]], guesses[:, many], groups)
            low, high = found.interval()
            ranks["exact"].append(within(groups, effects[:, many[:n]].mean(axis=1), smaller).mean())
            ranks["adaptive"].append(within(groups, found.mean, smaller).mean())
            hits["adaptive"].append((low <= smaller) & (smaller <= high))
        moving = truth > 0
        for name, held in hits.items():
            each = np.mean(held, axis=0)[moving]
            rows.append(
                {
                    "estimator": name,
                    "samples": n,
                    "coverage_percent": 100 * float(each.mean()),
                    "coverage_percent_worst_unit": 100 * float(each.min()),
                    "units": int(moving.sum()),
                    "repeats": REPEATS,
                    "spearman_within_layers": float(np.mean(ranks[name])) if name in ranks else None,
                }
            )
    return rows


def t_interval(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The plain t-interval of the means of (units, images), to compare with."""
    mean, error, _, samples = moments(values.T)
    half = t_distribution.ppf(0.975, samples - 1) * error
    return mean - half, mean + half


def within(groups: np.ndarray, found: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Spearman's rank correlation in every group."""
    return np.array([spearmanr(found[groups == g], truth[groups == g])[0] for g in np.unique(groups)])


def adaptive_runs(
    network: wp.Network, images: torch.Tensor, effects: np.ndarray, cost: float, options: argparse.Namespace
) -> list[dict[str, Any]]:
    """The estimator on the network, with a share of the cost of the truth."""
    scale = LogitShift().fit(torch.cat([Replay(network).logits(_batch(b)) for b in images.split(250)])).scale
    truth = effects.mean(axis=1) / (scale or 1.0)
    rows = []
    for seed in range(1 if options.quick else options.seeds):
        budget = options.share * cost * effects.shape[1]
        verdict = race(network, [images], Race(seed=seed), Question(forward_passes=budget))
        found = verdict.effects
        low, high = found.interval
        ranks = within(np.array(found.groups), found.mean, truth)
        lowest = {found.units[k] for k in np.argsort(truth)[: len(verdict.goes)]}
        rows.append(
            {
                "estimator": "adaptive",
                "seed": seed,
                "spearman_within_layers": float(np.mean(ranks)),
                "spearman_worst_layer": float(np.min(ranks)),
                "cost_ratio": float(found.forward_passes) / (cost * effects.shape[1]),
                "coverage_percent_of_units": 100 * float(np.mean((low <= truth) & (truth <= high))),
                "images_least": int(verdict.images.min()),
                "images_mean": float(verdict.images.mean()),
                "images_most": int(verdict.images.max()),
                "rounds": verdict.rounds,
                "settled": verdict.settled,
                "undecided_units": len(verdict.undecided),
                "goes_rightly_percent": 100 * len(lowest & set(verdict.goes)) / len(lowest),
            }
        )
        print(rows[-1], flush=True)
    return rows


def mask_runs(worlds: Worlds, options: argparse.Namespace) -> list[dict[str, Any]]:
    """`random-masks` against brute force: each sampled unit gone and there, beside the same random set."""
    rng, count = np.random.default_rng(1), len(worlds.units)
    draws, runs, rows = (48, 2, 1600) if options.quick else (400, 10, 4000)
    sample = np.linspace(0, count - 1, options.sample).astype(int)
    truth, error = np.zeros(len(sample)), np.zeros(len(sample))
    for place, unit in enumerate(sample):
        without = rng.random((draws, count)) < RATE
        without[:, unit] = False
        gone = without.copy()
        gone[:, unit] = True
        images = rng.integers(0, worlds.images, draws)
        marginal = np.diff(worlds.effects(np.concatenate([without, gone]), np.tile(images, 2)).reshape(2, -1), axis=0)
        truth[place], error[place] = marginal.mean(), marginal.std(ddof=1) / np.sqrt(draws)
    found = []
    for seed in range(runs):
        fit = regress(masked_runs(Drawn(worlds, rows // 2, rng), MaskDesign(RATE, rows, seed=seed)))
        half = np.hypot(fit.half_width[sample], 1.96 * error)
        found.append(
            {
                "estimator": "random-masks",
                "seed": seed,
                "masks": rows,
                "rate": RATE,
                "units": len(sample),
                "coverage_percent": 100 * float((np.abs(fit.mean[sample] - truth) <= half).mean()),
                "half_width_median": float(np.median(fit.half_width[sample])),
                "truth_error_median": float(np.median(error)),
                "truth_median": float(np.median(truth)),
            }
        )
        print(found[-1], flush=True)
    return found


def shapley_run(worlds: Worlds, options: argparse.Namespace) -> dict[str, Any]:
    """One long run of a few units; its pairs are drawn again, and its stretches compared with the rest."""
    rng, count = np.random.default_rng(2), len(worlds.units)
    pairs, units = (SAMPLES, 8) if options.quick else (4 * SAMPLES, 16)
    wanted = np.isin(np.arange(count), np.linspace(0, count - 1, units).astype(int))
    played = play(Drawn(worlds, pairs, rng), Orders(pairs=pairs, remove=0, seed=2), wanted)
    values = played.values[:, wanted]
    truth, hits, apart = values.mean(axis=0), [], []
    for _ in range(REPEATS):
        low, high = skew_corrected(*moments(values[rng.integers(0, pairs, SAMPLES)]))
        hits.append((low <= truth) & (truth <= high))
    for part in np.array_split(rng.permutation(pairs), 4):
        mean, error, _, _ = moments(values[part])
        rest, rest_error, _, _ = moments(np.delete(values, part, axis=0))
        apart.append(np.abs(mean - rest) <= 1.98 * np.hypot(error, rest_error))
    return {
        "estimator": "shapley",
        "samples": SAMPLES,
        "pairs_in_all": pairs,
        "units": units,
        "coverage_percent": 100 * float(np.mean(hits)),
        "stretches_agree_percent": 100 * float(np.mean(apart)),
        "values": truth.tolist(),
        "standard_errors": moments(values)[1].tolist(),
    }


def matrix() -> list[dict[str, Any]]:
    """Every estimator on every planted case; those whose optional library is missing are left out, and say so."""
    rows: list[dict[str, Any]] = []
    for name in (n for n in SCORERS if SCORERS(n).facts.kind == "estimator"):
        try:
            rows.append({"estimator": name, "planted": planted_outcomes(SCORERS(name))})
        except MissingDependencyError as error:
            rows.append({"estimator": name, "planted": {}, "left_out": str(error)})
    return rows


def _batch(images: torch.Tensor) -> Any:
    return wp.data.as_batch(images)


def run(options: argparse.Namespace) -> None:
    """Measures, and writes the record."""
    torch.set_num_threads(options.threads)
    source = cifar10()
    model, normalization = trained("resnet20")
    count = options.images or (512 if options.quick else 10_000)
    images = torch.cat([x for x, _ in test_images(source, normalization, count)])
    network = wp.trace(model, images[:2])
    planted_rows = matrix()
    print(*planted_rows, sep="\n", flush=True)
    effects, cost = true_effects(network, images, options.workspace)
    guesses = guessed_effects(network, images[: min(count, 2048)], options.workspace)
    rows = from_table(network, effects, guesses)
    print(*rows, sep="\n", flush=True)
    runs = adaptive_runs(network, images, effects, cost, options)
    worlds = Worlds(network, [images[: min(count, 2048)]])
    masks = mask_runs(worlds, options)
    orders = shapley_run(worlds, options)
    print(orders, flush=True)
    coverage = {r["estimator"]: r["coverage_percent"] for r in rows if r["samples"] == SAMPLES}
    coverage["random-masks"] = float(np.mean([r["coverage_percent"] for r in masks]))
    coverage["shapley"] = orders["coverage_percent"]
    claimed = {name: coverage[name] for name in ("exact", "random-masks", "adaptive", "shapley")}
    headline = {
        "interval_coverage_percent": max(claimed.values(), key=lambda c: abs(c - 95)),
        **{f"interval_coverage_percent_{name.replace('-', '_')}": c for name, c in claimed.items()},
        "interval_coverage_percent_exact_t": coverage["exact, t-interval"],
        "planted_wrong": sum(o == WRONG for r in planted_rows for o in r["planted"].values()),
        "adaptive_spearman": float(np.mean([r["spearman_within_layers"] for r in runs])),
        "adaptive_spearman_worst_layer": float(np.min([r["spearman_worst_layer"] for r in runs])),
        "adaptive_cost_ratio": float(np.mean([r["cost_ratio"] for r in runs])),
        "estimators_in_matrix": sum(bool(r["planted"]) for r in planted_rows),
        "images": count,
        "units": len(network.units),
    }
    every = [*planted_rows, *rows, *runs, *masks, orders]
    write_record("effect_validity", options, headline, every, data_fingerprint=fingerprint(source))


if __name__ == "__main__":
    parser = arguments(__doc__ or "")
    parser.add_argument("--workspace", type=Path, required=True, help="folder where exact effects are kept")
    parser.add_argument("--images", type=int, help="test images of the truth (10,000; quick: 512)")
    parser.add_argument("--share", type=float, default=0.1, help="of the truth's cost that `adaptive` may spend")
    parser.add_argument("--sample", type=int, default=40, help="units with context effects by brute force")
    parser.add_argument("--threads", type=int, default=2)
    run(parser.parse_args())
