"""Analytic latency of a network: per operation the longer of computing and moving numbers, and a cost per operation.

    ms(operation) = max(macs x rate of its kind, bytes moved x rate of memory) + overhead

The roofline of Williams, Waterman and Patterson (CACM 2009, doi 10.1145/1498765.1498785) bounds what a kernel can
reach; the rates per kind of layer, the ramp for narrow layers and the overheads are ours. The rates are fitted to
measurements (`fit.py`), so they are what a runtime reaches on a device and no peaks.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import nn

from whyprune.data.batches import Batch
from whyprune.devices.base import DeviceKind, Measurement, Model
from whyprune.devices.latency import latency_summary
from whyprune.devices.machine import library_versions
from whyprune.devices.profile import RATED, Profile, Rates
from whyprune.errors import InputError
from whyprune.structure.capture import as_example, capture
from whyprune.structure.operation_costs import KINDS, OperationCost, operation_costs

BYTES = 4
"""Of a number: rates are for float32 shapes, also where a runtime stores less."""

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Work:
    """Operations as columns, shape (operations,): `gmacs`, `mbytes` of activations and of weights, the kind's index."""

    gmacs: Array
    mbytes: Array
    weight_mbytes: Array
    kind: NDArray[np.intp]

    @classmethod
    def of(
        cls,
        operations: Iterable[OperationCost],
        *,
        batch_size: int = 1,
        channel_ramp: float = 0.0,
        channel_step: int = 1,
    ) -> "Work":
        """The work of some operations, with narrow and unfilled ones counted as what they cost."""
        rows = list(operations)
        return cls(
            np.array([_gmacs(r, channel_ramp, channel_step) * batch_size for r in rows], dtype=np.float64),
            np.array([(r.reads + r.writes) * BYTES * batch_size / 1e6 for r in rows], dtype=np.float64),
            np.array([r.weights * BYTES / 1e6 for r in rows], dtype=np.float64),
            np.array([KINDS.index(r.kind) for r in rows], dtype=np.intp),
        )


def operation_times_ms(operations: Sequence[OperationCost], rates: Rates, batch_size: int = 1) -> Array:
    """Predicted ms of every operation for a batch, shape (operations,); `ms_per_run` is not in them."""
    work = Work.of(operations, batch_size=batch_size, channel_ramp=rates.channel_ramp, channel_step=rates.channel_step)
    computed = work.gmacs * np.array([rates.ms_per_gmac.get(kind, 0.0) for kind in KINDS])[work.kind]
    per_mbyte = np.array([rates.ms_per_mbyte if k in RATED else rates.ms_per_mbyte_elementwise for k in KINDS])
    moved = work.mbytes * per_mbyte[work.kind] + work.weight_mbytes * rates.ms_per_mbyte_of_weights
    besides = np.array([rates.ms_per_layer[kind] for kind in KINDS])
    return np.asarray(np.maximum(computed, moved) + besides[work.kind], dtype=np.float64)


def predicted_ms(operations: Sequence[OperationCost], rates: Rates, batch_size: int = 1) -> float:
    """Predicted ms of an inference of a batch."""
    return float(operation_times_ms(operations, rates, batch_size).sum()) + rates.ms_per_run


@dataclass(frozen=True)
class PredictedDevice:
    """A device that no network runs on: its latency is computed from its profile's rates."""

    profile: Profile
    threads: int | None = None
    batch_size: int = 1
    name: str = ""
    kind: DeviceKind = "predicted"

    @property
    def runtime(self) -> str:
        """What the device's figures were measured with."""
        return self.profile.runtime

    def operations_ms(self, operations: Sequence[OperationCost]) -> list[float]:
        """Predicted ms of every operation at this device's batch size."""
        rates = self.profile.roofline(self.threads).rates
        return [float(ms) for ms in operation_times_ms(operations, rates, self.batch_size)]

    def __call__(self, networks: Mapping[str, Model], inputs: Batch) -> Measurement:
        """Predicts the latency of every network; the one sample of each is the prediction.

        Raises:
            InputError: no networks, or one that is no module or does not run on the inputs.
            TraceError: a network cannot be captured.
        """
        if not networks:
            raise InputError("no network to predict: give a dict such as {'dense': model, 'pruned': pruned}")
        roofline = self.profile.roofline(self.threads)
        example = as_example(inputs[slice(0, 2)])
        samples = {
            name: np.array([predicted_ms(module_costs(network, example, name), roofline.rates, self.batch_size)])
            for name, network in networks.items()
        }
        return Measurement(
            device=self.name or self.profile.name,
            latency={n: latency_summary(s, self.batch_size, roofline.threads) for n, s in samples.items()},
            samples_ms=samples,
            machine={"profile": self.profile.model_dump(mode="json")},
            kind=self.kind,
            runtime=self.runtime,
            versions={**library_versions(), "profile": self._digest()},
        )

    def _digest(self) -> str:
        """Tells profiles of one name apart: what was worked out from one is not kept for another."""
        return hashlib.sha256(self.profile.model_dump_json().encode()).hexdigest()[:16]


def module_costs(network: Model, example: Batch, name: str = "the network") -> list[OperationCost]:
    """What the operations of a module cost, as they are.

    Raises:
        InputError: it is no module, or does not run on the example.
        TraceError: it cannot be captured.
    """
    from whyprune.devices.evaluation import evaluation_mode

    if not isinstance(network, nn.Module):
        raise InputError(f"{name} is a {type(network).__name__}: only a torch module can be predicted, not a callable")
    with evaluation_mode([network]):
        return operation_costs(capture(network, example))


def _gmacs(operation: OperationCost, ramp: float, step: int) -> float:
    """10^9 MACs, with every width filled up to a block and slowed down where it is narrow."""
    inputs, outputs = operation.channels
    counted = (outputs,) if operation.kind == "depthwise" else (inputs, outputs)
    factor = 1.0
    for width in counted if operation.kind in RATED and operation.kind != "product" else ():
        full = -(-width // step) * step
        factor *= (full + ramp) / width
    return operation.macs * factor / 1e9
