"""Models: the networks the command line can name, their weights and fingerprints."""

from whyprune.models.digits import train_digits
from whyprune.models.registry import BUILT_INS, BuiltIn, default_normalization, load_model
from whyprune.models.resnet import PadShortcut
from whyprune.models.weights import architecture_fingerprint, fingerprint, load_weights

__all__ = [
    "BUILT_INS",
    "BuiltIn",
    "PadShortcut",
    "architecture_fingerprint",
    "default_normalization",
    "fingerprint",
    "load_model",
    "load_weights",
    "train_digits",
]
