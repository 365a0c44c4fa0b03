"""What every device gives back, whatever runs the networks: a runtime here, a board elsewhere."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from whyprune.data.batches import Batch
from whyprune.results import LatencyMs

Network = Callable[..., Any]
Samples = NDArray[np.float64]


@dataclass(frozen=True)
class Measurement:
    """Latencies of networks timed in one interleaved run.

    Attributes:
        device: the device's name.
        latency: percentiles per network, in ms.
        samples_ms: raw times per network, shape (rounds,); entry i of every network is from the same round.
        machine: the machine's state when the run began (`machine_state`).
    """

    device: str
    latency: dict[str, LatencyMs]
    samples_ms: dict[str, Samples]
    machine: dict[str, Any]


class Device(Protocol):
    """Runs networks and times them: warm-up, interleaved repeats, percentiles, machine state.

    Networks to be compared are measured in one call, so that they share the machine's moods.
    """

    @property
    def name(self) -> str:
        """The name shown beside every number of this device."""
        ...

    def __call__(self, artifact: Mapping[str, Network], inputs: Batch) -> Measurement:
        """Measures every network of `artifact`, by name, on `inputs`."""
        ...
