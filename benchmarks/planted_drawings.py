"""How the planted network and what is said about its units are drawn: SVG, the same bytes for the same numbers."""

import io
from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import nn

INK, QUIET, HARM, HELP, MARK = "#222222", "#8a8a8a", "#c1440e", "#1f77b4", "#e8e2d4"
STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "whyprune",
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": QUIET,
    "xtick.color": QUIET,
    "text.color": INK,
}
ROLES = {
    "copy A": "the same filter as copy B, read with the same weights",
    "copy B": "the same filter as copy A",
    "plus": "the same filter as minus …",
    "minus": "… read with the opposite weights: together they are nothing",
    "dead": "never above zero",
    "bystander": "the same filter as its original, read with weight 0",
    "its original": "the same filter as the bystander, and read",
    "one class": "sees the channel that only images of class 2 have",
    "plain": "an ordinary unit",
}


def draw_all(found: dict[str, Any], model: nn.Module, names: Sequence[str], rate: float, gone: Sequence[str]) -> dict:
    """Name -> SVG of every picture."""
    rows, pairs = found["rows"], found["pairs"]
    with mpl.rc_context(STYLE):
        return {
            "network": _bytes(network(model, names)),
            "estimands": _bytes(estimands(rows, rate, gone)),
            "pairs": _bytes(side_by_side(pairs)),
            "values": _bytes(panels(rows, {f"value_{v}": v for v in _keys(rows, "value_")})),
            "classes": _bytes(panels(rows, {f"class_{c}": f"images of class {c}" for c in _keys(rows, "class_")})),
        }


def _keys(rows: Sequence[dict[str, Any]], prefix: str) -> list[str]:
    return [key.removeprefix(prefix) for key in rows[0] if key.startswith(prefix)]


def _bytes(figure: Figure) -> bytes:
    out = io.BytesIO()
    figure.savefig(out, format="svg", facecolor="white", bbox_inches="tight", metadata={"Date": None})
    return b"\n".join(line.rstrip() for line in out.getvalue().splitlines()) + b"\n"


def network(model: nn.Module, names: Sequence[str]) -> Figure:
    """Image channels, units and their reader; a line is as wide as the weights behind it are large."""
    figure = Figure(figsize=(8.6, 4.2))
    axes = figure.subplots()
    axes.set_axis_off()
    axes.set_xlim(-0.6, 7.4)
    axes.set_ylim(-0.6, len(names) - 0.3)
    heights = {name: len(names) - 1 - k for k, name in enumerate(names)}
    seen = model.units.weight.detach().flatten(2).norm(dim=2).numpy()
    read = model.left.weight.detach().flatten(2).norm(dim=(0, 2)).numpy()
    middle = (len(names) - 1) / 2
    inputs = [(0, middle + 1.2, "channel 1"), (0, middle - 1.2, "channel 2")]
    for k, name in enumerate(names):
        y = heights[name]
        for (x0, y0, _), weight in zip(inputs, seen[k], strict=True):
            _line(axes, (x0 + 0.45, y0), (1.75, y), weight / seen.max())
        _line(axes, (2.25, y), (3.35, middle), read[k] / read.max())
        dead = name == "dead"
        axes.add_patch(_circle((2, y), fill=MARK if dead or not read[k] else "white"))
        axes.text(2, y, str(k), ha="center", va="center", color=QUIET if dead else INK)
        axes.text(4.75, y, name, va="center", weight="bold", fontsize=8.5)
        axes.text(5.75, y, ROLES[name], va="center", fontsize=8, color=QUIET)
    for x, y, text in [*inputs, (3.75, middle, "reader")]:
        axes.text(x, y, text, ha="center", va="center", bbox={"boxstyle": "round", "fc": "white", "ec": QUIET})
    return figure


def _line(axes: Axes, start: tuple[float, float], end: tuple[float, float], weight: float) -> None:
    if weight > 0:
        axes.plot(*zip(start, end, strict=True), color=QUIET, lw=0.3 + 1.7 * weight, alpha=0.7, zorder=0)
    else:
        axes.plot(*zip(start, end, strict=True), color=QUIET, lw=0.5, ls=(0, (1, 4)), alpha=0.5, zorder=0)


