"""Allocation: which units go, and how many where, so that a budget holds."""

from whyprune.allocation.allocate import allocate, allocate_curves
from whyprune.allocation.budget import Budget
from whyprune.allocation.constraints import Constraints
from whyprune.allocation.contract import Allocator, AllocatorFacts, allocator
from whyprune.allocation.objective import Evaluator, Objective, along_curves, along_scores
from whyprune.allocation.reach import check_reachable
from whyprune.allocation.registry import ALLOCATORS
from whyprune.allocation.space import Point, Space, Variable

__all__ = [
    "ALLOCATORS",
    "Allocator",
    "AllocatorFacts",
    "Budget",
    "Constraints",
    "Evaluator",
    "Objective",
    "Point",
    "Space",
    "Variable",
    "allocate",
    "allocate_curves",
    "allocator",
    "along_curves",
    "along_scores",
    "check_reachable",
]
