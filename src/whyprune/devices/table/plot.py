"""A latency table as a picture: time over width, one panel per layer and axis, the widths worth pruning to marked."""

import math
import os
from collections.abc import Sequence

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from whyprune.atomic import atomic_file
from whyprune.devices.table.steps import LatencyCurve
from whyprune.errors import InputError

SUFFIXES = (".png", ".svg", ".pdf")
COLUMNS = 3
MOST = 12
INK, MARK = "#3b4252", "#c8553d"


def plot_curves(curves: Sequence[LatencyCurve], device: str, path: str | os.PathLike[str]) -> None:
    """Draws the curves of the slowest layers.

    Args:
        curves: of one network.
        device: its name, and its kind where it is not measured.
        path: a .png, .svg or .pdf file.

    Raises:
        InputError: another kind of file, nothing to draw, or a path that cannot be written.
    """
    suffix = os.path.splitext(path)[1].lower()
    if suffix not in SUFFIXES:
        raise InputError(f"{path}: a plot is a file in one of {', '.join(SUFFIXES)}")
    if not curves:
        raise InputError("there is nothing to plot: no layer of the network has an axis that can shrink")
    drawn = sorted(curves, key=lambda c: -c.ms[-1] * len(c.layers))[:MOST]
    columns = min(COLUMNS, len(drawn))
    rows = math.ceil(len(drawn) / columns)
    figure = Figure(figsize=(3.4 * columns, 2.5 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    for place, curve in enumerate(drawn):
        _panel(axes[place // columns][place % columns], curve)
    for place in range(len(drawn), rows * columns):
        axes[place // columns][place % columns].set_axis_off()
    figure.suptitle(f"Time per layer on {device}; filled: no wider layer is as fast", fontsize=10)
    with mpl.rc_context({"svg.hashsalt": "whyprune", "font.family": "sans-serif"}), atomic_file(path) as temporary:
        figure.savefig(temporary, format=suffix[1:], dpi=144)


def _panel(axes: Axes, curve: LatencyCurve) -> None:
    microseconds = [1000 * t for t in curve.ms]
    axes.plot(curve.widths, microseconds, color=INK, linewidth=1, marker="o", markerfacecolor="white", markersize=4)
    good = [(w, t) for w, t in zip(curve.widths, microseconds, strict=True) if w in curve.efficient]
    axes.plot(*zip(*good, strict=True), linestyle="none", marker="o", color=MARK, markersize=4)
    row = curve.dense
    kernel = "x".join(map(str, row.kernel))
    what = f"{kernel} conv" if row.operation == "conv" else "linear"
    grouped = f", {row.groups} groups" if row.groups > 1 else ""
    size = "x".join(map(str, row.size))
    axes.set_title(f"{row.inputs} to {row.outputs}, {what}{grouped}, {size} (x{len(curve.layers)})", fontsize=8)
    axes.set_xlabel(f"{curve.side}", fontsize=8)
    axes.set_ylabel("microseconds", fontsize=8)
    axes.set_ylim(bottom=0)
    axes.tick_params(labelsize=7)
    axes.grid(visible=True, linewidth=0.3)
