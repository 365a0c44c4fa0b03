"""`parquet:FOLDER`: the Parquet files of an image data set, as the Hugging Face hub lays them out."""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from whyprune.data.source import DataSource, EncodedImages, encoded_source
from whyprune.data.sources.columns import Columns, find_columns, label_column
from whyprune.errors import FormatError, InputError

TEST_NAMES = ("test", "validation", "valid")
# Encoded images kept in memory; beyond it, row groups are read again when they are needed.
ENCODED_BYTES = 2**28


def load_parquet_source(folder: str, image_size: int | None) -> DataSource:
    """Reads `train-*.parquet` and `test-*.parquet` (or `validation-*`) in FOLDER or FOLDER/data.

    Raises:
        FormatError: files or columns are missing, or damaged.
        InputError: unusable labels.
    """
    train_files = _files(Path(folder), ("train",))
    test_files = _files(Path(folder), TEST_NAMES)
    columns = _guarded(train_files[0], lambda: find_columns(pq.read_schema(train_files[0]), str(train_files[0])))
    train, test = (
        _encoded(f"{folder} {part}", files, columns) for part, files in (("train", train_files), ("test", test_files))
    )
    classes = columns.classes(f"parquet:{folder}", train.labels, test.labels)
    train, test = replace(train, labels=classes.train), replace(test, labels=classes.test)
    return encoded_source(f"parquet:{folder}", train, test, classes.names, image_size, classes.notes)


def _files(folder: Path, names: Sequence[str]) -> list[Path]:
    for name in names:
        for place in (folder, folder / "data"):
            found = sorted([*place.glob(f"{name}-*.parquet"), *place.glob(f"{name}.parquet")])
            if found:
                return found
    wanted = " or ".join(f"{name}-*.parquet" for name in names)
    state = "holds no" if folder.is_dir() else "is no folder with"
    raise FormatError(f"{folder} {state} {wanted}: name the folder of the data set's Parquet files")


def _encoded(name: str, files: Sequence[Path], columns: Columns) -> EncodedImages:
    labels, groups = [], []
    for path in files:
        label = _guarded(path, partial(_column, path, columns.label))
        metadata = _guarded(path, partial(pq.read_metadata, path))
        labels.append(label_column(label, f"{path}, column {columns.label}"))
        groups += [(path, g, metadata.row_group(g).num_rows) for g in range(metadata.num_row_groups)]
    rows = _RowGroups(groups, columns.image)
    return EncodedImages(name, rows, np.concatenate(labels), rows.name_of)


def _column(path: Path, column: str) -> pa.ChunkedArray:
    return pq.read_table(path, columns=[column], partitioning=None).column(column)


class _RowGroups:
    """Bytes of image i, from the row group that holds it; recent row groups stay in memory."""

    def __init__(self, groups: Sequence[tuple[Path, int, int]], column: str) -> None:
        self._groups = groups
        self._starts = np.cumsum([0, *(rows for _, _, rows in groups)])
        self._column = column
        self._recent: OrderedDict[int, pa.Array] = OrderedDict()

    def __call__(self, index: int) -> bytes:
        group = int(np.searchsorted(self._starts, index, side="right")) - 1
        data = self._bytes_of(group)[index - int(self._starts[group])].as_py()
        if data is None:
            folder = self._groups[group][0].parent
            raise FormatError(f"{folder}: image {index} ({self.name_of(index)}) holds no bytes: embed the image files")
        return bytes(data)

    def name_of(self, index: int) -> str:
        """The file that holds an image, and its row there."""
        group = int(np.searchsorted(self._starts, index, side="right")) - 1
        path = self._groups[group][0]
        first = next(int(self._starts[g]) for g, (other, _, _) in enumerate(self._groups) if other == path)
        return f"row {index - first} of {path.name}"

    def _bytes_of(self, group: int) -> pa.Array:
        if group in self._recent:
            self._recent.move_to_end(group)
            return self._recent[group]
        path, number, _ = self._groups[group]
        self._recent[group] = _guarded(path, partial(_image_bytes, path, number, self._column))
        while len(self._recent) > 1 and sum(a.nbytes for a in self._recent.values()) > ENCODED_BYTES:
            self._recent.popitem(last=False)
        return self._recent[group]


def _image_bytes(path: Path, group: int, column: str) -> pa.Array:
    with pq.ParquetFile(path) as file:
        images = file.read_row_group(group, columns=[column]).column(column).combine_chunks()
    return images.field("bytes") if pa.types.is_struct(images.type) else images


def _guarded(path: Path, read: Callable[[], Any]) -> Any:
    try:
        return read()
    except (FormatError, InputError):
        raise
    except (pa.ArrowException, OSError, KeyError) as error:
        raise FormatError(f"{path} cannot be read as Parquet ({error}): download it again") from error
