"""What a bundle brought back: read, checked against the bundle, and turned into a `Measurement`."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from whyprune.devices.base import Measurement
from whyprune.devices.bundle import EXPECTED
from whyprune.devices.foreign import read_arrays, sha256, shown
from whyprune.devices.latency import latency_summary
from whyprune.devices.outputs import TOLERANCE, agreement
from whyprune.devices.places import open_place
from whyprune.devices.record import (
    OUTPUTS,
    RECORD,
    SPEC,
    DeviceRecord,
    Spec,
    check_fits,
    checked_record,
    checked_spec,
)
from whyprune.errors import FormatError, VerificationError

Arrays = Mapping[str, NDArray[Any]]


def read_results(
    path: str | os.PathLike[str], bundle: str | os.PathLike[str] | None = None, *, device: str | None = None
) -> Measurement:
    """Reads what a bundle brought back.

    Args:
        path: `record.json` with `outputs.npz` beside it, or the folder or archive that holds them.
        bundle: the bundle as it was written, a folder or archive; default: the bundle's files came back too.
        device: the name to report; default: the CPU that the record names.

    Raises:
        FormatError: a file is missing, damaged, hostile, was changed, or is not of this bundle.
        VerificationError: the device's outputs are not those of PyTorch.
    """
    place = open_place(Path(path))
    name, brought = f"{place.name}/{RECORD}", place.read(RECORD)
    home = place if bundle is None else open_place(Path(bundle))
    try:
        data = home.read(SPEC)
    except FormatError as error:
        if bundle is None:
            raise FormatError(f"the bundle is not beside {name} ({error}): name it, --bundle PATH") from error
        raise
    spec = checked_spec(data, f"{home.name}/{SPEC}")
    sizes = home.check_sums()
    record = checked_record(brought, name)
    check_fits(record, spec, sha256(data), name)
    outputs = place.read(OUTPUTS)
    if sha256(outputs) != record.outputs.sha256:
        raise FormatError(f"{place.name}/{OUTPUTS} was changed, or is of another run: bring both files again")
    found = read_arrays(outputs, f"{place.name}/{OUTPUTS}")
    expected = read_arrays(home.read(EXPECTED), f"{home.name}/{EXPECTED}")
    differences = compare(found, expected, set(spec.networks), name)
    artifacts = {n: sizes[file.path] for n, file in spec.networks.items() if file.path in sizes}
    return measurement_of(record, spec, artifacts, differences, device)


def compare(found: Arrays, expected: Arrays, networks: set[str], name: str) -> dict[str, float]:
    """The largest absolute difference of each network's outputs to PyTorch's; arrays by `NETWORK/NUMBER`.

    A network without PyTorch's outputs came as a file, and has nothing to be compared with.

    Raises:
        VerificationError: they differ by more than float arithmetic explains, or in shape.
    """
    answers, given = _by_network(expected), _by_network(found)
    if given.keys() != networks or any(given[n].keys() != answers[n].keys() for n in answers):
        raise VerificationError(f"{name}: the device gives outputs {shown(sorted(found))}, other than PyTorch's")
    return {
        network: agreement(
            [torch.from_numpy(a.copy()) for a in arrays.values()],
            [torch.from_numpy(given[network][number].copy()) for number in arrays],
            TOLERANCE,
            f"{name}: network {network!r} on the device",
        )
        for network, arrays in answers.items()
    }


def _by_network(arrays: Arrays) -> dict[str, dict[str, NDArray[Any]]]:
    networks: dict[str, dict[str, NDArray[Any]]] = {}
    for key, array in arrays.items():
        network, _, number = key.rpartition("/")
        networks.setdefault(network, {})[number] = array
    return networks


def measurement_of(
    record: DeviceRecord, spec: Spec, sizes: Mapping[str, int], differences: Mapping[str, float], device: str | None
) -> Measurement:
    """The record's numbers, as every device gives them."""
    samples = {name: np.asarray(times, dtype=np.float64) for name, times in record.samples_ms.items()}
    versions = record.machine.get("versions")
    emulated = _emulated(record.machine)
    return Measurement(
        device=device or f"{emulated or record.machine.get('cpu') or 'unknown'}, {record.runtime} {record.threads}t",
        latency={name: latency_summary(s, spec.batch_size, record.threads) for name, s in samples.items()},
        samples_ms=samples,
        machine=record.machine,
        preempted_rounds=record.preempted_rounds,
        kind="emulated" if emulated else "measured",
        runtime=record.runtime,
        versions={str(k): str(v) for k, v in versions.items()} if isinstance(versions, dict) else {},
        size_bytes=dict(sizes),
        peak_memory_bytes=record.peak_memory_bytes,
        baseline_memory_bytes=record.baseline_memory_bytes,
        cold_start_ms=record.cold_start_ms,
        energy_mj=record.energy_mj,
        energy_meter=record.energy_meter,
        max_abs_difference=dict(differences),
    )


def _emulated(machine: Mapping[str, Any]) -> str | None:
    """The processor that qemu was: its model is then in the environment."""
    environment = machine.get("environment")
    model = environment.get("QEMU_CPU") if isinstance(environment, dict) else None
    return f"{model} in qemu" if isinstance(model, str) else None
