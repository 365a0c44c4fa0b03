"""The tables and sentences of docs/methods-compared.md, from `results/methods_table.json`, whole or in part."""

import json
import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from benchmarks.common import RESULTS
from benchmarks.methods_table_pairs import COUNTED_AT, REPAIRS, Row

Record = Mapping[str, Any]
TITLES = {"resnet20": "ResNet-20", "resnet56": "ResNet-56", "vgg16_bn": "VGG16-BN"}
WORDS = {"plain": "plain", "batch_norm": "batch norm", "refit": "refit"}
NOT_RUN = "not run"
RANDOM = "random"
Cells = Mapping[str, Mapping[float, Sequence[Row]]]


def read(make: Callable[[Record], str]) -> str:
    """What `make` says of the record."""
    return make(json.loads((RESULTS / "methods_table.json").read_text()))


def cells_of(record: Record, network: str) -> Cells:
    """Method -> how many times fewer MACs -> its rows, one for each seed; those that failed are left out."""
    found: dict[str, dict[float, list[Row]]] = defaultdict(lambda: defaultdict(list))
    for row in record["rows"]:
        if row["network"] == network and "error" not in row:
            found[row["method"]][row["fewer_macs"]].append(row)
    return found


def accuracies(record: Record, network: str) -> str:
    """Accuracy of every method by budget and repair, with what its planning takes."""
    cells = cells_of(record, network)
    if not cells:
        return f"{TITLES[network]}: {NOT_RUN} yet."
    ratios = sorted({row["fewer_macs"] for row in record["rows"]})
    seeds = max(len(rows) for by_ratio in cells.values() for rows in by_ratio.values())
    budgets = "".join(f" {r:g}x fewer MACs: plain / batch norm / refit |" for r in ratios)
    lines = [
        f"| method |{budgets} params left | planning, CPU s | in dense passes | image-forwards | labels | gradients |",
        "|---" * (7 + len(ratios)) + "|",
    ]
    for method in sorted(cells, key=lambda m: -_mean(cells[m].get(COUNTED_AT, ()), "refit_top1_percent", -1.0)):
        by_ratio = cells[method]
        shown = "".join(f" {_accuracies(by_ratio.get(ratio, ()), seeds)} |" for ratio in ratios)
        lines.append(f"| `{method}` |{shown} {_cost(by_ratio.get(COUNTED_AT, ()))} |")
    return "\n".join(
        [*lines, "", _about(record, network, ratios, seeds), "", _leaders(cells), *_never(record, network)]
    )


def _accuracies(rows: Sequence[Row], seeds: int) -> str:
    if not rows:
        return NOT_RUN
    parts = [f"{_mean(rows, f'{repair}_top1_percent'):.1f}" for repair in REPAIRS]
    refits = [r["refit_top1_percent"] for r in rows]
    spread = f" ({min(refits):.1f}–{max(refits):.1f})" if len(rows) > 1 else ""
    fewer = f", {_count(len(rows), 'seed')}" if len(rows) < seeds else ""
    return " / ".join(parts) + spread + fewer


def _cost(rows: Sequence[Row]) -> str:
    if not rows:
        return " | ".join([NOT_RUN] * 6)
    forwards = [r["image_forwards"] for r in rows if r["image_forwards"] is not None]
    return " | ".join(
        [
            f"{_mean(rows, 'params_ratio'):.0%}",
            f"{_mean(rows, 'planning_cpu_s'):.3g}",
            f"{_mean(rows, 'planning_dense_passes'):.2g}",
            f"{statistics.mean(forwards):,.0f}" if forwards else "not counted",
            _yes(any(r["labels"] for r in rows)),
            _yes(any(r["gradients"] for r in rows)),
        ]
    )


def _about(record: Record, network: str, ratios: Sequence[float], seeds: int) -> str:
    rows = [r for r in record["rows"] if r["network"] == network and "error" not in r]
    macs = {q: [r["macs_ratio"] for r in rows if r["fewer_macs"] == q] for q in ratios}
    left = ", ".join(f"{min(v):.1%} to {max(v):.1%} at {q:g}x" for q, v in macs.items() if v)
    tested, drawn, views = (_span(r[f] for r in rows) for f in ("test_images", "calibration_images", "views"))
    return (
        f"{TITLES[network]}, CIFAR-10, top-1 percent on the first {tested} test images (dense: "
        f"{_mean(rows, 'dense_top1_percent'):.1f}), {drawn} calibration images, of which the last repair sees "
        f"{views} augmented view(s) each; means over up to {_count(seeds, 'seed')}, behind refit the range. MACs that "
        f"are left: {left}. Params left and everything right of it: at {COUNTED_AT:g}x. Planning is CPU time of one "
        "thread, and the same over that of one dense pass over all calibration images; image-forwards are those that "
        "scorers and evaluators count, one dense pass of one image each."
    )


