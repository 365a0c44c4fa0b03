"""Files that another machine sends in pieces: only those that were asked for, bounded, whole or not at all."""

import base64
import binascii
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from whyprune.atomic import atomic_file
from whyprune.devices.foreign import MAX_ARRAY_BYTES, sha256, shown
from whyprune.errors import DeviceError


@dataclass
class Inbox:
    """Puts received files into a folder.

    Attributes:
        folder: where they go.
        name: the sender's, for messages.
        allowed: the names a file may have.
        most: how many files are taken.
        limit: the most bytes of one file.
    """

    folder: Path
    name: str
    allowed: re.Pattern[str]
    most: int = 1000
    limit: int = MAX_ARRAY_BYTES
    _pieces: dict[str, bytearray] = field(default_factory=dict, init=False)
    _taken: set[str] = field(default_factory=set, init=False)

    def take(self, event: dict[str, Any]) -> str | None:
        """One piece of a file.

        Returns:
            The file's name when it is whole and written.

        Raises:
            DeviceError: a file that was not asked for, too large, or damaged on its way.
        """
        file = event.get("name")
        if not isinstance(file, str) or not self.allowed.fullmatch(file) or file in self._taken:
            raise DeviceError(
                f"{self.name}: it sent a file {shown(file)} that was not asked for: do not use this device"
            )
        piece = self._pieces.setdefault(file, bytearray())
        try:
            data = base64.b64decode(event.get("data", ""), validate=True)
        except (binascii.Error, TypeError, ValueError):
            data = None
        if data is None or event.get("offset") != len(piece):
            raise self._damaged(file)
        piece += data
        if len(piece) > self.limit or len(self._taken) >= self.most:
            raise DeviceError(
                f"{self.name}: it sent more than {self.limit:,} bytes or {self.most} files: nothing is kept"
            )
        if event.get("last") is not True:
            return None
        del self._pieces[file]
        if event.get("sha256") != sha256(bytes(piece)):
            raise self._damaged(file)
        with atomic_file(self.folder / file) as path:
            path.write_bytes(piece)
        self._taken.add(file)
        return file

    def _damaged(self, file: str) -> DeviceError:
        return DeviceError(f"{self.name}: {file} was damaged on its way here: run the same again")
