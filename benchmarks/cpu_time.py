"""Times calls by the CPU they use: on a shared machine, much of what passes on the wall's clock is the others' work.

Only for one thread, where both clocks agree on a machine that has nothing else to do.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from whyprune.data.batches import Batch
from whyprune.devices import Measurement
from whyprune.devices.artifacts.cache import SHARED
from whyprune.devices.base import DeviceKind
from whyprune.devices.latency import latency_summary
from whyprune.devices.machine import machine_state
from whyprune.devices.runner import by_host_clock, interleaved, warm_up
from whyprune.devices.runtimes import RUNTIMES


@dataclass(frozen=True)
class CpuTime:
    """A `Device`: a runtime in this process with one thread, timed by the process's CPU time."""

    runtime: str
    repeats: int = 200
    seconds: float = 6.0
    threads: int = 1
    kind: DeviceKind = "measured"

    @property
    def name(self) -> str:
        """As in a device's name."""
        return f"local-{self.runtime}-1t"

    def __call__(self, networks: Mapping[str, Any], inputs: Batch) -> Measurement:
        """Times every network on the first input."""
        runtime, batch = RUNTIMES[self.runtime], inputs[slice(0, 1)]
        timed = {}
        for name, network in networks.items():
            artifact, _ = SHARED.get(runtime.format, network, batch)
            session = runtime.load(artifact.path, 1)
            call = partial(session, [t.numpy() for t in batch.tensors()])
            warm_up(call, 5, time.process_time_ns)
            timed[name] = by_host_clock(call, time.process_time_ns)
        times = interleaved(timed, range(self.repeats), self.seconds)
        samples = {name: np.asarray(ms, dtype=np.float64) for name, ms in times.items()}
        return Measurement(
            device=self.name,
            latency={name: latency_summary(ms, 1, 1) for name, ms in samples.items()},
            samples_ms=samples,
            machine=machine_state(),
            runtime=self.runtime,
            versions=runtime.versions(),
        )
