"""What a result folder remembers of its network and its inputs, and how both are made again."""

from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError
from torch import nn

from whyprune.data import Loader, Normalization, load_source
from whyprune.data.sources.factory import is_factory_spec
from whyprune.errors import FormatError, InputError
from whyprune.models import load_model
from whyprune.results import Record, RunResult

# Fixed, so that an accuracy measured again comes from the same sums.
TEST_BATCH_SIZE = 256

Size = Annotated[int, Field(ge=1, le=8192)]


class Recipe(Record):
    """How a run's network and its inputs are made again; `result.json` holds it under `asked`.

    Attributes:
        model: as `load_model` reads it.
        num_classes: of the network; None for its own number.
        image_shape: (C, H, W) of its inputs.
        image_size: what stored images were resized to, in pixels; None where they were not.
        normalization: as `Normalization.as_dict` gives it; None where the data comes normalised.
    """

    model: str
    num_classes: Annotated[int, Field(ge=1)] | None = None
    image_shape: tuple[Size, Size, Size]
    image_size: Size | None = None
    normalization: dict[str, Any] | None = None

    @classmethod
    def of(cls, record: RunResult) -> "Recipe":
        """The recipe in the record of a run.

        Raises:
            FormatError: the run was started from Python with a network of its own, and holds none.
        """
        held = {name: record.asked[name] for name in cls.model_fields if name in record.asked}
        try:
            return cls.model_validate(held)
        except ValidationError as error:
            place = ".".join(map(str, error.errors()[0]["loc"]))
            raise FormatError(
                f"result.json does not say how to build the network again ({place}): in Python, build it as "
                "before pruning and call whyprune.load(model, folder)"
            ) from error


def fresh_network(recipe: Recipe, named: str | None = None) -> nn.Module:
    """The network of a recipe before pruning, with whatever weights.

    A recipe comes from a file, and a file must not run code: a network from the user's own code is only
    built when the user names it.

    Args:
        recipe: how it is built.
        named: the network as the user names it now; None takes the recipe's word for networks that are not
            from user code.

    Raises:
        InputError: the network is from user code and was not named.
    """
    if named is None and is_factory_spec(recipe.model):
        raise InputError(
            f"the network is {recipe.model}, from your own code, and a result folder never runs code "
            f"by itself: say --model {recipe.model} to import it"
        )
    return load_model(
        named or recipe.model,
        num_classes=recipe.num_classes,
        image_shape=recipe.image_shape,
        pretrained=False,
    )


def split_loader(recipe: Recipe, data: str, split: Literal["train", "test"]) -> Loader:
    """All images of a split as the recipe's network takes them, in order, not augmented.

    Raises:
        InputError: the images have another shape.
    """
    source = load_source(data, image_size=recipe.image_size)
    if {source.image_shape[0], recipe.image_shape[0]} == {1, 3}:
        source = source.with_channels(recipe.image_shape[0])
    if source.image_shape != recipe.image_shape:
        raise InputError(f"data {data!r} has images of {source.image_shape}, the network takes {recipe.image_shape}")
    stated = recipe.normalization
    normalization = None if stated is None else Normalization.from_dict(stated)
    images = {"train": source.train, "test": source.test}[split]
    return Loader(images, normalization, TEST_BATCH_SIZE, num_classes=recipe.num_classes)
