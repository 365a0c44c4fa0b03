"""Which columns of a table hold the images and the labels, and what the classes are called."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from whyprune.data.splits import Indices
from whyprune.errors import FormatError, InputError

IMAGE_NAMES = ("image", "img")
MOST_TEXTS, FEWEST_ROWS = 10_000, 20
"""More different texts are no classes; of fewer rows nothing can be said."""
Labels = npt.NDArray[Any]
LABEL_NAMES = ("label", "labels", "fine_label", "target", "class")


class Classes(NamedTuple):
    """Class numbers of the training and the test images, the classes' names, and what is to be said of them."""

    train: Indices
    test: Indices
    names: tuple[str, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Columns:
    """The image column, the label column, and the class names the schema states (None: it states none)."""

    image: str
    label: str
    class_names: tuple[str, ...] | None

    def classes(self, where: str, train: Labels, test: Labels) -> Classes:
        """The labels of both splits as numbers, and the names of the classes.

        Numbers stay; without stated names they are named by themselves. Texts are numbered in alphabetical order.

        Raises:
            InputError: texts that are no classes, or that only the test split has.
        """
        if train.dtype.kind == test.dtype.kind == "i":
            largest = max((int(part.max()) for part in (train, test) if part.size), default=-1)
            return Classes(train, test, self.class_names or tuple(str(i) for i in range(1 + largest)), ())
        known = sorted(set(train.tolist()))
        if len(known) > MOST_TEXTS or (len(train) >= FEWEST_ROWS and len(known) > len(train) // 2):
            raise InputError(
                f"{where}, column {self.label}: {len(known)} different texts for {len(train)} images, such as "
                f"{known[0]!r:.60}: they are no classes; give one class per image, as text or an integer"
            )
        if strange := sorted(set(test.tolist()) - set(known)):
            raise InputError(
                f"{where}, column {self.label}: the test images have the classes {strange[:3]} that no training image "
                "has: make them agree"
            )
        number = {text: i for i, text in enumerate(known)}
        shown = ", ".join(f"{text!r} is {i}" for i, text in enumerate(known[:3]))
        note = f"{where}: labels are text, numbered in alphabetical order: {shown}{', ...' if len(known) > 3 else ''}."
        coded = [np.array([number[t] for t in part.tolist()], dtype=np.int64) for part in (train, test)]
        return Classes(coded[0], coded[1], tuple(known), (note,))


def find_columns(schema: pa.Schema, where: str) -> Columns:
    """Finds the columns by type, and by name where several have the type.

    Args:
        schema: of the table; its Hugging Face metadata, where it has any, gives the class names.
        where: what error messages call the table.

    Raises:
        FormatError: no such column, or several without a usual name.
    """
    features = _features(schema)
    numbers = [f.name for f in schema if pa.types.is_integer(f.type)]
    texts = [f.name for f in schema if _is_text(f.type) and f.name in LABEL_NAMES]
    named = [name for name in LABEL_NAMES if name in numbers]
    label = _chosen(schema, named or texts or numbers, LABEL_NAMES, "label", where)
    image = _chosen(schema, [f.name for f in schema if _holds_bytes(f.type)], IMAGE_NAMES, "image", where)
    feature = features.get(label)
    names = feature.get("names") if isinstance(feature, dict) else None
    return Columns(image, label, tuple(map(str, names)) if isinstance(names, list) and names else None)


def label_column(column: pa.ChunkedArray, where: str) -> Labels:
    """The column, (N,): int64, or text.

    Raises:
        InputError: it holds nulls, or neither integers nor text.
    """
    text = _is_text(column.type)
    if column.null_count or not (text or pa.types.is_integer(column.type)):
        raise InputError(f"{where}: {column.null_count} nulls, type {column.type}: every image needs an integer class")
    return np.asarray(column.to_pylist(), dtype=str) if text else np.asarray(column.to_numpy(), dtype=np.int64)


def _is_text(kind: pa.DataType) -> bool:
    held = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(pa.types.is_string(held) or pa.types.is_large_string(held))


def _features(schema: pa.Schema) -> dict[str, Any]:
    """The `features` of the Hugging Face metadata; empty where there are none or they are unreadable."""
    value: Any = (schema.metadata or {}).get(b"huggingface", b"{}")
    try:
        value = json.loads(value)
    except (ValueError, RecursionError):
        return {}
    for key in ("info", "features"):
        value = value.get(key) if isinstance(value, dict) else None
    return value if isinstance(value, dict) else {}


def _holds_bytes(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return kind.get_field_index("bytes") >= 0 and _holds_bytes(kind.field("bytes").type)
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _chosen(schema: pa.Schema, fitting: Sequence[str], usual: Sequence[str], what: str, where: str) -> str:
    named = [name for name in usual if name in fitting]
    if named:
        return named[0]
    if len(fitting) == 1:
        return fitting[0]
    if odd := next((f for name in usual for f in schema if f.name == name), None):
        wanted = "the bytes of image files" if what == "image" else "integers or text, one class for an image"
        raise FormatError(f"{where}: column {odd.name} is of type {odd.type}, no {what}: it has to hold {wanted}")
    have = ", ".join(f"{f.name}: {f.type}" for f in schema)
    state = "no" if not fitting else "more than one possible"
    raise FormatError(f"{where} has {state} {what} column among ({have}): call it {' or '.join(usual)}")
