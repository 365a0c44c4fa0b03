"""whyprune prunes a trained network with causal inference, proves the result right, and says why."""

from whyprune.allocation import Budget, Constraints, Objective, Space, allocate, allocate_curves, check_reachable
from whyprune.allocation.contract import allocator
from whyprune.causal.exact import exact_effects
from whyprune.causal.response.bypass import bypass_effects
from whyprune.causal.response.curves import response_curves
from whyprune.causal.responsibility import Explanation, explain_prediction, saliency
from whyprune.data import Augmentation, DataSource, Loader, Normalization, calibration_indices, load_source
from whyprune.data.batches import Batch, split_images
from whyprune.data.calibration import Calibration, calibrate
from whyprune.devices import accuracy
from whyprune.effects.effects import Effects, ResponseCurve
from whyprune.effects.joint import joint_effect
from whyprune.effects.outcomes import ClassLogit, CrossEntropy, LogitShift, Margin, PredictionChange
from whyprune.effects.output_shift import OutputShift
from whyprune.errors import WhypruneError
from whyprune.methods import Method, Schedule, method_named, method_names
from whyprune.models import load_model, load_weights, train_digits
from whyprune.pipeline.result import Result
from whyprune.pipeline.settings import Settings
from whyprune.prune import prune
from whyprune.recovery import Recovery, penalty, recover
from whyprune.repair import reconstruct, reestimate_batch_norm, repair
from whyprune.scoring.contract import Question, scorer
from whyprune.scoring.estimate import estimate
from whyprune.structure.file import load
from whyprune.structure.network import Network
from whyprune.structure.plan import Plan
from whyprune.structure.remove import masked, remove
from whyprune.structure.state import State
from whyprune.structure.trace import trace
from whyprune.structure.units import Group, Unit
from whyprune.structure.verify import verify
from whyprune.structure.widen import widen

__version__ = "0.1.0"

__all__ = [
    "Augmentation",
    "Batch",
    "Budget",
    "Calibration",
    "ClassLogit",
    "Constraints",
    "CrossEntropy",
    "DataSource",
    "Effects",
    "Explanation",
    "Group",
    "Loader",
    "LogitShift",
    "Margin",
    "Method",
    "Network",
    "Normalization",
    "Objective",
    "OutputShift",
    "Plan",
    "PredictionChange",
    "Question",
    "Recovery",
    "ResponseCurve",
    "Result",
    "Schedule",
    "Settings",
    "Space",
    "State",
    "Unit",
    "WhypruneError",
    "accuracy",
    "allocate",
    "allocate_curves",
    "allocator",
    "bypass_effects",
    "calibrate",
    "calibration_indices",
    "check_reachable",
    "estimate",
    "exact_effects",
    "explain_prediction",
    "joint_effect",
    "load",
    "load_model",
    "load_source",
    "load_weights",
    "masked",
    "method_named",
    "method_names",
    "penalty",
    "prune",
    "reconstruct",
    "recover",
    "reestimate_batch_norm",
    "remove",
    "repair",
    "response_curves",
    "saliency",
    "scorer",
    "split_images",
    "trace",
    "train_digits",
    "verify",
    "widen",
]