def _leaders(cells: Cells) -> str:
    """Who is first after each repair, and who is not above random, at the counted budget."""
    at = {method: by_ratio[COUNTED_AT] for method, by_ratio in cells.items() if COUNTED_AT in by_ratio}
    if not at:
        return f"At {COUNTED_AT:g}x fewer MACs: {NOT_RUN}."
    said = []
    for repair in REPAIRS:
        means = {method: _mean(rows, f"{repair}_top1_percent") for method, rows in at.items()}
        first = max(means, key=means.__getitem__)
        sentence = f"{WORDS[repair]}: `{first}` is first with {means[first]:.1f}%"
        if RANDOM in means:
            below = sorted(m for m, mean in means.items() if m != RANDOM and mean <= means[RANDOM])
            sentence += f"; not above `{RANDOM}` ({means[RANDOM]:.1f}%): {_listed(below)}"
        said.append(sentence)
    return f"At {COUNTED_AT:g}x fewer MACs. " + ". ".join(s[0].upper() + s[1:] for s in said) + "."


def _never(record: Record, network: str) -> list[str]:
    """Sentences about methods without a row of this network, and about those that failed."""
    rows = [r for r in record["rows"] if r["network"] == network]
    never = [m for m in record["registered"] if all(r["method"] != m for r in rows)]
    failed = {f"`{r['method']}` at {r['fewer_macs']:g}x ({r['error']})" for r in rows if "error" in r}
    said = [f"Not run on {TITLES[network]}: {_listed(never)}."] if never else []
    said += [f"Gave no network: {'; '.join(sorted(failed))}."] if failed else []
    return ["", *said] if said else []


def paired(record: Record) -> str:
    """The causal variant less its method, by network, budget and repair."""
    found = record["differences"]
    variants: Mapping[str, str] = record["causal_variants"]
    if not found:
        return f"No method was run both with and without causal insight: {NOT_RUN} yet."
    cells = {(d["method"], d["network"], d["fewer_macs"], d["repair"]): d for d in found}
    lines = [
        f"| with → without | network | fewer MACs |{''.join(f' {WORDS[r]}, points |' for r in REPAIRS)} planning, "
        "in dense passes |",
        "|---" * (4 + len(REPAIRS)) + "|",
    ]
    for method, network, ratio in dict.fromkeys(key[:3] for key in sorted(cells)):
        gaps = "".join(f" {_gap(cells.get((method, network, ratio, repair)))} |" for repair in REPAIRS)
        costs = [_passes(record, network, ratio, name) for name in (variants[method], method)]
        lines.append(
            f"| `{variants[method]}` → `{method}` | {TITLES[network]} | {ratio:g}x |{gaps} {' → '.join(costs)} |"
        )
    missing = [m for m in variants if all(d["method"] != m for d in found)]
    lines += [
        "",
        "Accuracy with causal insight less that without, on the same images and seeds, with a 95% t-interval for other "
        f"test images and other seeds ({_span(d['seeds'] for d in found)} seeds: few, so that a difference between "
        "seeds widens it much); bold where it excludes zero. One in twenty does so by chance.",
    ]
    return "\n".join([*lines, *(["", f"Pairs {NOT_RUN}: {_listed(missing)}."] if missing else [])])


def _gap(found: Mapping[str, Any] | None) -> str:
    if found is None:
        return NOT_RUN
    low, high = found["interval_points"]
    text = f"{found['points']:+.2f} ({low:+.2f} to {high:+.2f})"
    return text if found["verdict"] == "open" else f"**{text}**"


def _passes(record: Record, network: str, ratio: float, method: str) -> str:
    return f"{_mean(cells_of(record, network)[method][ratio], 'planning_dense_passes'):.2g}"


