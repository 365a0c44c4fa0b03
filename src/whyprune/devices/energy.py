"""Meters of energy, for the worker. Without one energy is not measured: nothing here guesses.

Beside the CPU's own counters (`runner.Rapl`): NVIDIA's, through its library NVML; and meters that other packages bring,
a wall plug or a board's sensors for instance, under the entry point group `whyprune.meters`: a class without arguments
and with what `Meter` lists.
"""

from __future__ import annotations

from importlib import import_module, metadata
from typing import Any, Protocol

from whyprune.devices.runner import Rapl, first_line

GROUP = "whyprune.meters"


class Meter(Protocol):
    """Counts the energy between two moments.

    Attributes:
        name: shown beside every number.
        measures: "machine", "cpu" or "gpu": a meter of one part is asked only for runtimes that run there.
    """

    name: str
    measures: str

    def missing(self) -> str | None:
        """Why it cannot be read here; None if it can."""
        ...

    def begin(self) -> None:
        """Starts to count."""
        ...

    def end(self) -> float:
        """Energy in mJ since `begin`."""
        ...


class Nvml:
    """The first visible NVIDIA GPU's own counter, idle power included (Volta and newer)."""

    name = "nvml"
    measures = "gpu"

    def __init__(self) -> None:
        self._library: Any = None
        self._before = 0.0

    def missing(self) -> str | None:
        """Why it cannot be read here; None if it can."""
        try:
            self._library = import_module("pynvml")
            self._library.nvmlInit()
            self._counter()
        except ImportError:
            return "reading a GPU's energy needs pynvml: pip install nvidia-ml-py"
        except Exception as error:  # noqa: BLE001 - NVMLError cannot be named without its module
            return f"this GPU's energy cannot be read: {first_line(error)}"
        return None

    def begin(self) -> None:
        """Starts to count."""
        self._before = self._counter()

    def end(self) -> float:
        """Energy in mJ since `begin`."""
        return self._counter() - self._before

    def _counter(self) -> float:
        handle = self._library.nvmlDeviceGetHandleByIndex(0)
        return float(self._library.nvmlDeviceGetTotalEnergyConsumption(handle))


def meters() -> list[Any]:
    """All there are, those of the whole machine first; each says for itself whether it can be read here."""
    plugged = [entry.load()() for entry in metadata.entry_points(group=GROUP)]
    return sorted([*plugged, Nvml(), Rapl()], key=lambda m: m.measures != "machine")
