"""What `--data` can name: one small file per kind of source, registered here."""

from collections.abc import Callable
from dataclasses import dataclass

from whyprune.data.source import DataSource
from whyprune.data.sources.digits import load_digits_source
from whyprune.data.sources.factory import is_factory_spec, load_factory_source
from whyprune.data.sources.hub import load_hub_source
from whyprune.data.sources.imagefolder import load_imagefolder_source
from whyprune.data.sources.parquet import load_parquet_source
from whyprune.errors import InputError


@dataclass(frozen=True)
class SourceKind:
    """How one kind of source is written and loaded.

    Attributes:
        form: how a user writes it, e.g. "parquet:FOLDER"; without a colon it takes no argument.
        load: from what follows the colon, and the wanted image size in pixels (None: as stored).
    """

    form: str
    load: Callable[[str, int | None], DataSource]


SOURCES: dict[str, SourceKind] = {
    "digits": SourceKind("digits", load_digits_source),
    "parquet": SourceKind("parquet:FOLDER", load_parquet_source),
    "hf": SourceKind("hf:NAME", load_hub_source),
    "imagefolder": SourceKind("imagefolder:FOLDER", load_imagefolder_source),
}


def load_source(spec: str, *, image_size: int | None = None) -> DataSource:
    """Loads the data that `spec` names.

    Args:
        spec: one of the forms in `SOURCES`, or `package.module:factory`.
        image_size: resize and centre-crop images to this many pixels; None keeps their size.

    Raises:
        InputError: an unknown form, unusable labels, an empty split, images of the wrong size.
        FormatError: files that are missing or damaged.
        MissingDependencyError: the form needs an optional library.
    """
    if image_size is not None and image_size < 1:
        raise InputError(f"image_size is {image_size}: give 1 or more pixels")
    prefix, colon, argument = spec.partition(":")
    kind = SOURCES.get(prefix)
    if kind is not None and bool(argument) == (":" in kind.form) == bool(colon):
        source = kind.load(argument, image_size)
    elif kind is None and is_factory_spec(spec):
        source = load_factory_source(spec)
    else:
        forms = ", ".join([*(k.form for k in SOURCES.values()), "package.module:factory"])
        raise InputError(f"data {spec!r} is of no known form: give one of {forms}")
    if image_size is not None and source.image_shape[1:] != (image_size, image_size):
        raise InputError(
            f"data {spec!r} gives images of {source.image_shape} and cannot resize them to {image_size}: "
            "leave image_size out"
        )
    return source
