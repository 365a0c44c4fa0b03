"""Networks from other libraries and from the user's own code."""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import nn

from whyprune.data.sources.factory import call_factory
from whyprune.errors import FormatError, InputError, MissingDependencyError

ImageShape = tuple[int, int, int]


def factory_model(spec: str, num_classes: int | None, image_shape: ImageShape | None) -> nn.Module:
    """The network that `package.module:factory` returns.

    The factory is given `num_classes` and `image_shape` where it has parameters of these names.

    Raises:
        InputError: the factory failed or returned no `nn.Module`.
    """
    known = {"num_classes": num_classes, "image_shape": image_shape}

    def arguments(factory: Callable[..., Any]) -> dict[str, Any]:
        takes = inspect.signature(factory).parameters
        return {name: value for name, value in known.items() if name in takes and value is not None}

    model = call_factory(spec, arguments)
    if not isinstance(model, nn.Module):
        raise InputError(f"{spec} returned a {type(model).__name__}: return a torch.nn.Module")
    return model


def timm_model(name: str, num_classes: int | None, image_shape: ImageShape | None, pretrained: bool) -> nn.Module:
    """A network of the library timm; `pretrained` downloads its published weights.

    Raises:
        MissingDependencyError: timm is missing.
        InputError: no such network, or published weights for another number of classes.
    """
    try:
        import timm
    except (ImportError, RuntimeError) as error:  # a torchvision built for another torch raises the latter
        raise MissingDependencyError(
            f"timm: needs the library timm ({error}): pip install 'whyprune[timm]', "
            "with a torchvision built for your torch"
        ) from error
    # A published head for other classes is refused below; timm would put random weights in its place.
    head = {} if num_classes is None or pretrained else {"num_classes": num_classes}
    stem = {} if image_shape is None else {"in_chans": image_shape[0]}
    try:
        model: nn.Module = timm.create_model(name, pretrained=pretrained, **head, **stem)
    except Exception as error:
        raise InputError(f"timm:{name} cannot be made ({type(error).__name__}: {error})") from error
    _check_classes(f"timm:{name}", getattr(model, "num_classes", None), num_classes)
    return model


def transformers_model(name: str, num_classes: int | None, pretrained: bool = True) -> nn.Module:
    """An image classifier of the library transformers, from a local folder or a name in its cache.

    A folder with a configuration but no weights gives fresh weights, and so does `pretrained=False`. Nothing is
    downloaded, no code that came with the weights is run, and only safetensors weights are read.

    Raises:
        MissingDependencyError: transformers is missing.
        InputError: it cannot be loaded, or has another number of classes.
        FormatError: its weights leave out a part of the network.
    """
    try:
        import transformers
    except ImportError as error:
        raise MissingDependencyError(
            "transformers: needs the library transformers: pip install 'whyprune[transformers]'"
        ) from error
    kind = transformers.AutoModelForImageClassification
    spec = f"transformers:{name}"
    missing: list[str] = []
    try:
        if pretrained and _has_weights(Path(name)):
            model, info = kind.from_pretrained(
                name, local_files_only=True, use_safetensors=True, output_loading_info=True
            )
            missing = sorted(info["missing_keys"])
        else:
            config = transformers.AutoConfig.from_pretrained(name, local_files_only=True)
            model = kind.from_config(config)  # type: ignore[no-untyped-call]
    except Exception as error:
        raise InputError(
            f"{spec} cannot be loaded ({type(error).__name__}: {error}): name a local folder, or download it "
            f"first: hf download {name}"
        ) from error
    if missing:
        raise FormatError(f"{spec} has no weights for {', '.join(missing[:3])}: fine-tune and save it first")
    _check_classes(spec, model.config.num_labels, num_classes)
    # Stored half precision comes as it is; effects are measured in float32.
    classifier: nn.Module = model.float()
    return classifier


def _has_weights(place: Path) -> bool:
    """A name that is no folder is one of the cache, which holds weights."""
    return not place.is_dir() or any(place.glob("*.safetensors")) or any(place.glob("*.bin"))


def _check_classes(spec: str, have: int | None, want: int | None) -> None:
    if want is not None and have is not None and have != want:
        raise InputError(f"{spec} has {have} classes, the data has {want}: fine-tune it on this data first")
