"""What each estimand says about units whose role is known: the pictures of docs/effects.md, and their numbers.

The planted network has nine units in question, so all 512 sets of them are run: every number is exact on the images.
"""

import argparse
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.common import arguments, write_record
from benchmarks.planted_drawings import draw_all
from whyprune.causal.exact import exact_effects
from whyprune.causal.responsibility import responsibilities
from whyprune.interventions.worlds import Worlds
from whyprune.testing import planted
from whyprune.testing.planted import BYSTANDER, COPY, DEAD, MINUS, ONE_CLASS, ORIGINAL, OTHER_COPY, PLAIN, PLUS

Floats = NDArray[np.float64]
Set = frozenset[int]
NAMES = {
    COPY: "copy A",
    OTHER_COPY: "copy B",
    PLUS: "plus",
    MINUS: "minus",
    DEAD: "dead",
    BYSTANDER: "bystander",
    ORIGINAL: "its original",
    ONE_CLASS: "one class",
    PLAIN: "plain",
}
VALUES = ("zero", "mean", "closed-form", "optimal", "resample", "carried")
GONE = (OTHER_COPY, MINUS)
RATE = 0.25
PICTURES = Path(__file__).parent.parent / "docs" / "images"


def all_sets(worlds: Worlds) -> dict[Set, float]:
    """Joint effect of every set of units."""
    count = len(worlds.units)
    sets = [frozenset(s) for size in range(count + 1) for s in combinations(range(count), size)]
    masks = np.array([[k in s for k in range(count)] for s in sets])
    images = np.arange(worlds.images)
    effects = worlds.effects(np.repeat(masks, worlds.images, axis=0), np.tile(images, len(sets)))
    return dict(zip(sets, effects.reshape(len(sets), -1).mean(axis=1).tolist(), strict=True))


def conditional(joint: dict[Set, float], unit: int, gone: Sequence[int]) -> float:
    """One unit more, given units that are gone; 0 for one of them."""
    return joint[frozenset({*gone, unit})] - joint[frozenset(gone)]


def averaged(joint: dict[Set, float], unit: int, weight: Any) -> float:
    """The mean of conditional effects over sets of the other units, weighted by their size."""
    return sum(weight(len(s)) * (joint[s | {unit}] - v) for s, v in joint.items() if unit not in s)


def context(joint: dict[Set, float], unit: int, rate: float) -> float:
    """Every other unit is gone with probability `rate`."""
    others = max(map(len, joint)) - 1
    return averaged(joint, unit, lambda size: rate**size * (1 - rate) ** (others - size))


def shapley(joint: dict[Set, float], unit: int) -> float:
    """Units go in any order."""
    count = max(map(len, joint))
    inverse = [count * _binomial(count - 1, size) for size in range(count)]
    return averaged(joint, unit, lambda size: 1 / inverse[size])


def _binomial(n: int, k: int) -> int:
    return int(np.prod([(n - i) / (i + 1) for i in range(k)]).round())


def measure(images: int) -> dict[str, Any]:
    """All numbers, by unit."""
    case = planted.case(1, images)
    names = [case.unit(k) for k in NAMES]
    worlds = Worlds(case.network, [case.batch], units=names)
    joint = all_sets(worlds)
    blame = responsibilities(case.network, [case.batch], among=names).blame
    by_value = {v: exact_effects(case.network, [case.batch], units=names, intervention=v) for v in VALUES}
    alone = exact_effects(case.network, [case.batch], units=names, per_image=True)
    classes = alone.by_class(case.labels.numpy())
    rows = [
        {
            "unit": NAMES[k],
            "single": joint[frozenset({k})],
            "conditional": None if k in GONE else conditional(joint, k, GONE),
            "context": context(joint, k, RATE),
            "shapley": shapley(joint, k),
            "blame": float(blame[k]),
            **{f"value_{v}": float(by_value[v].mean[k]) for v in VALUES},
            **{f"class_{c}": float(effects[k]) for c, effects in classes.items()},
        }
        for k in NAMES
    ]
    pairs = [
        {
            "pair": f"{NAMES[a]} and {NAMES[b]}",
            "first": joint[frozenset({a})],
            "second": joint[frozenset({b})],
            "second_once_first_is_gone": conditional(joint, b, [a]),
            "together": joint[frozenset({a, b})],
        }
        for a, b in ((COPY, OTHER_COPY), (PLUS, MINUS), (BYSTANDER, ORIGINAL))
    ]
    return {"rows": rows, "pairs": pairs, "joint_all": joint[frozenset(NAMES)], "images": worlds.images}


def run(options: argparse.Namespace) -> None:
    """Measures, draws, and writes the record."""
    torch.set_num_threads(1)
    found = measure(24 if options.quick else options.images)
    model = planted.planted(1)
    drawn = draw_all(found, model, tuple(NAMES.values()), RATE, [NAMES[k] for k in GONE])
    folder = None if options.quick else PICTURES
    for name, picture in drawn.items():
        if folder is not None:
            (folder / f"planted-{name}.svg").write_bytes(picture)
    copies, pair, _ = found["pairs"]
    headline = {
        "pictures": len(drawn),
        "copies_together_over_sum": copies["together"] / (copies["first"] + copies["second"]),
        "cancelling_pair_together_over_sum": pair["together"] / (pair["first"] + pair["second"]),
        "shapley_sum_over_joint_of_all": sum(r["shapley"] for r in found["rows"]) / found["joint_all"],
    }
    write_record("planted_pictures", options, headline, found["rows"], pairs=found["pairs"], images=found["images"])


if __name__ == "__main__":
    parser = arguments(__doc__ or "")
    parser.add_argument("--images", type=int, default=96, help="images of the planted network")
    run(parser.parse_args())
