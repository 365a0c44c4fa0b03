"""Puts the page together: one HTML file that needs nothing else.

Names of units, layers and models come from the user's model and are hostile input: the template escapes them,
the embedded JSON holds no `<`, and a content security policy lets only the page's own script run.
"""

import base64
import hashlib
import os
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from whyprune.atomic import atomic_file
from whyprune.report import charts, comparison, words
from whyprune.report.rows import UnitRow, table
from whyprune.results import RunResult


def render(
    result: RunResult,
    rows: Sequence[UnitRow] = (),
    *,
    outcome: str,
    intervention: str,
    estimand: str,
    method: str,
    command: str | None = None,
    folder: str = "path/to/folder",
) -> str:
    """The report of a run as one HTML page.

    Args:
        result: what the run asked for and measured.
        rows: the units with their effects; none if no effects were estimated.
        outcome: what is measured on the network's output, such as "LogitShift".
        intervention: the value units are set to, such as "zero".
        estimand: what the numbers estimate, such as "single effect".
        method: how they were estimated.
        command: how to repeat the run.
        folder: where the result lies, for the code that loads it.

    Returns:
        The page; the same arguments give the same text.
    """
    axis = charts.effect_axis([row.effect for row in rows if row.effect is not None])
    script = _asset("units.js")
    return (
        _environment()
        .get_template("report.html.j2")
        .render(
            result=result,
            rows=rows,
            method={"outcome": outcome, "intervention": intervention, "estimand": estimand, "name": method},
            command=command or result.asked.get("command"),
            folder=folder,
            figures=comparison.figures(result),
            medians=(comparison.median_ms(result.dense), comparison.median_ms(result.pruned)),
            speedup=comparison.speedup(result),
            ratios={line.name: line.ratio for line in comparison.figures(result)},
            asked={k.replace("_images", f"_{result.samples}"): v for k, v in result.asked.items() if k != "command"},
            machine={k: v for k, v in result.machine.items() if k != "versions"},
            widths=charts.width_bars(result.groups),
            strips=charts.strips(rows, axis),
            axis=axis,
            joint=charts.joint_marks(result.joint_effect) if result.joint_effect else None,
            units=table(rows) | {"axis": {"low": axis.low, "high": axis.high, "linear": axis.linear}},
            words=words,
            style=Markup(_asset("style.css")),
            script=Markup(script),
            script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        )
    )


def write_report(path: str | os.PathLike[str], result: RunResult, *args: Any, **kwargs: Any) -> Path:
    """Writes `render(result, …)` to a file, whole or not at all.

    Args:
        path: the file; unless `folder` is given, its folder's name stands in the code that loads the result.
        result: what the run asked for and measured.
        args: as for `render`.
        kwargs: as for `render`.

    Returns:
        The path written.

    Raises:
        InputError: the path cannot be written.
    """
    target = Path(path)
    page = render(result, *args, **{"folder": target.absolute().parent.name, **kwargs})
    with atomic_file(target) as temporary:
        temporary.write_text(page, encoding="utf-8", newline="\n", errors="backslashreplace")
    return target


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("whyprune.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.policies["json.dumps_kwargs"] = {"allow_nan": False, "separators": (",", ":")}
    names = ("count", "short", "percent", "number", "ms", "span", "duration", "plain", "quoted")
    environment.filters.update({name: getattr(words, name) for name in names})
    return environment


def _asset(name: str) -> str:
    """A part of the page that whyprune itself brings; safe to insert as it is."""
    return resources.files("whyprune.report").joinpath("templates", name).read_text(encoding="utf-8").strip()
