"""From names to what `prune` takes: a network with its weights, loaders, normalisation and augmentation."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from whyprune.data import Augmentation, DataSource, Loader, Normalization, calibration_indices, load_source
from whyprune.errors import InputError
from whyprune.models import (
    BUILT_INS,
    default_normalization,
    fingerprint,
    load_model,
    train_digits,
)
from whyprune.workspace.configs import DataConfig, NetworkConfig
from whyprune.workspace.matched import network_for
from whyprune.workspace.recipe import TEST_BATCH_SIZE, Recipe

BATCH_SIZE = 128
DEMO_MODEL, DEMO_DATA, DEMO_CALIBRATION_IMAGES = "digits_cnn", "digits", 256

ImageShape = tuple[int, int, int]


@dataclass(frozen=True)
class Setup:
    """Everything `prune` takes, made from names.

    Attributes:
        model: in evaluation mode, with its weights.
        source: the data.
        normalization: what its pixels go through; None where they come normalised.
        augment: random views of an image; None for none.
        calibration: images of the training split, drawn by seed, not augmented.
        training: the whole training split, shuffled and augmented, for recovery.
        test: the test split, for accuracies only.
        asked: facts to record.
        notes: what was done to make network and data fit, in sentences.
    """

    model: nn.Module
    source: DataSource
    normalization: Normalization | None
    augment: Augmentation | None
    calibration: Loader
    training: Loader
    test: Loader
    asked: dict[str, Any]
    notes: tuple[str, ...] = ()

    @property
    def example_inputs(self) -> Tensor:
        """Two calibration images, (2, C, H, W)."""
        return next(iter(self.calibration))[0][:2]


def prepare(
    model: str,
    data: str,
    network: NetworkConfig | None = None,
    images: DataConfig | None = None,
    *,
    batch_size: int = BATCH_SIZE,
    seed: int = 0,
    untrained: bool = False,
) -> Setup:
    """Loads the network and the data that the names stand for.

    Args:
        model: a built-in name, `package.module:factory`, `timm:NAME` or `transformers:NAME`.
        data: `digits`, `parquet:FOLDER`, `hf:NAME`, `imagefolder:FOLDER` or `package.module:factory`.
        network: its weights and size.
        images: what is done with them.
        batch_size: of the training.
        seed: of the calibration images, of the order of training, and of fresh weights.
        untrained: give the network fresh weights, to prune it before training.

    Raises:
        InputError: names or values that cannot be used; weights for a network that is not to have any.
        FormatError: files that are missing, damaged or do not fit.
        MissingDependencyError: a name needs an optional library.
    """
    network, images = network or NetworkConfig(), images or DataConfig()
    weights = network.weights
    if untrained and weights is not None:
        raise InputError(f"--untrained gives fresh weights, --weights {weights} trained ones: leave one of them out")
    if weights is None and model in BUILT_INS and not untrained:
        raise InputError(
            f"the built-in network {model} is untrained: give its weights, --weights FILE, or prune it before "
            "training, --untrained"
        )
    source = load_source(data, image_size=images.image_size)
    classes = network.num_classes or source.num_classes
    own_channels = source.image_shape[0]
    loaded, source, notes = network_for(model, weights, classes, source, fresh_seed=seed if untrained else None)
    normalization = choose_normalization(model, source, weights, images.mean, images.std)
    recipe = Recipe(
        model=model,
        num_classes=classes,
        image_shape=source.image_shape,
        image_size=images.image_size,
        normalization=_as_dict(normalization),
    )
    return _setup(
        loaded,
        source=source,
        recipe=recipe,
        augment=choose_augmentation((own_channels, *source.image_shape[1:])) if images.augment else None,
        calibration_images=images.calibration_images,
        batch_size=batch_size,
        seed=seed,
        facts={"data": data, "weights": None if weights is None else str(weights)},
        notes=notes,
    )


def prepare_demo(seed: int = 0, progress: Callable[[int, int, float], None] | None = None) -> Setup:
    """Trains the small built-in network on scikit-learn's digits: seconds, no download.

    Args:
        seed: of the training and of the calibration images.
        progress: as for `train_digits`.
    """
    source = load_source(DEMO_DATA)
    network = load_model(DEMO_MODEL, num_classes=source.num_classes, image_shape=source.image_shape)
    train_digits(network, source, seed, progress)
    recipe = Recipe(
        model=DEMO_MODEL,
        num_classes=source.num_classes,
        image_shape=source.image_shape,
        normalization=_as_dict(default_normalization(DEMO_MODEL)),
    )
    return _setup(
        network,
        source=source,
        recipe=recipe,
        augment=choose_augmentation(source.image_shape),
        calibration_images=DEMO_CALIBRATION_IMAGES,
        batch_size=BATCH_SIZE,
        seed=seed,
        facts={"data": DEMO_DATA, "weights": None, "demo": True},
    )


def choose_normalization(
    model: str,
    source: DataSource,
    weights: str | Path | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> Normalization | None:
    """What pixels go through: `mean` and `std`, else the card beside the weights, else the built-in's own.

    Returns:
        None for data that comes normalised.

    Raises:
        InputError: only one of mean and std, either of them for normalised data, or none known.
        FormatError: there is a card, but it does not state both.
    """
    stated = mean is not None or std is not None
    if source.train.normalized:
        if stated:
            raise InputError(f"{source.name} comes normalised (floating point): leave --mean and --std out")
        return None
    if stated:
        if mean is None or std is None:
            raise InputError("mean and std belong together: give both --mean and --std")
        channels = source.image_shape[0]
        grey = len(mean) == len(std) == 1 < channels  # one number for grey images that go in as equal channels
        mean, std = (list(mean) * channels, list(std) * channels) if grey else (mean, std)
        return Normalization(tuple(mean), tuple(std), "as given")
    card = None if weights is None else Path(weights).with_suffix(".json")
    if card is not None and card.is_file():
        return Normalization.from_card(card)
    own = default_normalization(model)
    if own is None:
        raise InputError(
            f"no normalisation is known for {model}: give --mean and --std as in training, one number per "
            "channel, or a JSON file with both beside the weights, of the same name"
        )
    return own


def choose_augmentation(image_shape: ImageShape) -> Augmentation:
    """Shifts of an eighth of the size (4 of 32 pixels); mirror images only in colour.

    Grey images are often characters or scans, in which left and right mean something.
    """
    channels, height, width = image_shape
    return Augmentation(pad=max(1, min(height, width) // 8), flip=channels == 3)


def network_and_example(
    model: str,
    *,
    num_classes: int | None = None,
    input_shape: Sequence[int] | None = None,
    image_size: int | None = None,
) -> tuple[nn.Module, Tensor]:
    """A network without its trained weights, and two random inputs to trace it on: no data is needed.

    Args:
        model: as for `prepare`.
        num_classes: of the network; default its own.
        input_shape: (C, H, W) of one input; a built-in network has one.
        image_size: rows and columns, if not those of a built-in network.

    Raises:
        InputError: an unknown name, or a shape that cannot be used or is not known.
    """
    shape = _input_shape(model, input_shape, image_size)
    network = load_model(model, num_classes=num_classes, image_shape=shape, pretrained=False)
    if shape is None:
        raise InputError(f"{model} does not say what it takes: give --input-shape C,H,W, such as 3,224,224")
    return network, torch.randn(2, *shape, generator=torch.Generator().manual_seed(0))


def _input_shape(model: str, stated: Sequence[int] | None, image_size: int | None) -> ImageShape | None:
    if stated is not None:
        if len(stated) != 3 or min(stated) < 1:
            raise InputError(f"input shape {tuple(stated)}: give C,H,W, such as 3,224,224")
        channels, height, width = stated
        return channels, height, width
    if model not in BUILT_INS:
        return None
    channels, height, width = BUILT_INS[model].image_shape
    return channels, image_size or height, image_size or width


def _setup(
    network: nn.Module,
    *,
    source: DataSource,
    recipe: Recipe,
    augment: Augmentation | None,
    calibration_images: int,
    batch_size: int,
    seed: int,
    facts: dict[str, Any],
    notes: tuple[str, ...] = (),
) -> Setup:
    stated = recipe.normalization
    normalization = None if stated is None else Normalization.from_dict(stated)
    chosen = calibration_indices(len(source.train), calibration_images, seed)
    classes = recipe.num_classes
    return Setup(
        model=network,
        source=source,
        normalization=normalization,
        augment=augment,
        calibration=Loader(source.train, normalization, BATCH_SIZE, chosen, num_classes=classes),
        training=Loader(
            source.train, normalization, batch_size, shuffle_seed=seed, augment=augment, num_classes=classes
        ),
        test=Loader(source.test, normalization, TEST_BATCH_SIZE, num_classes=classes),
        asked={
            **recipe.model_dump(mode="json"),
            **facts,
            "weights_fingerprint": fingerprint(network),
            "augment": None if augment is None else asdict(augment),
            **({"notes": list(notes)} if notes else {}),
        },
        notes=notes,
    )


def _as_dict(normalization: Normalization | None) -> dict[str, Any] | None:
    return None if normalization is None else normalization.as_dict()