def _circle(place: tuple[float, float], fill: str) -> Any:
    from matplotlib.patches import Ellipse

    return Ellipse(place, 0.5, 0.72, facecolor=fill, edgecolor=INK, lw=0.8)


def estimands(rows: Sequence[dict[str, Any]], rate: float, gone: Sequence[str]) -> Figure:
    """One panel for each estimand that is a number per unit."""
    titles = {
        "single": "single\nin the network as it is",
        "conditional": f"conditional\n{', '.join(gone)} gone",
        "context": f"context\neach other gone, p = {rate:g}",
        "shapley": "shapley\nover all orders",
        "blame": "blame, a score\nmean responsibility",
    }
    return panels(rows, titles)


def panels(rows: Sequence[dict[str, Any]], titles: dict[str, str]) -> Figure:
    """Horizontal bars, a row for each unit, a panel for each column; panels of effects share one scale."""
    figure = Figure(figsize=(1.6 * len(titles) + 1.6, 3.0))
    axes = figure.subplots(1, len(titles), sharey=True, squeeze=False)[0]
    places = np.arange(len(rows))[::-1]
    shared = [r[key] for key in titles if key != "blame" for r in rows if r[key] is not None]
    low, high = min(0.0, *shared), max(shared)
    for panel, (key, title) in zip(axes, titles.items(), strict=True):
        for place, row in zip(places, rows, strict=True):
            if row[key] is None:
                panel.text(0, place, " gone", va="center", color=QUIET, fontsize=8)
            else:
                _bar(panel, place, row[key], (max(r[key] for r in rows) if key == "blame" else high) - min(low, 0))
        panel.axvline(0, color=QUIET, lw=0.8)
        panel.set_title(title, fontsize=8.5, loc="left")
        panel.tick_params(axis="y", length=0)
        panel.tick_params(axis="x", labelsize=7)
        if key == "blame":
            panel.set_xlim(0, 1.35 * max(r[key] for r in rows))
        else:
            panel.set_xlim(1.4 * low - 0.1 * high * (low < 0), 1.35 * high)
    axes[0].set_yticks(places, [r["unit"] for r in rows])
    figure.subplots_adjust(wspace=0.12)
    return figure


def _bar(panel: Axes, place: float, value: float, span: float) -> None:
    panel.barh(place, value, height=0.62, color=HARM if value >= 0 else HELP)
    text = "0" if abs(value) < 5e-7 else f"{value:.2g}"
    side = -1 if value < -5e-7 else 1
    panel.text(value + side * 0.02 * span, place, text, va="center", ha="left" if side > 0 else "right", fontsize=7)


def side_by_side(pairs: Sequence[dict[str, Any]]) -> Figure:
    """For each pair: what its single effects add up to, and what is measured."""
    figure = Figure(figsize=(8.6, 2.4))
    axes = figure.subplots(1, len(pairs))
    for panel, pair in zip(np.atleast_1d(axes), pairs, strict=True):
        first, second = pair["pair"].split(" and ")
        bars = [
            (f"{first} alone", [pair["first"]]),
            (f"{second} alone", [pair["second"]]),
            (f"{second}, {first} gone", [pair["second_once_first_is_gone"]]),
            ("sum of both", [pair["first"], pair["second"]]),
            ("both together", [pair["together"]]),
        ]
        span = max(sum(parts) for _, parts in bars)
        for place, (_, parts) in zip(range(len(bars) - 1, -1, -1), bars, strict=True):
            if len(parts) > 1:
                panel.barh(place, sum(parts), height=0.62, color="white", edgecolor=QUIET, ls="--", lw=0.8)
                panel.text(sum(parts) + 0.02 * span, place, f"{sum(parts):.2g}", va="center", fontsize=7, color=QUIET)
            else:
                _bar(panel, place, parts[0], span)
        panel.set_yticks(range(len(bars) - 1, -1, -1), [label for label, _ in bars], fontsize=8)
        low = min(0.0, *(sum(parts) for _, parts in bars))
        panel.set_xlim(1.15 * low - 0.4 * span * (low < 0), 1.3 * span)
        panel.axvline(0, color=QUIET, lw=0.8)
        panel.tick_params(axis="y", length=0)
        panel.tick_params(axis="x", labelsize=7)
        panel.set_title(pair["pair"], fontsize=9, loc="left")
    figure.subplots_adjust(wspace=0.75)
    return figure
