"""What every device gives back, whatever runs the networks: a runtime here, a board elsewhere, a prediction."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from whyprune.data.batches import Batch
from whyprune.results import LatencyMs

Model = Callable[..., Any]
"""What a device runs: a module, or any callable that takes inputs as a module does."""
Samples = NDArray[np.float64]
LEAST_CALM = 5
DeviceKind = Literal["measured", "emulated", "predicted"]


@dataclass(frozen=True)
class Measurement:
    """Latencies of networks timed in one interleaved run, and what else was measured of each.

    A network that is missing in a dict was not measured there: nothing is guessed.

    Attributes:
        device: the device's name.
        latency: percentiles per network, in ms.
        samples_ms: raw times per network, shape (rounds,); entry i of every network is from the same round.
        machine: the machine's state when the run began (`machine_state`).
        preempted_rounds: per network, those in which another process took the core in the midst of its call.
        kind: how the numbers came about; anything but "measured" is shown beside them.
        runtime: what ran the networks.
        versions: of the runtime and of what wrote its files.
        size_bytes: of the artifact's files, per network.
        peak_memory_bytes: largest resident set of a fresh process with this network alone.
        baseline_memory_bytes: the same without any network: the runtime's own.
        cold_start_ms: load and first inference in a fresh process.
        energy_mj: per call, as `energy_meter` counts it, idle power included.
        energy_meter: which meter.
        max_abs_difference: of the artifact's outputs to PyTorch's, on the inputs of the run.
    """

    device: str
    latency: dict[str, LatencyMs]
    samples_ms: dict[str, Samples]
    machine: dict[str, Any]
    preempted_rounds: dict[str, list[int]] = field(default_factory=dict)
    kind: DeviceKind = "measured"
    runtime: str = "torch"
    versions: dict[str, str] = field(default_factory=dict)
    size_bytes: dict[str, int] = field(default_factory=dict)
    peak_memory_bytes: dict[str, int] = field(default_factory=dict)
    baseline_memory_bytes: int | None = None
    cold_start_ms: dict[str, float] = field(default_factory=dict)
    energy_mj: dict[str, float] = field(default_factory=dict)
    energy_meter: str | None = None
    max_abs_difference: dict[str, float] = field(default_factory=dict)

    def calm_ms(self, *names: str) -> list[Samples]:
        """Times of the rounds in which no call of these networks was interrupted, for ratios: shape (rounds,) each.

        A longer call is interrupted more often, so that on a busy machine medians of all rounds make the shorter
        network look faster than it is. All rounds, where fewer than 5 calm ones are left.
        """
        rounds = min(len(self.samples_ms[name]) for name in names)
        disturbed = {i for name in names for i in self.preempted_rounds.get(name, ())}
        calm = [i for i in range(rounds) if i not in disturbed]
        chosen = calm if len(calm) >= LEAST_CALM else list(range(rounds))
        return [self.samples_ms[name][chosen] for name in names]


class Device(Protocol):
    """Runs networks and times them: warm-up, interleaved repeats, percentiles, machine state.

    Networks to be compared are measured in one call, so that they share the machine's moods. `check_device` in
    `whyprune.testing` runs this contract.
    """

    @property
    def name(self) -> str:
        """The name shown beside every number of this device."""
        ...

    @property
    def kind(self) -> DeviceKind:
        """How its numbers come about."""
        ...

    def __call__(self, networks: Mapping[str, Model], inputs: Batch) -> Measurement:
        """Measures every network, by name, on `inputs`.

        Raises:
            InputError: no networks, inputs that do not fit, a setting out of range.
            TraceError: a network cannot be written in the runtime's format.
            VerificationError: outputs that are not PyTorch's, or not finite.
            MissingDependencyError: the runtime is not installed.
        """
        ...


def shown(device: Device) -> str:
    """A device's name for people, with its kind where the numbers are not measured."""
    return device.name if device.kind == "measured" else f"{device.name} ({device.kind})"


class Session(Protocol):
    """A network loaded by a runtime. A `time_ms` tells a call's time by the accelerator's own events."""

    def __call__(self, inputs: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
        """Outputs, in the artifact's order."""
        ...


class Runtime(Protocol):
    """Loads artifacts of one format. Its errors are `runner.RefusedError`: it also runs where whyprune is not."""

    @property
    def name(self) -> str:
        """The runtime's name, as in a device's name."""
        ...

    @property
    def format(self) -> str:
        """The artifacts that it loads."""
        ...

    def missing(self) -> str | None:
        """Why it cannot run here, and what to install; None if it can."""
        ...

    def load(self, path: Path, threads: int) -> Session:
        """A session on one artifact."""
        ...

    def versions(self) -> dict[str, str]:
        """The installed versions of what its numbers depend on."""
        ...
