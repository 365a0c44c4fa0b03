"""This machine with any runtime: networks become files, are checked against PyTorch and timed in fresh processes."""

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from whyprune.data.batches import Batch
from whyprune.data.outputs import tensors_of
from whyprune.devices import runner
from whyprune.devices.artifacts.cache import SHARED, ArtifactCache
from whyprune.devices.artifacts.formats import FORMATS, Artifact
from whyprune.devices.artifacts.onnx import check_onnx
from whyprune.devices.artifacts.onnx_int8 import quantize_onnx
from whyprune.devices.base import DeviceKind, Measurement, Model
from whyprune.devices.evaluation import call, device_of, evaluating
from whyprune.devices.latency import latency_summary
from whyprune.devices.outputs import TOLERANCE, agreement
from whyprune.devices.process import run_worker, write_spec
from whyprune.devices.runtimes import RUNTIMES
from whyprune.errors import InputError, MissingDependencyError, VerificationError

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


@dataclass(frozen=True)
class LocalDevice:
    """A `Device`: this machine, one runtime, so many threads.

    Networks may also be paths of files in the runtime's format; their outputs have nothing to be compared with then.

    Attributes:
        runtime: one of `whyprune.devices.runtimes.RUNTIMES`.
        threads: of the runtime.
        batch_size: samples per call.
        repeats: rounds, at most.
        seconds: stop when the rounds have taken this long, but not before 3 rounds.
        warmup: calls of each network before the first round, at least.
        cores: that the processes may use; default: those of this process.
        memory_bytes: what one network's process may use.
        each_alone: also a process per network, for its cold start and memory.
        calibration: batches to quantise with; the networks are then measured in eight bits (ONNX Runtime only).
        tolerance: largest difference to PyTorch's outputs, as a share of the largest, or of 1 if that is larger; eight
            bits are held to none.
        environment: variables for the processes, such as ONEDNN_MAX_CPU_ISA.
        timeout_s: an end for a runtime that hangs.
        name: shown beside every number; default: after runtime, threads and batch size.
        kind: "emulated" where settings imitate another machine.
        cache: of the files written; default: one per process.
    """

    runtime: str = "ort"
    threads: int = 1
    batch_size: int = 1
    repeats: int = 200
    seconds: float = 6.0
    warmup: int = 5
    cores: tuple[int, ...] | None = None
    memory_bytes: int | None = None
    each_alone: bool = True
    calibration: Sequence[Batch] | None = None
    tolerance: float = TOLERANCE
    environment: Mapping[str, str] = field(default_factory=dict)
    timeout_s: float = 1800.0
    name: str = ""
    kind: DeviceKind = "measured"
    cache: ArtifactCache = field(default=SHARED, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.runtime not in RUNTIMES:
            raise InputError(f"runtime is {self.runtime!r}: give one of {', '.join(RUNTIMES)}")
        if self.calibration is not None and self.runtime != "ort":
            raise InputError(f"runtime is {self.runtime!r}: networks are quantised for 'ort' alone")
        for setting in ("threads", "batch_size", "repeats"):
            if getattr(self, setting) < 1:
                raise InputError(f"{setting} is {getattr(self, setting)}: give 1 or more")
        if not self.name:
            batch = f"-b{self.batch_size}" if self.batch_size != 1 else ""
            object.__setattr__(self, "name", f"local-{self.runtime}-{self.threads}t{batch}")

    def __call__(self, networks: Mapping[str, Model | Path], inputs: Batch) -> Measurement:
        """Measures every network, by name, on the first `batch_size` inputs.

        Raises:
            InputError: no networks, inputs that do not fit, or a setting out of range.
            MissingDependencyError: the runtime is missing.
            TraceError: a network cannot be written in the runtime's format.
            FormatError: the runtime cannot read a file.
            VerificationError: outputs that are not PyTorch's or not finite, or a runtime that dies or hangs.
        """
        batch = self._checked(networks, inputs)
        expected = {n: _answers(n, m, batch) for n, m in networks.items() if isinstance(m, nn.Module)}
        batch, reused = batch.to("cpu"), list[nn.Module]()
        try:
            return self._measured(networks, batch, expected, reused)
        except VerificationError:
            if not reused:
                raise
            for model in reused:  # a file of another network, maybe, that differs from this one in its code alone
                self.cache.forget(RUNTIMES[self.runtime].format, model, batch)
            return self._measured(networks, batch, expected, [])

    def _checked(self, networks: Mapping[str, Any], inputs: Batch) -> Batch:
        if not networks:
            raise InputError("no network to measure: give a dict such as {'dense': model, 'pruned': pruned}")
        for name, network in networks.items():
            if not isinstance(network, nn.Module | Path):
                raise InputError(f"network {name!r} is a {type(network).__name__}: give a module, or a file's path")
            if not runner.NAME.fullmatch(name):
                raise InputError(f"{name!r} names a network: give up to 64 letters, digits, '.', '_' and '-'")
        runtime = RUNTIMES[self.runtime]
        if len(inputs) < self.batch_size:
            raise InputError(f"{len(inputs)} inputs for a batch of {self.batch_size}: give at least as many inputs")
        if self.batch_size > getattr(runtime, "largest_batch", self.batch_size):
            raise InputError(f"batch_size is {self.batch_size}, but {runtime.title} runs one input at a time")
        reason = runtime.missing()
        if reason:
            raise MissingDependencyError(f"device {self.name!r}: {reason}")
        return inputs[slice(0, self.batch_size)]

    def _measured(
        self,
        networks: Mapping[str, Model | Path],
        batch: Batch,
        expected: Mapping[str, list[Tensor]],
        reused: list[nn.Module],
    ) -> Measurement:
        """Fills `reused` with the networks whose files were there before."""
        with tempfile.TemporaryDirectory(prefix="whyprune-") as name:
            folder = Path(name)
            artifacts = {n: self._artifact(n, m, batch, folder, reused) for n, m in networks.items()}
            sizes = {n: artifact.size_bytes for n, artifact in artifacts.items()}
            spec = write_spec(folder, {n: a.path for n, a in artifacts.items()}, batch, **self._settings())
            record = run_worker(spec, self.name, self._environment(folder), self.timeout_s)
            with np.load(folder / "outputs.npz", allow_pickle=False) as arrays:
                outputs = {key: torch.from_numpy(arrays[key]) for key in arrays.files}
        return self._measurement(record, sizes, self._differences(expected, outputs))

    def _artifact(
        self, name: str, network: Model | Path, batch: Batch, folder: Path, reused: list[nn.Module]
    ) -> Artifact:
        """The network's files in the folder, each under the network's name."""
        form = RUNTIMES[self.runtime].format
        if isinstance(network, Path):
            if form == "onnx":
                check_onnx(network)
            sources = tuple(network.with_suffix(suffix) for suffix in FORMATS[form].suffixes)
        else:
            model = cast(nn.Module, network)
            artifact, was_there = self.cache.get(form, model, batch)
            sources = artifact.files
            reused += [model] if was_there else []
        files = tuple(folder / f"{name}{suffix}" for suffix in FORMATS[form].suffixes)
        try:
            for old, new in zip(sources, files, strict=True):
                if self.calibration is None:
                    shutil.copyfile(old, new)
                else:
                    quantize_onnx(old, new, self.calibration)
        except OSError as error:
            raise InputError(f"cannot copy {error.filename}: {error.strerror}; give files that can be read") from error
        return Artifact(form, files[0], files)

    def _settings(self) -> dict[str, Any]:
        return {
            "runtime": self.runtime,
            "threads": self.threads,
            "batch_size": self.batch_size,
            "cores": None if self.cores is None else list(self.cores),
            "memory_bytes": self.memory_bytes,
            "min_warmup": self.warmup,
            "repeats": self.repeats,
            "seconds": self.seconds,
            "each_alone": self.each_alone,
        }

    def _environment(self, folder: Path) -> dict[str, str]:
        return {
            **dict.fromkeys(THREADS, str(self.threads)),
            "TORCHINDUCTOR_CACHE_DIR": str(folder / "inductor"),  # else a cold start would find an older run's code
            **self.environment,
        }

    def _differences(self, expected: Mapping[str, list[Tensor]], outputs: Mapping[str, Tensor]) -> dict[str, float]:
        tolerance = self.tolerance if self.calibration is None else None
        differences = {}
        for name, answers in expected.items():
            count = sum(key.rpartition("/")[0] == name for key in outputs)
            found = [outputs[f"{name}/{i}"] for i in range(count)]
            what = f"network {name!r} in {RUNTIMES[self.runtime].title}"
            differences[name] = agreement(answers, found, tolerance, what)
        return differences

    def _measurement(
        self, record: Mapping[str, Any], size_bytes: dict[str, int], differences: dict[str, float]
    ) -> Measurement:
        samples = {n: np.asarray(times, dtype=np.float64) for n, times in record["samples_ms"].items()}
        return Measurement(
            device=self.name,
            latency={n: latency_summary(times, self.batch_size, self.threads) for n, times in samples.items()},
            samples_ms=samples,
            machine=record["machine"],
            preempted_rounds=record["preempted_rounds"],
            kind=self.kind,
            runtime=self.runtime,
            versions=record["machine"]["versions"],
            size_bytes=size_bytes,
            peak_memory_bytes=record["peak_memory_bytes"],
            baseline_memory_bytes=record["baseline_memory_bytes"],
            cold_start_ms=record["cold_start_ms"],
            energy_mj=record["energy_mj"],
            energy_meter=record["energy_meter"],
            max_abs_difference=differences,
        )


def _answers(name: str, model: nn.Module, batch: Batch) -> list[Tensor]:
    with evaluating([model]):
        return [t.cpu() for t in tensors_of(call(model, batch.to(device_of(model)), f"network {name!r}"))]
