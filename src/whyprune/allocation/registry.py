"""Allocators by name; each is imported when it is asked for."""

from whyprune.allocation.contract import NamedAllocator
from whyprune.named import Named

ALLOCATORS: Named[NamedAllocator] = Named(
    "allocation",
    {
        "uniform": "whyprune.allocation.uniform:uniform",
        "global": "whyprune.allocation.global_ranking:global_ranking",
        "curves": "whyprune.allocation.knapsack:along_measured_curves",
        "savings": "whyprune.allocation.knapsack:savings",
        "greedy": "whyprune.allocation.greedy:greedy",
        "particle-swarm": "whyprune.allocation.particle_swarm:particle_swarm",
        "backward": "whyprune.allocation.backward:backward",
        "halp": "whyprune.allocation.halp:halp",
        "genetic": "whyprune.allocation.genetic:genetic",
        "random-ratios": "whyprune.allocation.random_ratios:random_ratios",
        "natural-widths": "whyprune.allocation.natural_widths:natural_widths",
        "precrop": "whyprune.allocation.precrop:precrop",
        "precrop-gp": "whyprune.allocation.precrop:precrop_gp",
    },
    "whyprune.allocators",
)
"""Name -> allocator; other packages add theirs by the entry-point group `whyprune.allocators`."""
