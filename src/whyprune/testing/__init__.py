"""For authors of methods, devices and penalties: networks with planted truth, and checks of the contracts."""

from whyprune.testing.devices import check_device
from whyprune.testing.estimators import check_estimator
from whyprune.testing.penalties import check_penalty

__all__ = ["check_device", "check_estimator", "check_penalty"]
