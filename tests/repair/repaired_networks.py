"""Networks that repairs are tried on, and what a repair should lower."""

from structure.removal_property import output
from whyprune.data.outputs import logits_of
from whyprune.effects.outcomes import LogitShift

NAMES = [
    *("residual", "projection", "flatten", "separable", "concat", "vgg", "grouped", "mlp", "squeeze excite"),
    "linear over places",
]


def harm(network, model, batch):
    """The mean shift of the logits from the dense network."""
    dense, found = (logits_of(output(m, batch)) for m in (network.model, model))
    return float(LogitShift().fit(dense)(found, dense, None).mean())
