"""Results as tables for the terminal."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Group
from rich.table import Table
from rich.text import Text

from whyprune.pipeline.measure import group_summaries
from whyprune.repair.coverage import Unrefitted, unrefitted
from whyprune.report.comparison import figures
from whyprune.report.words import bypassed, certified, on_device, percent, refuted, unusable
from whyprune.results import RunResult
from whyprune.structure.hints import freeing
from whyprune.structure.network import Network
from whyprune.structure.notes import notes_on, widths_not_proven

AXES_SHOWN = 2
# They stand in the report.
DETAILS = ("Latency, p90", "Latency, p99")


def run_tables(record: RunResult, folder: Path) -> Group:
    """What a run made: costs and accuracy beside the dense network's, the steps, the proof, the files."""
    return Group(*_verdict(record), _comparison(record), "", _facts(record, folder))


def network_tables(network: Network) -> Group:
    """What of a network can go: groups, layers that repair leaves alone, refusals, attributes that follow."""
    cost = network.cost()
    head = Text(
        f"{type(network.model).__name__}: {cost.macs:,} MACs, {cost.params:,} parameters, "
        f"{cost.bytes:,} bytes; {len(network.units):,} removable units in {len(network.groups)} groups"
    )
    nothing = Text("Nothing can be removed from this network; what is kept whole, and why:")
    parts: list[Table | Text] = [head, _groups(network) if network.groups else nothing]
    parts += [Text(sentence) for sentence in network.outputs.notes()]
    if network.blocks:
        parts.append(Text(f"Residual blocks that can go as a whole: {', '.join(b.name for b in network.blocks)}"))
    if left := unrefitted(network):
        parts.append(_unrefitted(left))
    if network.refusals:
        parts.append(_refusals(network))
    if network.attributes:
        follow = ", ".join(f"{a.module or 'the model'}.{a.attribute} (now {a.value})" for a in network.attributes)
        parts.append(Text(f"Attributes that follow: {follow}"))
    parts += [Text(note) for note in (*notes_on(network), *widths_not_proven(network))]
    return Group(*parts)


def _table(title: str, *columns: str, right: int = 99) -> Table:
    """A plain table; columns from number `right` on hold numbers."""
    table = Table(title=title or None, title_justify="left", title_style="bold", box=None, pad_edge=False)
    for number, column in enumerate(columns):
        # Names fold rather than end in an ellipsis: a cut-off name is of no use.
        table.add_column(column, justify="right" if number >= right else "left", overflow="fold")
    return table


def _verdict(record: RunResult) -> list[Text]:
    """What to know before any number: in red where the function is lost."""
    if record.verdict is None:
        return []
    if not unusable(record):
        return [Text(record.verdict.sentence), Text("")]
    lines = [Text(f"Not usable. {record.verdict.sentence}", style="bold red")]
    return [*lines, *(Text(f"  {what}", style="red") for what in record.verdict.advice), Text("")]


def _comparison(record: RunResult) -> Table:
    table = _table("", "", "dense", "pruned", "", right=1)
    for figure in figures(record):
        if figure.name in DETAILS:
            continue
        ratio = figure.ratio_note if figure.ratio_note.endswith("fewer") else figure.ratio
        table.add_row(figure.name, figure.dense, figure.pruned, ratio)
    return table


def _facts(record: RunResult, folder: Path) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    after = record.accuracy_after
    steps = {"removal": after.removal, "repair": after.repair, "recovery": after.recovery}
    reached = [f"{percent(value)} after {step}" for step, value in steps.items() if value is not None]
    if reached:
        table.add_row("accuracy", Text(", ".join(reached)))
    if (joint := record.joint_effect) is not None:
        low, high = joint.interval
        predicted = "" if joint.predicted is None else f", predicted {joint.predicted:.4g}"
        table.add_row(
            "joint effect",
            Text(f"{joint.outcome} {joint.measured:.4g} (95%: {low:.4g} to {high:.4g}){predicted}"),
        )
    for budget in record.budgets:
        table.add_row("budget", Text(on_device(budget)))
    if record.blocks:
        table.add_row("blocks", Text(bypassed(record.blocks)))
    proof = record.verify
    table.add_row(
        "verified",
        Text(
            f"removal equals the masked original to {proof.max_abs_difference:.1e} "
            f"on {proof.inputs:,} {record.samples} (allowed: {proof.tolerance:.0e})"
        ),
    )
    if record.certificate is not None:
        table.add_row("certified", Text(certified(record.certificate, record.samples)))
    if record.refutations:
        table.add_row("refutation", Text(refuted(record.refutations)))
        for failed in (r for r in record.refutations if r.passed is False):
            table.add_row("", Text(f"{failed.name.replace('images', record.samples)}: {failed.sentence}"))
    for note in record.notes:
        table.add_row("note", Text(note))
    table.add_row("result", Text(str(folder)))
    table.add_row("report", Text(str(folder / "report.html")))
    return table


def _groups(network: Network) -> Table:
    dense = network.cost().macs
    table = _table("Groups: units that share axes", "group", "axes", "width", "units", "MACs", "marks", right=2)
    widths = {group.name: group.width for group in network.groups}
    for group, summary in zip(network.groups, group_summaries(network), strict=True):
        shown = ", ".join(summary.axes[:AXES_SHOWN])
        more = len(summary.axes) - AXES_SHOWN
        table.add_row(
            Text(summary.name),
            Text(shown + (f" and {more} more" if more > 0 else "")),
            str(widths[summary.name]),
            str(summary.width),
            f"{summary.macs_before / dense:.1%}" if dense else "none",
            Text(", ".join(dict.fromkeys(mark for unit in group.units for mark in unit.marks))),
        )
    summed = sum(summary.macs_before for summary in group_summaries(network))
    overlap = f" Groups that share layers overlap: together {summed / dense:.0%}." if summed > dense else ""
    table.caption = (
        f"MACs: of the layers that write or read these channels.{overlap} "
        "Marks: operations whose statistics run over these channels, so that they change when one goes."
    )
    table.caption_justify = "left"
    return table


def _unrefitted(layers: Sequence[Unrefitted]) -> Table:
    table = _table("Layers that lose channels and cannot be refitted", "where", "why")
    for layer in layers:
        table.add_row(Text(layer.where), Text(layer.reason))
    return table


def _refusals(network: Network) -> Table:
    table = _table("Refusals: channels that are kept whole", "where", "channels", "why")
    for refusal in network.refusals:
        hint = freeing(refusal)
        why = f"{refusal.reason}: {hint}" if hint else refusal.reason
        table.add_row(Text(refusal.where), str(refusal.channels), Text(why))
    return table
