"""Tables of docs/evidence.md: whether intervals and certificates hold, what causal choices are worth and cost."""

import json
import statistics
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from benchmarks.common import RESULTS
from benchmarks.pruning_steps import REFERENCE

Record = dict[str, Any]
WIDTHS = {"curves": "**measured curves**", "global-l2": "global, L2", "global-taylor": "global, Taylor"}
OURS = ("curves", "elimination")
RECONSTRUCTED = ("repaired", "reconstructed")
CHANNELS = {
    "elimination": "least squares (elimination)",
    "rounds": "elimination in rounds, on the repaired network",
    "carried": "conditional unique effects in rounds",
    "magnitude-l2": "L2 norm",
    "taylor": "Taylor",
}


def table(name: str, make: Callable[[Record], str]) -> str:
    """What `make` says of a record."""
    return make(json.loads((RESULTS / f"{name}.json").read_text()))


def validity(record: Record) -> str:
    """Coverage of the intervals of each estimator."""
    found = record["headline"]
    lines = ["| estimator | estimand | 95% intervals that hold the truth |", "|---|---|---|"]
    for name, estimand in (("exact", "single"), ("adaptive", "single"), ("random-masks", "context"), ("shapley",) * 2):
        coverage = found[f"interval_coverage_percent_{name.replace('-', '_')}"]
        lines.append(f"| `{name}` | {estimand} | {coverage:.1f}% |")
    plain = found["interval_coverage_percent_exact_t"]
    runs = sum(r.get("estimator") == "adaptive" and "rounds" in r for r in record["rows"])
    lines += [
        "",
        f"ResNet-20, {found['units']} units; the truth is measured on {found['images']:,} test images. `exact` and the "
        f"control variate of `adaptive` at 256 images each. A plain t-interval around exact effects holds in "
        f"{plain:.1f}%. `adaptive` as a whole, run {runs} times with {found['adaptive_cost_ratio']:.0%} of the cost "
        f"of the truth, ranks units within layers with a Spearman correlation of "
        f"{found['adaptive_spearman']:.3f} (the worst layer of all: "
        f"{found['adaptive_spearman_worst_layer']:.3f}). On the planted networks {found['planted_wrong']} of the "
        f"answers that {found['estimators_in_matrix']} estimators claim are wrong.",
    ]
    return "\n".join(lines)


def certificates(record: Record) -> str:
    """How often bounds were broken."""
    found = record["headline"]
    if "digits_cnn_drop_certificate_broken_percent_of_redraws" not in found:
        raise FileNotFoundError("the record is of certificates with one bound")
    plans = found["plans_per_network"]
    lines = [
        f"| certificate of | network | broken by the fresh images, of {plans} plans | on all draws of the images | "
        "either bound broken, on all draws |",
        "|---|---|---|---|---|",
    ]
    for kind, what in (("drop", "the accuracy drop"), ("changes", "changed predictions")):
        for network, title in (("digits_cnn", "digits CNN"), ("resnet20", "ResNet-20")):
            start = f"{network}_{kind}"
            broken = found[f"{start}_bounds_broken"]
            fresh, either = (found[f"{start}_{k}broken_percent_of_redraws"] for k in ("", "certificate_"))
            lines.append(f"| {what} | {title} | {broken} | {fresh:.2f}% | {either:.2f}% |")
    rows = {r["network"]: r for r in record["rows"]}
    sizes = [f"{r['audited_images']:,} and {r['images'] - r['audited_images']:,} ({n})" for n, r in rows.items()]
    lines += [
        "",
        f"Images that certificates are made from, and fresh ones: {', '.join(sizes)}; {found['redraws_per_plan']} "
        "draws for each plan.",
    ]
    return "\n".join(lines)


def pruning(record: Record, ratio: float) -> str:
    """Accuracy by widths and by channels, and paired differences."""
    rows: dict[tuple[str, str], list[Record]] = defaultdict(list)
    for row in record["rows"]:
        if row["fewer_macs"] == ratio:
            rows[row["widths"], row["channels"]].append(row)
    if not rows:
        raise FileNotFoundError(f"the record has no row with {ratio:g}x fewer MACs")
    found = record["headline"]
    lines = [
        "| widths | channels | top-1 % | less the reference (95% interval) | joint effect | less the reference | "
        "also removed by L2 |",
        "|---|---|---|---|---|---|---|",
    ]
    for (widths, channels), cells in rows.items():
        if (widths, channels) == ("curves", "magnitude-l2"):
            gaps = ["reference for channels"] * 2
        else:
            against = (f"{channels}_over_magnitude-l2", 1) if widths == "curves" else (f"curves_over_{widths}", -1)
            gaps = [_gap(found, f"{against[0]}_{ratio:g}x", unit, against[1]) for unit in ("points", "joint_effect")]
        top1, harm, shared = (
            statistics.mean(c[key] for c in cells)
            for key in ("top1_percent", "joint_effect", "also_removed_by_l2_percent")
        )
        names = WIDTHS.get(widths, widths), CHANNELS.get(channels, channels)
        lines.append(f"| {names[0]} | {names[1]} | {top1:.2f} | {gaps[0]} | {harm:.4f} | {gaps[1]} | {shared:.0f}% |")
    seeds = len({c["seed"] for cells in rows.values() for c in cells})
    lines += [
        "",
        f"ResNet-56, {ratio:g}x fewer MACs, 10,000 test images, calibration seeds: {seeds}. Other widths are "
        "compared with measured curves, other channels with L2 norms at the same widths.",
    ]
    return "\n".join(lines)


