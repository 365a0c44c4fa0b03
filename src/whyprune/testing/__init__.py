"""For authors of methods and devices: networks with planted truth, and checks of the contracts."""

from whyprune.testing.devices import check_device
from whyprune.testing.scorers import check_scorer

__all__ = ["check_device", "check_scorer"]
