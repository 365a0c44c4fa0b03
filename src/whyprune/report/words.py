"""Numbers and sentences of the page; every sentence is derived from the record."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from whyprune.report.rows import UnitRow
from whyprune.results import (
    Certificate,
    Interval,
    JointEffect,
    MeasuredBudget,
    Refutation,
    RunResult,
    Verification,
)

NOT_MEASURED = "not measured"
WHY_OFF = {
    "sum": "Removed together, the units do {harm} harm than the sum of their parts; effects do not simply add up.",
    "curve": "One part goes, so nothing was summed: it does {harm} harm than its own effect or curve says.",
    "samples": "On what the plan was made from it holds: more calibration data makes predictions surer.",
    "repair": "It is of the removal alone, and holds for that: the repair makes the difference.",
    "search": "Nothing was summed: the search measured the plan as a whole, on few samples, and took the best of many.",
    "no repair": "It counts on a repair, and none ran.",
}
"""Why a prediction is off, by what the record says of it."""
SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def count(value: int | None) -> str:
    """An exact whole number, thousands separated."""
    return NOT_MEASURED if value is None else f"{value:,}"


def short(value: int) -> str:
    """A whole number to three significant digits, as k, M or G (powers of 1000)."""
    for size, suffix in ((10**9, " G"), (10**6, " M"), (10**3, " k")):
        if value >= size:
            return f"{value / size:.3g}{suffix}" if value < 999.5 * size else f"{value / size:.0f}{suffix}"
    return str(value)


def percent(value: float | None, digits: int = 2) -> str:
    """A number that is already in percent."""
    return NOT_MEASURED if value is None else f"{value:.{digits}f}%"


def number(value: float | None, digits: int = 3) -> str:
    """A measured number to three significant digits."""
    if value is None:
        return NOT_MEASURED
    mantissa, _, power = f"{value:.{digits}g}".partition("e")
    return mantissa.replace("-", "−") + (f"×10{raised(int(power))}" if power else "")


def raised(power: int) -> str:
    """The power in superscript digits."""
    return str(power).translate(SUPERSCRIPT)


def ms(value: float | None) -> str:
    """A latency in milliseconds."""
    if value is None:
        return NOT_MEASURED
    return f"{value:.2f} ms" if value >= 1 else f"{number(value)} ms"


def quoted(text: str) -> str:
    """The text as a Python string literal."""
    return json.dumps(text, ensure_ascii=False)


def span(interval: Interval | None, digits: int = 2) -> str:
    """An interval to so many decimals, or nothing where there is none."""
    if interval is None:
        return ""
    low, high = (f"{v:.{digits}f}".replace("-", "−") for v in interval)
    return f"{low} to {high}"


def duration(seconds: float) -> str:
    """Seconds, with minutes or hours where they read better."""
    if seconds < 100:
        return f"{seconds:.3g} s" if seconds < 10 else f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def plain(value: Any) -> str:
    """A recorded value as short text: lists and dicts in one line, `None` as not recorded."""
    if value is None:
        return "not recorded"
    if isinstance(value, Mapping):
        return ", ".join(f"{k} = {plain(v)}" for k, v in value.items()) or "none"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(plain(v) for v in value) or "none"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def share(part: float, whole: float) -> float | None:
    """Percent of the whole; `None` of nothing."""
    return 100 * part / whole if whole else None


def headline(result: RunResult) -> str:
    """What was asked and what came out, in one sentence."""
    label, kept = _kept(result)
    model = plain(result.asked["model"]) if result.asked.get("model") else "The network"
    dense, pruned = result.dense.top1_percent, result.pruned.top1_percent
    if (dense is None or pruned is None) and (joint := result.joint_effect) is not None:
        return f"{model} pruned to {kept} of its {label}: {joint_effect(result, joint)} {effort(result)}"
    if result.asked.get("untrained") and pruned is not None:
        return f"{model} pruned to {kept} of its {label} before training: {percent(pruned)} top-1 {effort(result)}"
    if dense is None or pruned is None:
        return f"{model} pruned to {kept} of its {label} {effort(result)}; accuracy not measured"
    change = f"{percent(dense)} → {percent(pruned)} top-1"
    return f"{model} pruned to {kept} of its {label}: {change} {effort(result)}"


def joint_effect(result: RunResult, joint: JointEffect) -> str:
    """The last joint effect that was measured, and how much of the function it is."""
    level = "" if result.verdict is None or result.verdict.level is None else f" ({result.verdict.level})"
    return f"joint effect {number(last_effect(result, joint))} in {joint.outcome}{level}"


def last_effect(result: RunResult, joint: JointEffect) -> float:
    """The joint effect of the network that the run ends with."""
    return joint.measured if result.effect_after_recovery is None else result.effect_after_recovery


def gone(result: RunResult) -> str:
    """How many units went, and how many came where groups were widened."""
    changes = [group.width - group.kept for group in result.groups]
    came = sum(-change for change in changes if change < 0)
    return f"{count(sum(max(change, 0) for change in changes))} removed" + (f", {count(came)} added" if came else "")


def unusable(result: RunResult) -> bool:
    """Whether the function is lost."""
    return result.verdict is not None and result.verdict.usable is False


def overlap(result: RunResult) -> str:
    """That groups share layers, where their MACs are more than the network's; empty where they are not."""
    total = sum(group.macs_before for group in result.groups)
    if total <= result.dense.macs:
        return ""
    return (
        f"MACs of a group are those of the layers that write or read its channels. Groups share layers, so theirs "
        f"overlap: together {short(total)}, of {short(result.dense.macs)} that the network has."
    )