def after_recovery(record: Record) -> str:
    """What is left of choices after fine-tuning."""
    steps, how = sorted({r["steps"] for r in record["rows"]}), record["recovery"]
    return _compared(
        record,
        ("repaired", "recovered"),
        f"Recovery: {_listed(steps)} steps on batches of {how['batch_size']} training images with labels, each image "
        f"once; learning rate {how['learning_rate']:g}, {how['distill']:.0%} of the loss on the dense network's "
        "logits, mixed images, channels followed.",
    )


def after_reconstruction(record: Record) -> str:
    """What reconstruction adds, and what is left of choices after it."""
    longer = statistics.median(r["reconstruction_seconds"] / r["repair_seconds"] for r in record["rows"])
    return _compared(
        record,
        RECONSTRUCTED,
        f"1,024 calibration images in {record['views']} views each for the repair, and in {record['views']} others for "
        f"the reconstruction, which takes {longer:.0f} times as long as the repair (median).",
    )


def reconstruction_in_short(record: Record) -> str:
    """What reconstruction adds to the widths and channels that `causal` chooses, inside blocks."""
    gains = []
    for ratio in sorted({r["fewer_macs"] for r in record["rows"]}):
        rows = [r for r in record["rows"] if (r["fewer_macs"], r["widths"], r["channels"]) == (ratio, *OURS)]
        before, after = (statistics.mean(r[f"{step}_top1_percent"] for r in rows) for step in RECONSTRUCTED)
        gains.append(
            f"from {before:.2f}% to **{after:.2f}%** at {ratio:g}x fewer MACs (calibration seeds: {len(rows)})"
        )
    return (
        "`--repair reconstruct` goes on where the repair ends: it refits the layers of each residual branch together, "
        f"still without labels, on 1,024 images: {' and '.join(gains)}, with the channels inside blocks that measured "
        "curves and elimination leave."
    )


def _compared(record: Record, steps: tuple[str, str], about: str) -> str:
    """Accuracy by widths and by channels after two steps, and paired differences."""
    found = record["headline"]
    cells = dict.fromkeys((r["fewer_macs"], r["widths"], r["channels"]) for r in record["rows"])
    ratios = sorted({r["fewer_macs"] for r in record["rows"]})
    counts = {ratio: len({r["seed"] for r in record["rows"] if r["fewer_macs"] == ratio}) for ratio in ratios}
    seeds = " and ".join(f"{count} at {ratio:g}x" for ratio, count in counts.items())
    columns = "".join(f" {s}, top-1 % | less the reference (95% interval) |" for s in steps)
    lines = [f"| fewer MACs | widths | channels |{columns} {steps[1]} less {steps[0]} |", "|---" * 8 + "|"]
    for ratio, widths, channels in cells:
        cell = f"{widths}_{channels}_{ratio:g}x"
        columns = ""
        for step in steps:
            gap = (
                "reference"
                if (widths, channels) == REFERENCE
                else _gap(found, f"{step}_{cell}_less_reference", "points", 1)
            )
            columns += f" {found[f'{step}_{cell}_top1_percent']:.2f} | {gap} |"
        gain = _gap(found, f"{steps[1]}_{cell}_gain", "points", 1)
        names = WIDTHS.get(widths, widths), CHANNELS.get(channels, channels)
        lines.append(f"| {ratio:g}x | {names[0]} | {names[1]} |{columns} {gain} |")
    about = f"ResNet-56, {_listed(ratios)}x fewer MACs, 10,000 test images. {about} Calibration seeds: {seeds}."
    return "\n".join([*lines, "", about])


def _listed(numbers: Sequence[float]) -> str:
    return " and ".join(f"{number:g}" for number in numbers)


def _gap(found: Record, name: str, unit: str, sign: int) -> str:
    mean, digits = found.get(f"{name}_{unit}"), 2 if unit == "points" else 4
    if mean is None:
        return "–"
    span = found.get(f"{name}_interval_{unit}")
    low, high = sorted(sign * v for v in span) if span else (None, None)
    return f"{sign * mean:+.{digits}f}" + (f" ({low:+.{digits}f} to {high:+.{digits}f})" if span else "")


