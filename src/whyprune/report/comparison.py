"""The dense network beside the pruned one."""

from dataclasses import dataclass

from whyprune.report.words import NOT_MEASURED, count, last_effect, ms, number, percent, share, span
from whyprune.results import JointEffect, NetworkMeasurement, RunResult


@dataclass(frozen=True)
class ComparisonRow:
    """One line of the comparison; `*_note` is an interval or a second unit, `term` explains the name."""

    name: str
    dense: str
    pruned: str
    ratio: str
    dense_note: str = ""
    pruned_note: str = ""
    ratio_note: str = ""
    term: str = ""


def figures(result: RunResult) -> list[ComparisonRow]:
    """The lines of the table, in the order a reader asks for them: what was measured of the answers first."""
    joint, measured = result.joint_effect, result.pruned.top1_percent is not None
    effect = [] if joint is None else [_effect(result, joint)]
    answers = [_accuracy(result), *effect] if measured or joint is None else effect
    return [*answers, *_costs(result), *_latencies(result)]


def median_ms(network: NetworkMeasurement) -> float | None:
    """The median latency, wherever the record keeps it."""
    return network.latency.p50_ms if network.latency else network.latency_p50_ms


def speedup(result: RunResult) -> float | None:
    """Dense over pruned median latency."""
    if result.latency_ratio is not None:
        return result.latency_ratio.speedup
    dense, pruned = median_ms(result.dense), median_ms(result.pruned)
    return dense / pruned if dense and pruned else None


def _effect(result: RunResult, joint: JointEffect) -> ComparisonRow:
    found = result.verdict
    return ComparisonRow(
        "Joint effect",
        "0",
        number(last_effect(result, joint)),
        "" if found is None or found.level is None else found.level,
        pruned_note=span(joint.interval, 3) if result.effect_after_recovery is None else "",
        term=f"{joint.outcome}: how far the answers are from the dense network's; below it the 95% interval",
    )


def _accuracy(result: RunResult) -> ComparisonRow:
    dense, pruned = result.dense, result.pruned
    change = NOT_MEASURED
    if dense.top1_percent is not None and pruned.top1_percent is not None:
        change = f"{pruned.top1_percent - dense.top1_percent:+.2f} points".replace("-", "−")
    return ComparisonRow(
        "Top-1 accuracy",
        percent(dense.top1_percent),
        percent(pruned.top1_percent),
        change,
        span(dense.top1_interval_percent),
        span(pruned.top1_interval_percent),
        term=f"share of test {result.samples} whose class is right; below it the 95% interval",
    )


def _costs(result: RunResult) -> list[ComparisonRow]:
    terms = {
        "MACs": ("macs", "multiply-accumulates for one input: the arithmetic the network must do"),
        "Parameters": ("params", "numbers the network has learned"),
        "Bytes": ("bytes", "size of these numbers in memory and on disk"),
    }
    lines = []
    for name, (key, term) in terms.items():
        dense, pruned = getattr(result.dense, key), getattr(result.pruned, key)
        fewer = f"{dense / pruned:.2f}× fewer" if pruned else ""
        ratio = f"{percent(share(pruned, dense), 1)} of dense" if dense else NOT_MEASURED
        lines.append(ComparisonRow(name, count(dense), count(pruned), ratio, ratio_note=fewer, term=term))
    return lines


def _latencies(result: RunResult) -> list[ComparisonRow]:
    dense, pruned, ratio = median_ms(result.dense), median_ms(result.pruned), speedup(result)
    lines = [
        ComparisonRow(
            "Latency, median",
            ms(dense),
            ms(pruned),
            NOT_MEASURED if ratio is None else f"{ratio:.2f}× as fast",
            ratio_note=span(result.latency_ratio.interval) if result.latency_ratio else "",
            term=_conditions(result),
        )
    ]
    first, second = result.dense.latency, result.pruned.latency
    if first and second:
        for name, a, b in (("p90", first.p90_ms, second.p90_ms), ("p99", first.p99_ms, second.p99_ms)):
            lines.append(ComparisonRow(f"Latency, {name}", ms(a), ms(b), f"{a / b:.2f}× as fast" if b else ""))
    return lines


def _conditions(result: RunResult) -> str:
    latency = result.pruned.latency
    if latency is None:
        return "time for one call"
    threads = f"{latency.threads} thread{'s' if latency.threads > 1 else ''}"
    repeats = f"{latency.repeats:,} interleaved repeats"
    where = f" on {result.latency_device}" if result.latency_device else ""
    return f"time for one call{where}, batch of {latency.batch_size}, {threads}, {repeats}"
