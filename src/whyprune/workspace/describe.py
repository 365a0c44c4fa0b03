"""What of a network can go, as plain values."""

from dataclasses import asdict
from typing import Any

from whyprune.pipeline.measure import group_summaries
from whyprune.repair.coverage import unrefitted
from whyprune.structure.network import Network
from whyprune.structure.notes import notes_on
from whyprune.structure.unproven import unproven


def describe(network: Network) -> dict[str, Any]:
    """Costs, groups, layers that repair leaves alone, refusals and attributes that follow, for JSON."""
    cost = network.cost()
    return {
        "model": type(network.model).__name__,
        "dense": asdict(cost),
        "uncounted": list(network.cost.uncounted),
        "unread": list(network.unread),
        "unproven": list(unproven(network)),
        "notes": notes_on(network),
        "units": len(network.units),
        "groups": [
            {
                "name": s.name,
                "width": group.width,
                "units": s.removable,
                "axes": s.axes,
                "marks": list(dict.fromkeys(mark for unit in group.units for mark in unit.marks)),
                "macs": s.macs_before,
                "macs_share": s.macs_before / cost.macs if cost.macs else 0.0,
            }
            for group, s in zip(network.groups, group_summaries(network), strict=True)
        ],
        "blocks": [{"name": block.name, "groups": list(block.groups)} for block in network.blocks],
        "outputs": [
            {"name": t.name, "shape": t.shown, "counts": t.counts, "because": t.because}
            for t in network.outputs.tensors
        ],
        "fixed_branches": network.graph.fixed_branches,
        "unrefitted": [{"where": u.where, "reason": u.reason} for u in unrefitted(network)],
        "refusals": [{"where": r.where, "reason": r.reason, "channels": r.channels} for r in network.refusals],
        "attributes": [{"module": a.module, "attribute": a.attribute, "value": a.value} for a in network.attributes],
    }
