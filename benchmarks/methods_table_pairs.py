"""Paired differences between two methods on the same test images, over images and seeds, and what they count up to."""

import base64
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

REPAIRS = ("plain", "batch_norm", "refit")
"""What is done to a cut network before it is tested."""
COUNTED_AT = 2.0
"""The headline counts differences at so many times fewer MACs."""
CELL = ("network", "fewer_macs", "method")
SETTINGS = ("test_images", "calibration_images", "views", "search_plans")
"""What has to be alike in rows that are compared."""

Row = Mapping[str, Any]
Rights = NDArray[np.bool_]


def packed(right: Rights) -> str:
    """Which images were answered right, one bit each, as text."""
    return base64.b64encode(np.packbits(right).tobytes()).decode()


def unpacked(text: str, images: int) -> Rights:
    """What `packed` packed, shape (images,)."""
    return np.unpackbits(np.frombuffer(base64.b64decode(text), dtype=np.uint8), count=images).astype(bool)


def difference(ours: Rights, theirs: Rights) -> dict[str, Any]:
    """Accuracy of ours less theirs in points, with a 95% interval for other images and other seeds.

    Both arrays are (seeds, images), the images the same for all seeds. Images and seeds are crossed: the variance of
    the mean is that over images of the mean over seeds, plus that over seeds of the mean over images. What varies with
    both at once is counted in each, which errs on the wide side; three seeds that differ much are too few for the other
    part, so that 92% to 99% of intervals hold the truth. The degrees of freedom of the t-interval are Satterthwaite's.
    With one seed the interval is over images alone.
    """
    gaps = ours.astype(np.float64) - theirs
    seeds, images = gaps.shape
    parts = [(float(gaps.mean(axis=0).var(ddof=1)) / images, images - 1)]
    if seeds > 1:
        parts.append((float(gaps.mean(axis=1).var(ddof=1)) / seeds, seeds - 1))
    variance = sum(v for v, _ in parts)
    freedom = variance**2 / sum(v**2 / f for v, f in parts) if variance else 1.0
    half = float(stats.t.ppf(0.975, freedom)) * variance**0.5
    mean = float(gaps.mean())
    return {
        "points": 100 * mean,
        "interval_points": [100 * (mean - half), 100 * (mean + half)],
        "seeds": seeds,
        "gained": int((gaps > 0).sum()),
        "lost": int((gaps < 0).sum()),
        "images": images,
    }


def verdict(found: Mapping[str, Any]) -> str:
    """`helps` or `hurts` where the interval excludes zero, else `open`."""
    low, high = found["interval_points"]
    return "helps" if low > 0 else "hurts" if high < 0 else "open"


def differences(rows: Sequence[Row], pairs: Mapping[str, str]) -> list[dict[str, Any]]:
    """The causal variant less its method, for every network, budget and repair in which both were run.

    Args:
        rows: of the record; those with an error are left out.
        pairs: method -> its causal variant.
    """
    cells: dict[tuple[Any, ...], dict[int, Row]] = {}
    for row in rows:
        if "error" not in row:
            cells.setdefault(tuple(row[f] for f in CELL), {})[row["seed"]] = row
    found = []
    for (network, ratio, method), plain in sorted(cells.items(), key=lambda item: item[0]):
        causal = cells.get((network, ratio, pairs.get(method, "")), {})
        seeds = [s for s in sorted(plain) if s in causal and _alike(plain[s], causal[s])]
        for repair in REPAIRS if seeds else ():
            ours, theirs = (
                np.stack([unpacked(cell[s]["right"][repair], cell[s]["test_images"]) for s in seeds])
                for cell in (causal, plain)
            )
            gap = difference(ours, theirs)
            about = {"network": network, "fewer_macs": ratio, "method": method, "causal": pairs[method]}
            found.append({**about, "repair": repair, **gap, "verdict": verdict(gap)})
    return found


def _alike(one: Row, other: Row) -> bool:
    """Whether two rows are of the same images and effort, and of the same allocation where one was asked for."""
    fields = (*SETTINGS, "allocation") if "+" in one["method"] else SETTINGS
    return all(one.get(f) == other.get(f) for f in fields)


def headline(rows: Sequence[Row], pairs: Mapping[str, str]) -> dict[str, Any]:
    """How many methods were run, and how many paired differences at 2x exclude zero either way, over all repairs.

    Pairs in which both allocate alike (`NAME+global`) are counted apart, as `same_allocation`.
    """
    done = [r for r in rows if "error" not in r]
    at = [d for d in differences(rows, pairs) if d["fewer_macs"] == COUNTED_AT]
    own, same = ([d for d in at if ("+" in d["method"]) == other] for other in (False, True))
    verdicts = [d["verdict"] for d in own]
    return {
        "methods": len({r["method"] for r in done if "+" not in r["method"]}),
        "causal_helps": verdicts.count("helps"),
        "causal_hurts": verdicts.count("hurts"),
        "causal_open": verdicts.count("open"),
        "same_allocation": {word: [d["verdict"] for d in same].count(word) for word in ("helps", "hurts", "open")},
        "pairs": sorted({d["method"] for d in own}),
        "networks": sorted({d["network"] for d in at}),
        "repairs": list(REPAIRS),
        "seeds": min((d["seeds"] for d in at), default=0),
    }
