"""The tables of docs/devices.md, from the profiles and from the records of `device_prediction`."""

import json
from collections.abc import Callable
from typing import Any

from benchmarks.common import RESULTS
from whyprune.devices.profile import Profile, profiles

METHODS = {
    "macs": "MACs at one rate",
    "roofline alone": "roofline, this board only",
    "roofline": "roofline",
    "roofline and residuals": "roofline, and what is typical of the network",
    "nearest board": "the most similar board, scaled",
    "factors": "all boards' latencies, factorised",
}
PROTOCOLS = {
    "cpu: new network": "a network never measured anywhere, 12 others measured on the board",
    "cpu: known network": "a network measured on other boards, 12 others on this one",
    "cpu: 6 anchors": "the same, 6 networks measured on the board",
    "cpu: 4 anchors": "4 networks",
    "cpu: 3 anchors": "3 networks",
    "cpu: 2 anchors": "2 networks",
    "cpu: 1 anchors": "1 network",
    "gpu: new network": "GPUs (Vulkan): a network never measured anywhere",
    "gpu: known network": "GPUs: a network measured on other boards",
    "int8: new network": "int8 on CPUs, 6 networks: one never measured anywhere",
    "int8: known network": "int8: one measured on other boards",
}
HERE = {
    "layers held out": "layers that were not fitted to",
    "networks on the same runtime": "whole networks, runtime fitted to",
    "networks on another runtime": "whole networks, another runtime",
    "speed-ups on the same runtime": "speed-up of a pruned network, runtime fitted to",
    "speed-ups on another runtime": "speed-up, another runtime",
}


def predicted_profiles() -> str:
    """Every predicted profile with the error of its own networks held out one at a time."""
    lines = ["| device | what it is | threads | error: median / p90, % | sources |", "|---|---|---|---|---|"]
    for profile in profiles().values():
        if profile.kind != "predicted":
            continue
        errors = [r.errors[0] for r in profile.rooflines]
        threads = " / ".join(str(r.threads) for r in profile.rooflines)
        found = "; ".join(f"{e.median_percent:.0f} / {e.p90_percent:.0f}" for e in errors)
        lines.append(f"| `{profile.name}` | {profile.title} | {threads} | {found} | {_sources(profile)} |")
    return "\n".join(lines)


def _sources(profile: Profile) -> str:
    shown = []
    for source in profile.sources:
        title = source.title.partition(" (BSD")[0]
        link = f"[{title}]({source.url})" if source.url else title
        shown.append(f"{source.what}: {link}{', second-hand' if source.second_hand else ''}")
    return "; ".join(shown)


def prediction_on_boards() -> str:
    """Errors per protocol and method on the published table."""
    record = json.loads((RESULTS / "device_prediction-boards.json").read_text())
    cells = {(row["protocol"], row["method"]): row for row in record["rows"]}
    lines = ["| predicted | " + " | ".join(METHODS.values()) + " |", "|---|" + "---|" * len(METHODS)]
    for protocol, name in PROTOCOLS.items():
        if any(key[0] == protocol for key in cells):
            row = " | ".join(_error(cells.get((protocol, method))) for method in METHODS)
            lines.append(f"| {name} | {row} |")
    tables = record["boards"]["tables"]
    cpu, gpu = tables["cpu"], tables["gpu"]
    lines += [
        "",
        "Error of the predicted latency, median / p90 in percent; in brackets the 95% interval of the median, boards "
        f"being drawn. {cpu['runs']} runs on the CPUs of {cpu['chips']} chips, {len(cpu['networks'])} networks, and "
        f"{gpu['runs']} runs on GPUs; a chip is never among the boards that teach about it.",
    ]
    return "\n".join(lines)


def prediction_here() -> str:
    """Errors on the machine that the record names."""
    path = RESULTS / "device_prediction-here.json"
    if not path.exists():
        return "Not recorded yet."
    record = json.loads(path.read_text())
    cells = {(row["protocol"], row["method"]): row for row in record["rows"]}
    lines = ["| predicted | roofline | MACs at one rate | comparisons |", "|---|---|---|---|"]
    for protocol, name in HERE.items():
        row = cells.get((protocol, "roofline"))
        if row is not None:
            roofline, macs = (_off(cells.get((protocol, method))) for method in ("roofline", "macs"))
            lines.append(f"| {name} | {roofline} | {macs} | {row['count']} |")
    runtimes = ", ".join(record["here"]["rates"])
    clock = "CPU time" if record["here"]["clock"] == "cpu" else "wall time"
    networks = len(next(iter(record["here"]["networks_ms"].values())))
    lines += [
        "",
        "Median / p90 in percent. Best "
        f"{clock} of interleaved calls on {record['machine']['cpu']}, one thread, batch 1; runtimes: {runtimes}; "
        f"{networks} networks, dense and pruned.",
    ]
    return "\n".join(lines)


def _off(row: dict[str, Any] | None) -> str:
    """Without an interval: there are too few runtimes to draw from."""
    return "–" if row is None else f"{row['median_percent']:.0f} / {row['p90_percent']:.0f}"


def _error(row: dict[str, Any] | None) -> str:
    if row is None:
        return "–"
    low, high = row["median_interval_percent"]
    return f"{row['median_percent']:.0f} / {row['p90_percent']:.0f} ({low:.0f}–{high:.0f})"


DEVICE_TABLES: dict[str, Callable[[], str]] = {
    "predicted_profiles": predicted_profiles,
    "prediction_on_boards": prediction_on_boards,
    "prediction_here": prediction_here,
}
