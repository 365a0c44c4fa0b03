"""Which columns of a table hold the images and the labels, and what the classes are called."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from whyprune.data.splits import Indices
from whyprune.errors import FormatError, InputError

IMAGE_NAMES = ("image", "img")
LABEL_NAMES = ("label", "labels", "fine_label", "target", "class")


@dataclass(frozen=True)
class Columns:
    """The image column, the label column, and the class names the schema states (None: it states none)."""

    image: str
    label: str
    class_names: tuple[str, ...] | None

    def names_for(self, *labels: Indices) -> tuple[str, ...]:
        """The stated class names; without any, the numbers up to the largest label."""
        if self.class_names is not None:
            return self.class_names
        return tuple(str(i) for i in range(1 + max((int(part.max()) for part in labels if part.size), default=-1)))


def find_columns(schema: pa.Schema, where: str) -> Columns:
    """Finds the columns by type, and by name where several have the type.

    Args:
        schema: of the table; its Hugging Face metadata, where it has any, gives the class names.
        where: what error messages call the table.

    Raises:
        FormatError: no such column, or several without a usual name.
    """
    features = _features(schema)
    label = _chosen(schema, [f.name for f in schema if pa.types.is_integer(f.type)], LABEL_NAMES, "label", where)
    image = _chosen(schema, [f.name for f in schema if _holds_bytes(f.type)], IMAGE_NAMES, "image", where)
    feature = features.get(label)
    names = feature.get("names") if isinstance(feature, dict) else None
    return Columns(image, label, tuple(map(str, names)) if isinstance(names, list) and names else None)


def integer_column(column: pa.ChunkedArray, where: str) -> Indices:
    """The column as int64 (N,).

    Raises:
        InputError: it holds nulls or is not of integers.
    """
    if column.null_count or not pa.types.is_integer(column.type):
        raise InputError(f"{where}: {column.null_count} nulls, type {column.type}: every image needs an integer class")
    return np.asarray(column.to_numpy(), dtype=np.int64)


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
    have = ", ".join(f"{f.name}: {f.type}" for f in schema)
    state = "no" if not fitting else "more than one possible"
    raise FormatError(f"{where} has {state} {what} column among ({have}): call it {' or '.join(usual)}")
