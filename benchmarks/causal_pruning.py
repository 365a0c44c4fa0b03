"""What the causal insight is worth to pruning: which widths, and which channels, everything else alike.

ResNet-56 on CIFAR-10, the channels inside blocks, 1,024 unlabelled training images, no gradient steps, the same
closed-form repair for all. Two questions, each answered with paired differences over calibration seeds:

* widths: the same channels (least squares: by elimination) at widths from measured response curves, uniform ones, and
  those of a global ranking by L2 norm and by Taylor;
* channels: at the widths of the measured curves, the channels by least squares (elimination), by conditional effects
  measured in rounds on the repaired network (`rounds`: elimination again; `carried`: effects on the logits of what the
  others cannot carry), by L2 norm, by Taylor, and at random.

Every row says how many of its channels an L2 ranking would have removed as well: where rankings agree, there is nothing
to be won.
"""

import argparse
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
from scipy import stats
from torch import nn

import whyprune as wp
from benchmarks.common import (
    RESULTS,
    Stopwatch,
    arguments,
    calibration,
    cifar10,
    fingerprint,
    merged,
    test_images,
    trained,
    write_record,
)
from whyprune.allocation import allocate_curves
from whyprune.causal.exact import exact_effects
from whyprune.causal.response.curves import response_curves
from whyprune.data import Augmentation, Loader
from whyprune.data.batches import cut_images, split_images
from whyprune.data.calibration import Calibration, calibrate
from whyprune.devices import accuracy
from whyprune.effects.joint import joint_effect
from whyprune.structure.state import State
from whyprune.structure.units import Unit

STREAM = ("conv1", "layer2.0.conv2", "layer3.0.conv2")
WIDTHS = ("curves", "uniform", "global-l2", "global-taylor")
CHANNELS = ("elimination", "rounds", "carried", "magnitude-l2", "taylor", "random")
EFFECT_IMAGES = 64
FIT_IMAGES = 512
ROUNDS = 3
KEY = ("fewer_macs", "widths", "channels", "seed")

Widths = Mapping[str, int]
"""Group -> how many of its units go."""
Judge = Callable[[nn.Module | None, Sequence[Unit]], Mapping[str, float]]
"""(the network as it is now, what is gone) -> harm by unit."""


class Seed:
    """Everything that is measured once for a calibration seed."""

    def __init__(self, network: wp.Network, loader: Loader, seed: int, quick: bool) -> None:
        self.network, self.seed, self.quick = network, seed, quick
        self.widths = cache(self._widths)
        self.images: Calibration = calibrate(loader, 1, Augmentation(), seed)
        self.few = cut_images(self.images.view(7), 32 if quick else EFFECT_IMAGES)[0]
        fit = self.images.view(1)
        self.curves = response_curves(network, *split_images(cut_images(fit, 640)[0]), seed=seed)
        self.effects = {
            name: wp.estimate(network, fit, method=name, seed=seed) for name in ("magnitude-l2", "taylor", "random")
        }

    def _widths(self, name: str, budget: wp.Budget) -> Widths:
        """How many units of each group go."""
        if name == "curves":
            plan = allocate_curves(self.network, self.curves, budget)
        else:
            effects = self.effects["taylor" if name == "global-taylor" else "magnitude-l2"]
            plan = wp.allocate(self.network, effects, budget, allocation="uniform" if name == "uniform" else "global")
        return plan.removed_per_group()

    def channels(self, name: str, widths: Widths) -> list[Unit]:
        """Which units go, so many of each group."""
        if name in ("rounds", "carried"):
            return self._in_rounds(widths, self._eliminated if name == "rounds" else self._carried)
        if name == "elimination":
            orders = {group: curve.order for group, curve in self.curves.items()}
            return [self.network.by_name[u] for group, count in widths.items() for u in orders[group][:count]]
        scores = self.effects[name].by_unit()
        return [u for g, count in widths.items() for u in _smallest(self.network.group(g).units, scores, count)]

    def _in_rounds(self, widths: Widths, judge: Judge) -> list[Unit]:
        """A part of the way at a time; judged on the network without what is gone, repaired."""
        gone: list[Unit] = []
        model: nn.Module | None = None
        for part in range(1, ROUNDS + 1):
            scores = judge(model, gone)
            for group, count in widths.items():
                have = [u for u in gone if u.group == group]
                left = [u for u in self.network.group(group).units if u not in have]
                gone += _smallest(left, scores, round(count * part / ROUNDS) - len(have))
            if part < ROUNDS:
                chosen = self.network.select(gone)
                view = cut_images(self.images.view(10 + part), FIT_IMAGES)[0]
                model = wp.repair(wp.remove(wp.State.of(self.network), chosen), view, seed=self.seed).model
        return gone

    def _state(self, model: nn.Module | None, gone: Sequence[Unit]) -> State:
        return State(self.network, self.network.model if model is None else model, tuple(gone))

    def _carried(self, model: nn.Module | None, gone: Sequence[Unit]) -> Mapping[str, float]:
        return exact_effects(self._state(model, gone), self.few, intervention="carried").by_unit()

    def _eliminated(self, model: nn.Module | None, gone: Sequence[Unit]) -> Mapping[str, float]:
        """Places in the order in which a group's units go; what the curve measures does not matter here."""
        fit = cut_images(self.images.view(1), FIT_IMAGES)[0]
        found = response_curves(self._state(model, gone), fit, cut_images(self.few, 2)[0], seed=self.seed)
        places = {u: float(k) for curve in found.values() for k, u in enumerate(curve.order)}
        return {u.name: places.get(u.name, float("inf")) for u in self.network.units}


