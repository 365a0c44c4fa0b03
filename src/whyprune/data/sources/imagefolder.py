"""`imagefolder:FOLDER`: image files in `train/<class>/` and `test/<class>/` (or `val/`)."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from whyprune.data.source import DataSource, EncodedImages, encoded_source
from whyprune.errors import FormatError, InputError

TEST_FOLDERS = ("test", "val", "validation")
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")


def load_imagefolder_source(folder: str, image_size: int | None) -> DataSource:
    """Reads a folder of image files; the sub-folders of `train`, sorted, are the classes.

    Raises:
        FormatError: a folder is missing, or an image is damaged.
        InputError: a class without training images, or test images of a class that was not trained.
    """
    root = Path(folder)
    train, test = _part(root, ("train",)), _part(root, TEST_FOLDERS)
    classes = _classes(train)
    unknown = sorted(set(_classes(test)) - set(classes))
    if unknown:
        raise InputError(f"{test} has the class folders {unknown[:3]} that {train} has not: make them agree")
    missing = [name for name in classes if not _images(train / name)]
    if missing:
        raise InputError(f"{train} has no images in the class folders {missing[:3]}: add some, or remove them")
    return encoded_source(
        f"imagefolder:{folder}", _encoded(train, classes), _encoded(test, classes), classes, image_size
    )


def _part(root: Path, names: Sequence[str]) -> Path:
    for name in names:
        if (root / name).is_dir():
            return root / name
    raise FormatError(f"{root} has no folder {' or '.join(names)}: put images in {names[0]}/<class>/")


def _classes(part: Path) -> tuple[str, ...]:
    return tuple(sorted(p.name for p in part.iterdir() if p.is_dir() and not _hidden(p.name)))


def _hidden(name: str) -> bool:
    """Whether a file or folder is an operating system's or an editor's own (`._cat.jpg`, `__MACOSX`)."""
    return name.startswith(".") or name == "__MACOSX"


def _images(folder: Path) -> list[Path]:
    found = (p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES) if folder.is_dir() else ()
    return sorted(p for p in found if not any(map(_hidden, p.relative_to(folder).parts)))


def _encoded(part: Path, classes: Sequence[str]) -> EncodedImages:
    paths = [_images(part / name) for name in classes]
    labels = np.repeat(np.arange(len(classes)), [len(p) for p in paths])
    files = [path for of_class in paths for path in of_class]

    def read(index: int) -> bytes:
        try:
            return files[index].read_bytes()
        except OSError as error:
            raise FormatError(f"{files[index]} cannot be read ({error})") from error

    return EncodedImages(str(part), read, labels, lambda index: str(files[index].relative_to(part)))
