"""CXPlain: effects image by image, predicted by a model that has learnt from interventions."""

from whyprune.causal.cxplain.estimator import Cxplain, Explainer, Predicted, explain, predicted_effects
from whyprune.causal.cxplain.explainer import Training

__all__ = ["Cxplain", "Explainer", "Predicted", "Training", "explain", "predicted_effects"]