def _smallest(units: Sequence[Unit], scores: Mapping[str, float], count: int) -> list[Unit]:
    return sorted(units, key=lambda u: scores[u.name])[: max(count, 0)]


def row(seed: Seed, units: Sequence[Unit], rivals: Sequence[Unit], test: Loader, views: int) -> dict[str, Any]:
    """Removes, repairs and measures; `rivals` is what an L2 ranking removes at these widths."""
    watch = Stopwatch()
    network = seed.network
    chosen = network.select(units)
    pruned = wp.remove(network, chosen)
    repaired = wp.repair(wp.State(network, pruned, chosen), seed.images.views(range(views)), seed=seed.seed).model
    cost = network.cost(chosen)
    return {
        "macs_ratio": cost.macs / network.cost().macs,
        "params_ratio": cost.params / network.cost().params,
        "also_removed_by_l2_percent": 100 * len({u.name for u in units} & {u.name for u in rivals}) / len(units),
        "joint_effect": joint_effect(State(network, repaired, chosen), seed.images.audit).mean,
        "top1_percent": accuracy(repaired, test, progress=False).top1_percent,
        "seconds": watch.seconds,
    }


def differences(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Paired differences over seeds: measured curves less other widths, other channels less L2; accuracy and harm."""
    table = {(r["fewer_macs"], r["widths"], r["channels"], r["seed"]): r for r in rows}
    result: dict[str, Any] = {}
    for ratio in sorted({r["fewer_macs"] for r in rows}):
        pairs = {f"curves_over_{w}": (("curves", "elimination"), (w, "elimination")) for w in WIDTHS[1:]}
        pairs |= {f"{c}_over_magnitude-l2": (("curves", c), ("curves", "magnitude-l2")) for c in CHANNELS}
        for name, (ours, theirs) in pairs.items():
            both = [
                (table[k], table[ratio, *theirs, k[3]])
                for k in table
                if k[:3] == (ratio, *ours) and (ratio, *theirs, k[3]) in table
            ]
            if ours != theirs and both:
                for unit, key in (("points", "top1_percent"), ("joint_effect", "joint_effect")):
                    mean, span = paired(np.array([a[key] - b[key] for a, b in both]))
                    result[f"{name}_{ratio:g}x_{unit}"] = mean
                    result |= {f"{name}_{ratio:g}x_interval_{unit}": span} if span else {}
    return result


def paired(gaps: np.ndarray) -> tuple[float, list[float] | None]:
    """The mean difference and its 95% t-interval over seeds."""
    mean = float(gaps.mean())
    if len(gaps) < 2:
        return mean, None
    half = float(stats.t.ppf(0.975, len(gaps) - 1) * gaps.std(ddof=1) / np.sqrt(len(gaps)))
    return mean, [mean - half, mean + half]


def run(options: argparse.Namespace) -> None:
    """Runs what is asked for and adds it to the record; rows that are in it are kept."""
    name = "resnet20" if options.quick else options.network
    source = cifar10()
    model, normalization = trained(name)
    test = test_images(source, normalization, 1000 if options.quick else None)
    record = f"causal_pruning{'' if name == 'resnet56' else '_' + name}"
    path = options.output or RESULTS / f"{record}{'-quick' if options.quick else ''}.json"
    options.output = path
    done = {tuple(r[field] for field in KEY) for r in merged(path, [], KEY)}
    for number in options.only_seeds or range(1 if options.quick else options.seeds):
        loader = calibration(source, normalization, 256 if options.quick else 1024, number)
        first, _ = next(iter(loader))
        seed = Seed(wp.trace(model, first[:2]).ignoring(STREAM), loader, number, options.quick)
        for ratio in [2.0] if options.quick else options.ratios:
            budget = wp.Budget(macs=1 / ratio)
            cells = [(w, "elimination") for w in WIDTHS] + [("curves", c) for c in CHANNELS[1:]]
            for widths, channels in cells:
                if (ratio, widths, channels, number) in done:
                    continue
                asked = seed.widths(widths, budget)
                units, rivals = seed.channels(channels, asked), seed.channels("magnitude-l2", asked)
                cell = {"fewer_macs": ratio, "widths": widths, "channels": channels, "seed": number}
                found = {**cell, **row(seed, units, rivals, test, options.views)}
                print(found, flush=True)
                rows = merged(path, [found], KEY)
                about = {"network": name, "views": options.views, "data_fingerprint": fingerprint(source)}
                write_record("causal_pruning", options, differences(rows), rows, **about)


if __name__ == "__main__":
    parser = arguments(__doc__ or "")
    parser.set_defaults(seeds=5)
    parser.add_argument("--network", choices=("resnet20", "resnet56"), default="resnet56")
    parser.add_argument("--ratios", nargs="+", type=float, default=[2.0, 3.0], help="how many times fewer MACs")
    parser.add_argument("--only-seeds", nargs="+", type=int, help="instead of all seeds")
    parser.add_argument("--views", type=int, default=1, help="augmented views of every image in the repair")
    run(parser.parse_args())
