"""A file is written whole or not at all."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from whyprune.errors import InputError


@contextmanager
def atomic_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Gives a temporary path to write to; it becomes `path` when the block ends without an error.

    It lies in a temporary folder beside the target: the last step is one rename, and whatever a failed writer
    leaves goes with that folder. The file gets the permissions of any newly written file.

    Raises:
        InputError: the target's folder does not exist or cannot be written to.
    """
    target = Path(path)
    try:
        with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as folder:
            temporary = Path(folder, target.name)
            yield temporary
            os.replace(temporary, target)
    except OSError as error:
        reason = error.strerror or str(error)
        raise InputError(f"cannot write {target}: {reason}; give a path in a folder you can write to") from error
