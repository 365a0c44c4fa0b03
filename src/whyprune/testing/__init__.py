"""For authors of methods and devices: networks with planted truth, and checks of the contracts."""

from whyprune.testing.devices import check_device
from whyprune.testing.estimators import check_estimator

__all__ = ["check_device", "check_estimator"]