def effort(result: RunResult) -> str:
    """What it took after the removal."""
    epochs = len(result.recovery)
    if epochs:
        what = "training" if result.asked.get("untrained") else "fine-tuning"
        return f"after {epochs} epoch{'s' if epochs > 1 else ''} of {what}"
    if result.accuracy_after.recovery is not None:
        return "after recovery"
    return "without a gradient step"


def bypassed(blocks: Sequence[str]) -> str:
    """Which residual blocks go as a whole."""
    one = len(blocks) == 1
    return f"{len(blocks)} residual block{' goes' if one else 's go'} as a whole: {', '.join(blocks)}"


def proof(verify: Verification) -> str:
    """The verification in plain words."""
    inputs = f"{verify.inputs:,} input{'' if verify.inputs == 1 else 's'}"
    same = f"on {inputs} differ by at most {number(verify.max_abs_difference)}"
    if verify.stress_max_abs_difference is not None:
        same += f", on stress inputs by at most {number(verify.stress_max_abs_difference)}"
    limit = f"the tolerance is {number(verify.tolerance)}"
    if proven(verify):
        verdict = "They are the same function up to rounding: the removal did exactly what the plan says."
    else:
        verdict = "They are not the same function: do not use the pruned network."
    if verify.in_double:
        same += ", in double precision (in its own this network amplifies rounding beyond that)"
    return (
        "The pruned network, before repair, and the original with the removed units set to zero "
        f"{same}; {limit}. {verdict}"
    )


def proven(verify: Verification) -> bool:
    """Whether every difference lies within the tolerance; NaN does not."""
    worst = [verify.max_abs_difference, verify.stress_max_abs_difference or 0.0]
    return all(w <= verify.tolerance for w in worst)


def unmeasured(rows: Sequence[UnitRow]) -> str:
    """How many units have no effect, and why; empty if all have one."""
    missing = sum(row.effect is None for row in rows)
    if not missing:
        return ""
    return (
        f"{missing:,} of {len(rows):,} units were not measured alone: the plan does not need it, and the forward "
        "passes set aside for the report (effect_passes) pay for a sample."
    )


def agreement(joint: JointEffect) -> str:
    """Whether the measured joint effect bears the prediction out."""
    low, high = joint.interval
    if joint.predicted is None:
        return "No joint effect was predicted."
    if low <= joint.predicted <= high:
        return "They agree: the prediction lies inside the interval of the measurement."
    where, harm = ("below", "more") if joint.predicted < low else ("above", "less")
    said = f"They disagree: the prediction lies {where} the interval of the measurement."
    why = WHY_OFF[joint.off_by].format(harm=harm) if joint.off_by else ""
    return " ".join(s for s in (said, why, "Trust the measurement.") if s)


def on_device(budget: MeasuredBudget) -> str:
    """What was asked for, predicted and measured on a device."""
    unit = "ms" if budget.kind == "latency" else "mJ"
    kind = "" if budget.device_kind == "measured" else f" ({budget.device_kind})"
    low, high = (f"{100 * v:.1f}" for v in budget.measured_ratio_interval)
    plans = f"{len(budget.iterations)} plan{'s' * (len(budget.iterations) != 1)} measured"
    asked, predicted, found = (100 * v for v in (budget.asked_ratio, budget.predicted_ratio, budget.measured_ratio))
    return (
        f"{budget.kind.capitalize()} on {budget.device}{kind}: at most {asked:.1f}% of the dense network's "
        f"{number(budget.dense)} {unit} was asked for, {predicted:.1f}% predicted from the device's table, "
        f"{found:.1f}% measured (95%: {low} to {high}), with {plans} on the way."
    )


def certified(certificate: Certificate, samples: str = "images") -> str:
    """What is certain on images like those that were measured on."""
    drop = certificate.of == "accuracy drop"
    what, unit = ("accuracy drops", "") if drop else ("predictions change", "%")
    at_most = "by at most {:.2f} points on {}" if drop else "for at most {:.2f}% of {}"
    bounds = at_most.format(certificate.bound_percent, f"{samples} drawn like these")
    if certificate.fresh_bound_percent is not None:
        sample = f"a fresh sample of {certificate.fresh_images:,} of them"
        bounds += f" and {at_most.format(certificate.fresh_bound_percent, sample)}"
    return (
        f"With {100 * certificate.confidence:.0f}% confidence, {what} {bounds}; measured: "
        f"{certificate.measured_percent:.2f}{unit}, on {certificate.images:,} {samples} that took part in no decision."
    )


def refuted(refutations: Sequence[Refutation]) -> str:
    """How many attempts were made, and how many found something."""
    made = [r for r in refutations if r.passed is not None]
    failed = sum(not r.passed for r in made)
    if not made:
        return "No attempt could be made."
    said = "none of them did" if not failed else f"{failed} did"
    return f"{len(made)} attempt{'s' * (len(made) != 1)} to refute the effects behind the plan: {said}."


def _kept(result: RunResult) -> tuple[str, str]:
    """What the budget bounds, and how much of it is left."""
    if result.budgets:
        budget = result.budgets[0]
        return f"{budget.kind} on {budget.device}", percent(100 * budget.measured_ratio, 1)
    label, quantity = _budgeted(result)
    return label, percent(share(getattr(result.pruned, quantity), getattr(result.dense, quantity)), 1)


def _budgeted(result: RunResult) -> tuple[str, str]:
    budget = str(result.asked.get("budget", ""))
    if "params" in budget:
        return "parameters", "params"
    return ("bytes", "bytes") if "bytes" in budget else ("MACs", "macs")
