"""`LatencyTable`: milliseconds per layer and width on one device, measured once and kept."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from whyprune.devices.base import Device, Measurement
from whyprune.devices.table.cache import about_of, cache_path, load_rows, save_rows
from whyprune.devices.table.rows import Row
from whyprune.devices.table.timing import timed
from whyprune.errors import InputError
from whyprune.progress import Progress


@dataclass
class LatencyTable:
    """Rows that were measured on a device, and how to measure more.

    Attributes:
        device: where.
        about: what the rows hold for: device, runtime, versions, machine.
        path: the file that keeps them; None keeps nothing.
        rows: row -> milliseconds.
        notes: sentences about a file that was ignored.
    """

    device: Device
    about: dict[str, Any] = field(default_factory=dict)
    path: Path | None = None
    rows: dict[Row, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, device: Device, measured: Measurement, folder: Path | None = None) -> "LatencyTable":
        """The table kept for a device, empty where there is none that can be trusted.

        Args:
            device: where rows are measured.
            measured: any measurement of this device: it tells the runtime and the machine.
            folder: where tables are kept; default: the user's cache.
        """
        about = about_of(measured)
        path = cache_path(about, folder)
        rows, problem = load_rows(path)
        return cls(device, about, path, rows, [] if problem is None else [problem])

    def __contains__(self, row: Row) -> bool:
        return row in self.rows

    def __getitem__(self, row: Row) -> float:
        return self.rows[row]

    def get(self, row: Row) -> float | None:
        """Milliseconds of a row, if it was measured."""
        return self.rows.get(row)

    def fill(self, rows: Iterable[Row], *, progress: bool = False) -> int:
        """Measures the rows that are missing, keeps every part as soon as it is measured; says how many there were."""
        missing = [row for row in dict.fromkeys(rows) if row not in self.rows]
        if not missing:
            return 0
        with Progress(progress) as bars:
            bar = bars.add(f"Latency table on {self.device.name}", total=len(missing))
            for part in timed(self.device, missing):
                self.rows.update(part)
                self._keep()
                bars.advance(bar, len(part))
        return len(missing)

    def _keep(self) -> None:
        """A cache that cannot be written costs the next run time, and no more."""
        if self.path is None:
            return
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            save_rows(self.path, self.about, self.rows)
        except (OSError, InputError) as error:
            self.notes.append(f"The latency table is not kept: {error}")
            self.path = None
