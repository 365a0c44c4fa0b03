"""Criteria: scores per unit that are no measured effects, for comparison."""

from whyprune.criteria.activation_variance import activation_variance
from whyprune.criteria.bn_scale import bn_scale
from whyprune.criteria.chip import chip
from whyprune.criteria.feature_clusters import feature_clusters
from whyprune.criteria.feature_density import feature_density
from whyprune.criteria.feature_similarity import feature_similarity
from whyprune.criteria.filter_similarity import filter_similarity
from whyprune.criteria.geometric_median import geometric_median
from whyprune.criteria.hessian_diagonal import hessian_diagonal
from whyprune.criteria.hrank import hrank
from whyprune.criteria.lamp import lamp
from whyprune.criteria.magnitude import magnitude
from whyprune.criteria.obd_c import obd_c
from whyprune.criteria.random_scores import random_scores
from whyprune.criteria.synflow import synflow
from whyprune.criteria.taylor import taylor
from whyprune.criteria.taylor_bn import taylor_bn

__all__ = [
    "activation_variance",
    "bn_scale",
    "chip",
    "feature_clusters",
    "feature_density",
    "feature_similarity",
    "filter_similarity",
    "geometric_median",
    "hessian_diagonal",
    "hrank",
    "lamp",
    "magnitude",
    "obd_c",
    "random_scores",
    "synflow",
    "taylor",
    "taylor_bn",
]
