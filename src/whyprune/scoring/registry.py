"""Estimators by name; each is imported when it is asked for, so that an optional library is needed only then."""

from importlib import import_module
from typing import cast

from whyprune.errors import InputError
from whyprune.scoring.contract import Estimator

ESTIMATORS = {
    "cxplain": "whyprune.causal.cxplain.estimator:cxplain",
    "adaptive": "whyprune.causal.adaptive.estimator:adaptive",
    "exact": "whyprune.causal.exact:exact",
    "random-masks": "whyprune.causal.masks.random_masks:random_masks",
    "responsibility": "whyprune.causal.responsibility.estimator:responsibility",
    "shapley": "whyprune.causal.masks.shapley:shapley",
    "gradient": "whyprune.causal.gradient.estimator:gradient",
    "gradient-first": "whyprune.causal.gradient.estimator:gradient_first",
    "concepts": "whyprune.causal.concepts.estimator:concepts",
    "interventional-risk": "whyprune.causal.interventional_risk:interventional_risk",
    "discovery": "whyprune.causal.fitted.discovered:discovery",
    "dowhy": "whyprune.causal.fitted.dowhy_study:dowhy",
    "gcm": "whyprune.causal.fitted.graphical:gcm",
    "scm": "whyprune.causal.fitted.scm:scm",
}
"""Name -> where its function is, as `module:function`."""


def estimator(name: str) -> Estimator:
    """The estimator of that name.

    Raises:
        InputError: there is none.
        MissingDependencyError: it needs an optional library.
    """
    if name not in ESTIMATORS:
        raise InputError(f"no estimator named {name!r}: choose from {', '.join(ESTIMATORS)}")
    module, _, function = ESTIMATORS[name].partition(":")
    return cast(Estimator, getattr(import_module(module), function))
