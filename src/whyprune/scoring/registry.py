"""Scorers by name; each is imported when it is asked for, so that an optional library is needed only then."""

from whyprune.named import Named
from whyprune.scoring.contract import NamedScorer

SCORERS: Named[NamedScorer] = Named(
    "scorer",
    {
        "curves": "whyprune.causal.response.scorer:curves",
        "elimination": "whyprune.causal.response.elimination_scorer:elimination",
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
        "random": "whyprune.criteria.random_scores:random",
        "magnitude-l1": "whyprune.criteria.magnitude:magnitude_l1",
        "magnitude-l2": "whyprune.criteria.magnitude:magnitude_l2",
        "taylor": "whyprune.criteria.taylor:taylor_scores",
        "taylor-bn": "whyprune.criteria.taylor_bn:taylor_bn_scores",
        "bn-scale": "whyprune.criteria.bn_scale:bn_scale_scores",
        "lamp": "whyprune.criteria.lamp:lamp_scores",
        "geometric-median": "whyprune.criteria.geometric_median:geometric_median_scores",
        "synflow": "whyprune.criteria.synflow:synflow_scores",
        "filter-similarity": "whyprune.criteria.filter_similarity:filter_similarity_scores",
        "feature-similarity": "whyprune.criteria.feature_similarity:feature_similarity_scores",
        "feature-density": "whyprune.criteria.feature_density:feature_density_scores",
        "feature-clusters": "whyprune.criteria.feature_clusters:feature_clusters_scores",
        "hessian-diagonal": "whyprune.criteria.hessian_diagonal:hessian_diagonal_scores",
        "obd-c": "whyprune.criteria.obd_c:obd_c_scores",
        "hrank": "whyprune.criteria.hrank:hrank_scores",
        "chip": "whyprune.criteria.chip:chip_scores",
        "activation-variance": "whyprune.criteria.activation_variance:plain",
        "activation-variance-denoised": "whyprune.criteria.activation_variance:cleaned",
    },
    "whyprune.scorers",
)
"""Name -> scorer; other packages add theirs by the entry-point group `whyprune.scorers`."""
