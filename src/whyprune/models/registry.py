"""What MODEL can name on the command line."""

from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache

from torch import nn

from whyprune.data import Normalization, load_source
from whyprune.data.sources.factory import is_factory_spec
from whyprune.errors import InputError
from whyprune.models.digits import digits_cnn
from whyprune.models.external import ImageShape, factory_model, timm_model, transformers_model
from whyprune.models.mobilenet import mobilenet_v2
from whyprune.models.resnet import resnet20, resnet56
from whyprune.models.vgg import vgg16_bn


@dataclass(frozen=True)
class BuiltIn:
    """A network that whyprune carries.

    Attributes:
        build: makes it, from the number of classes and of image channels.
        image_shape: (C, H, W) that it is made for.
        smallest: images need at least this many rows and columns.
        normalization: makes the normalisation its images need.
    """

    build: Callable[[int, int], nn.Module]
    image_shape: ImageShape
    smallest: int
    normalization: Callable[[], Normalization]


def _imagenet() -> Normalization:
    # The published weights were trained with these, on CIFAR-10 too.
    return Normalization((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), "built-in model: ImageNet's")


def _cifar() -> Normalization:
    return Normalization((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616), "built-in model: CIFAR-10's")


@cache
def _digits() -> Normalization:
    return Normalization.of(load_source("digits").train)


BUILT_INS: dict[str, BuiltIn] = {
    "resnet20": BuiltIn(resnet20, (3, 32, 32), 1, _imagenet),
    "resnet56": BuiltIn(resnet56, (3, 32, 32), 1, _imagenet),
    "vgg16_bn": BuiltIn(vgg16_bn, (3, 32, 32), 32, _cifar),
    "mobilenet_v2": BuiltIn(mobilenet_v2, (3, 32, 32), 1, _cifar),
    "digits_cnn": BuiltIn(digits_cnn, (1, 8, 8), 1, _digits),
}
DEFAULT_CLASSES = 10


def load_model(
    spec: str, *, num_classes: int | None, image_shape: ImageShape | None, pretrained: bool = True
) -> nn.Module:
    """Makes the network that `spec` names, in evaluation mode.

    Args:
        spec: a name in `BUILT_INS`, `package.module:factory`, `timm:NAME` or `transformers:NAME`.
        num_classes: of the data; None for the network's own.
        image_shape: (C, H, W) of the data; None for the network's own.
        pretrained: take the weights that a network of timm or transformers brings along; False for fresh ones, or where
            a weights file follows.

    Raises:
        InputError: an unknown name, or a network that does not fit the data.
        FormatError: stored weights that do not fit.
        MissingDependencyError: the form needs an optional library.
    """
    if num_classes is not None and num_classes < 1:
        raise InputError(f"num_classes is {num_classes}: give 1 or more")
    prefix, _, name = spec.partition(":")
    if spec in BUILT_INS:
        model = _built_in(spec, num_classes, image_shape)
    elif prefix == "timm" and name:
        model = timm_model(name, num_classes, image_shape, pretrained)
    elif prefix == "transformers" and name:
        model = transformers_model(name, num_classes, pretrained)
    elif is_factory_spec(spec):
        model = factory_model(spec, num_classes, image_shape)
    else:
        raise _unknown(spec)
    return model.eval()


def default_normalization(spec: str) -> Normalization | None:
    """The normalisation a built-in network's images need; None for all other networks."""
    built_in = BUILT_INS.get(spec)
    return None if built_in is None else built_in.normalization()


def _built_in(spec: str, num_classes: int | None, image_shape: ImageShape | None) -> nn.Module:
    built_in = BUILT_INS[spec]
    channels, height, width = image_shape or built_in.image_shape
    if min(height, width) < built_in.smallest:
        raise InputError(
            f"{spec} takes images of at least {built_in.smallest}x{built_in.smallest} pixels, the data has "
            f"{height}x{width}: give image_size, or another model"
        )
    return built_in.build(num_classes or DEFAULT_CLASSES, channels)


def _unknown(spec: str) -> InputError:
    near = get_close_matches(spec, BUILT_INS, n=3, cutoff=0.4) or list(BUILT_INS)
    return InputError(
        f"there is no model {spec!r}: did you mean {', '.join(near)}? "
        "Or give package.module:factory, timm:NAME or transformers:NAME"
    )
