"""Data: batches of any shape, and the sources the command line can name."""

from whyprune.data.augmentation import Augmentation
from whyprune.data.batches import Batch, as_batch, as_batches
from whyprune.data.loader import Loader, calibration_indices
from whyprune.data.normalization import Normalization
from whyprune.data.source import DataSource
from whyprune.data.sources import SOURCES, SourceKind, load_source
from whyprune.data.splits import DatasetSplit, ImageSplit, Split, TensorSplit

__all__ = [
    "SOURCES",
    "Augmentation",
    "Batch",
    "DataSource",
    "DatasetSplit",
    "ImageSplit",
    "Loader",
    "Normalization",
    "SourceKind",
    "Split",
    "TensorSplit",
    "as_batch",
    "as_batches",
    "calibration_indices",
    "load_source",
]
