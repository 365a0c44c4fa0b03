"""whyprune prunes a trained network with causal inference, proves the result right, and says why."""

from whyprune.allocation import Budget, Constraints, Objective, Space, allocate, check_reachable
from whyprune.allocation.contract import allocator
from whyprune.causal.responsibility import Explanation, explain_prediction, saliency
from whyprune.effects.effects import Effects, ResponseCurve
from whyprune.effects.joint import joint_effect
from whyprune.effects.outcomes import ClassLogit, CrossEntropy, LogitShift, Margin, PredictionChange
from whyprune.errors import WhypruneError
from whyprune.methods import Method, Schedule, method_named, method_names
from whyprune.pipeline.result import Result
from whyprune.pipeline.settings import Settings
from whyprune.prune import prune
from whyprune.recovery import Recovery, recover
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

__version__ = "0.1.0"

__all__ = [
    "Budget",
    "ClassLogit",
    "Constraints",
    "CrossEntropy",
    "Effects",
    "Explanation",
    "Group",
    "LogitShift",
    "Margin",
    "Method",
    "Network",
    "Objective",
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
    "allocate",
    "allocator",
    "check_reachable",
    "estimate",
    "explain_prediction",
    "joint_effect",
    "load",
    "masked",
    "method_named",
    "method_names",
    "prune",
    "reconstruct",
    "recover",
    "reestimate_batch_norm",
    "remove",
    "repair",
    "saliency",
    "scorer",
    "trace",
    "verify",
]
