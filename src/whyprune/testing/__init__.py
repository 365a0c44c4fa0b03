"""For authors of methods and devices: networks with planted truth, and checks of the contracts."""

from whyprune.testing.allocators import check_allocator
from whyprune.testing.devices import check_device
from whyprune.testing.methods import check_method
from whyprune.testing.penalties import check_penalty
from whyprune.testing.scorers import check_scorer

__all__ = ["check_allocator", "check_device", "check_method", "check_penalty", "check_scorer"]
