"""`hf:NAME`: an image data set of the Hugging Face hub, or a local folder that `datasets` can load."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from whyprune.data.source import DataSource, EncodedImages, encoded_source
from whyprune.data.sources.columns import Columns, find_columns, label_column
from whyprune.data.sources.parquet import TEST_NAMES
from whyprune.errors import FormatError, InputError, MissingDependencyError


def load_hub_source(name: str, image_size: int | None) -> DataSource:
    """Loads the splits `train` and `test` (or `validation`) of a data set, downloading it if need be.

    Raises:
        MissingDependencyError: the library `datasets` is missing.
        InputError: the data set cannot be loaded, or has no such splits.
        FormatError: it has no image or no label column.
    """
    try:
        import datasets
    except ImportError as error:
        raise MissingDependencyError("hf: needs the library datasets: pip install 'whyprune[hub]'") from error
    try:
        parts = datasets.load_dataset(name)
    except Exception as error:
        raise InputError(f"hf:{name} cannot be loaded ({type(error).__name__}: {error})") from error
    test_name = next((t for t in TEST_NAMES if t in parts), None)
    if "train" not in parts or test_name is None:
        raise InputError(f"hf:{name} has the splits {', '.join(parts)}: it needs train, and test or validation")
    columns = find_columns(parts["train"].features.arrow_schema, f"hf:{name}")
    train, test = (_encoded(f"hf:{name} {part}", parts[part], columns) for part in ("train", test_name))
    classes = columns.classes(f"hf:{name}", train.labels, test.labels)
    train, test = replace(train, labels=classes.train), replace(test, labels=classes.test)
    return encoded_source(f"hf:{name}", train, test, classes.names, image_size, classes.notes)


def _encoded(name: str, dataset: Any, columns: Columns) -> EncodedImages:
    table = dataset.select_columns([columns.image, columns.label]).with_format("arrow")
    labels = label_column(table[:][columns.label], f"{name}, column {columns.label}")
    return EncodedImages(name, partial(_image_bytes, table, columns.image), labels)


def _image_bytes(table: Any, column: str, index: int) -> bytes:
    value = table[index][column][0].as_py()
    stored = value if isinstance(value, dict) else {"bytes": value}
    if stored.get("bytes") is not None:
        return bytes(stored["bytes"])
    # `datasets` leaves images that lie in local files where they are.
    try:
        return Path(stored["path"]).read_bytes()
    except (KeyError, TypeError, OSError) as error:
        raise FormatError(f"image {index} holds neither bytes nor a readable path ({error})") from error