def cost() -> str:
    """Time and memory of exact effects."""
    lines = [
        "| network | units | images | forward passes per unit, by time | share behind the unit, by MACs | memory |",
        "|---|---|---|---|---|---|",
    ]
    for name, title in (
        ("effect_cost", "ResNet-56, inside blocks"),
        ("effect_cost_all_units", "ResNet-56, all units"),
        ("effect_cost_resnet50", "ResNet-50"),
        ("effect_cost_resnet101", "ResNet-101"),
    ):
        path = RESULTS / f"{name}.json"
        if path.exists():
            record = json.loads(path.read_text())
            found, pixels = record["headline"], record.get("pixels")
            size = f" at {pixels} x {pixels}" if pixels else ""
            memory = f"{found['peak_memory_mb'] / 1024:.1f} GiB" if "peak_memory_mb" in found else "–"
            by_time = found.get("dense_forward_equivalents_per_unit_time")
            lines.append(
                f"| {title}{size} | {found['units']:,} | {found['images']} | "
                f"{'–' if by_time is None else f'{by_time:.3f}'} | "
                f"{found['dense_forward_equivalents_per_unit_macs']:.3f} | {memory} |"
            )
    return "\n".join(lines)


def search(record: Record) -> str:
    """The search beside the greedy walk: predicted effects and CPU time, per network and share of the MACs."""
    pairs: dict[tuple[str, float], list[tuple[Record, Record]]] = defaultdict(list)
    rows = {(r["network"], r["macs"], r["seed"], r["allocation"]): r for r in record["rows"]}
    for (network, macs, seed, allocation), row in rows.items():
        if allocation == "curves":
            pairs[network, macs].append((row, rows[network, macs, seed, "greedy"]))
    lines = [
        "| network | MACs | predicted effect, search / greedy | CPU time, search / greedy | seeds |",
        "|---|---|" + "---|" * 3,
    ]
    for (network, macs), found in sorted(pairs.items(), key=lambda item: (item[0][0], -item[0][1])):
        cells = []
        for key in ("predicted", "cpu_seconds"):
            shares = [one[key] / other[key] for one, other in found]
            spread = f" ({min(shares):.3g}–{max(shares):.3g})" if len(shares) > 1 else ""
            cells.append(f"{statistics.mean(shares):.3g}{spread}")
        lines.append(f"| {network} | {macs:.0%} | {cells[0]} | {cells[1]} | {len(found)} |")
    lines += [
        "",
        "Both go along the same curves; below 1 the search is better, or faster. ResNet-20 has curves measured on "
        "calibration images, at nine widths of a group; ResNet-50 has made-up curves that are known at every width, of "
        "which the search goes to 32. Means over seeds, with the range. Neither says what accuracy a plan has.",
    ]
    return "\n".join(lines)


def agreement(record: Record) -> str:
    """Rank correlations with Torch-Pruning, as defined and with the definition matched."""
    found = record["headline"]
    reasons = {
        "magnitude-l2": "theirs counts the batch norm's weights as one layer more; matched without",
        "geometric-median": "theirs squares the weights before it takes distances; matched on squared weights",
        "taylor": "theirs is of weights and the mean gradient; matched image by image, at the readers' slices",
    }
    lines = [
        "| score | as both define it: smallest, mean | definition matched: smallest, mean | why they differ |",
        "|---|---|---|---|",
    ]
    for name, reason in reasons.items():
        key = name.replace("-", "_")
        cells = [
            f"{found[f'{key}_{how}_spearman_min']:.3f}, {found[f'{key}_{how}_spearman_mean']:.3f}"
            for how in ("as_defined", "matched")
        ]
        lines.append(f"| `{name}` | {cells[0]} | {cells[1]} | {reason} |")
    networks = ", ".join(dict.fromkeys(r["network"] for r in record["rows"]))
    lines += [
        "",
        f"Spearman's correlation within each of {found['groups_compared']} groups of {networks}, on "
        f"{record['images']} images with cross-entropy; Torch-Pruning {record['torch_pruning_version']}. "
        f"{found['groups_of_other_slices']} groups are left out, since the libraries couple other slices in them: "
        "residual streams whose shortcut pads channels, where Torch-Pruning does not see by how many.",
    ]
    return "\n".join(lines)


EVIDENCE_TABLES: dict[str, Callable[[], str]] = {
    "effect_validity": partial(table, "effect_validity", validity),
    "certificate": partial(table, "certificate", certificates),
    "causal_pruning_3x": partial(table, "causal_pruning", partial(pruning, ratio=3.0)),
    "causal_pruning_2x": partial(table, "causal_pruning", partial(pruning, ratio=2.0)),
    "reconstruction_in_short": partial(table, "reconstruction", reconstruction_in_short),
    "reconstruction": partial(table, "reconstruction", after_reconstruction),
    "causal_pruning_recovered": partial(table, "causal_pruning_recovered", after_recovery),
    "effect_cost": cost,
    "torch_pruning_agreement": partial(table, "torch_pruning_agreement", agreement),
    "allocation_search": partial(table, "allocation_search", search),
}
