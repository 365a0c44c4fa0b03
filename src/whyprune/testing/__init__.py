"""For authors of methods: networks with planted truth, and checks of the contracts."""

from whyprune.testing.estimators import check_estimator

__all__ = ["check_estimator"]