def verdicts(record: Record) -> str:
    """How many differences speak for causal insight, and, pair by pair, where it did not help."""
    at = [d for d in record["differences"] if d["fewer_macs"] == COUNTED_AT]
    if not at:
        return f"At {COUNTED_AT:g}x fewer MACs no pair was run yet."
    found = record["headline"]
    networks = " and ".join(TITLES[n] for n in found["networks"])
    own, same = sum("+" not in d["method"] for d in at), found["same_allocation"]
    lines = [
        f"At {COUNTED_AT:g}x fewer MACs, on {networks}, plain, with batch norms re-estimated and after a refit, "
        f"causal insight helps in **{found['causal_helps']}** of {own} paired differences, hurts in "
        f"**{found['causal_hurts']}**, and in **{found['causal_open']}** the interval includes zero.",
        "",
    ]
    if own < len(at):
        lines[0] += (
            f" Where both rank all groups together (`NAME+global`), it helps in "
            f"{same['helps']} of {len(at) - own}, hurts in {same['hurts']}, and is open in {same['open']}."
        )
    for method in dict.fromkeys(d["method"] for d in at):
        gaps = [d for d in at if d["method"] == method]
        without = [d for d in gaps if d["verdict"] != "helps"]
        ranked = sorted(without, key=lambda d: d["points"])
        named = "; ".join(f"{_where(d)} {_gap(d)}, {d['verdict']}" for d in ranked)
        ending = f"; it did not in {len(without)}: {named}." if without else "."
        helped = f"{len(gaps) - len(without)} of {len(gaps)} differences to `{method}`"
        lines.append(f"- `{gaps[0]['causal']}` helps in {helped}{ending}")
    return "\n".join(lines)


def _where(gap: Mapping[str, Any]) -> str:
    return f"{TITLES[gap['network']]}, {WORDS[gap['repair']]}:"


def left_out(record: Record) -> str:
    """What the table does not say, in numbers of the record."""
    rows = [r for r in record["rows"] if "error" not in r]
    untuned = sorted({r["method"] for r in rows if r["recovery_epochs_left_out"]})
    rounds = sorted({r["method"] for r in rows if r["in_rounds"]})
    labelled = sorted({r["method"] for r in rows if r["labels"]})
    commits = sorted({r["git_commit"] for r in rows})
    counts = {n: sum(r["network"] == n for r in rows) for n in TITLES}
    halves = [(high - low) / 2 for low, high in (d["interval_points"] for d in record["differences"])]
    seen = (
        f"half an interval of a paired difference is {statistics.median(halves):.1f} points (median)" if halves else ""
    )
    tested = _span(r["test_images"] for r in rows) if rows else NOT_RUN
    limits = sorted({n for r in rows if (n := r.get("search_plans")) is not None})
    effort = f"at most {', '.join(map(str, limits))} plans" if limits else "as many plans as they do by default"
    return "\n".join(
        [
            f"- Searches measured {effort}.",
            f"- Test images: {tested} of 10,000{'; ' * bool(seen)}{seen}.",
            f"- Rows: {', '.join(f'{TITLES[n]} {c}' for n, c in counts.items())}; of {_count(len(commits), 'commit')} "
            f"({', '.join(commits)}).",
            f"- In rounds, so that their planning time holds the refits on the way: {_listed(rounds)}.",
            f"- Used labels of calibration images: {_listed(labelled)}.",
            f"- Fine-tune between rounds, and were run without it, as no row is trained: {_listed(untuned)}.",
        ]
    )


def _mean(rows: Sequence[Row], field: str, otherwise: float = float("nan")) -> float:
    return statistics.mean(r[field] for r in rows) if rows else otherwise


def _listed(names: Sequence[str]) -> str:
    return ", ".join(f"`{name}`" for name in names) or "none"


def _span(numbers: Iterable[int]) -> str:
    found = sorted(set(numbers))
    return f"{found[0]:,}" if len(found) == 1 else f"{found[0]:,} to {found[-1]:,}"


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"


def _yes(value: bool) -> str:
    return "yes" if value else "no"


METHODS_TABLES: dict[str, Callable[[], str]] = {
    **{f"methods_table_{n}": partial(read, partial(accuracies, network=n)) for n in TITLES},
    "methods_table_pairs": partial(read, paired),
    "methods_table_verdicts": partial(read, verdicts),
    "methods_table_left_out": partial(read, left_out),
}
