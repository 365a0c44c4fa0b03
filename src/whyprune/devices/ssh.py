"""A device elsewhere, reached with the user's own ssh: nothing is installed there, and nothing is left there."""

import os
import re
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from torch import nn

from whyprune.data.batches import Batch
from whyprune.devices.address import Address
from whyprune.devices.artifacts.cache import SHARED, ArtifactCache
from whyprune.devices.base import DeviceKind, Measurement, Model
from whyprune.devices.bundle import EXPECTED, README, RUNNER, SUMS, MeasurementRequest, fill
from whyprune.devices.connection import Connection
from whyprune.devices.foreign import sha256
from whyprune.devices.inbox import Inbox
from whyprune.devices.record import OUTPUTS, RECORD, SPEC
from whyprune.devices.returned import read_results
from whyprune.devices.runner import PART
from whyprune.errors import DeviceError, FormatError, InputError, VerificationError
from whyprune.progress import Progress

MODULES = ("numpy", "onnxruntime")
AT_HOME = {EXPECTED, README, SUMS}
FOLDER = re.compile(r"[0-9a-f]{16}-[0-9a-f]{16}")
KEPT_S = 24 * 3600.0
"""A device may have become another in the meantime: what is older is measured anew."""
COMES_BACK = re.compile(rf"{re.escape(RECORD)}|{re.escape(OUTPUTS)}|{re.escape(PART)}[0-9a-f]{{16}}\.json")


@dataclass(frozen=True)
class RemoteDevice:
    """Runs networks on another machine over ssh; a `Device`.

    What a run had finished before it broke off is kept here, and the next run with the same networks, inputs and
    settings goes on from it.

    Attributes:
        name: `ssh://[user@]host[:port][/python][#Nt-bN]`, see `Address`.
        request: what is measured; threads and batch size in the name go before it.
        timeout_s: the longest a run may take there.
        workspace: where unfinished runs are kept; default: whyprune's cache folder.
        program: the ssh program.
        options: further arguments for it, such as ("-F", "config").
        progress: show a progress bar.
        kind: how its numbers come about.
        cache: of the files written; default: one per process.
    """

    name: str
    request: MeasurementRequest = field(default_factory=MeasurementRequest)
    timeout_s: float = 3600.0
    workspace: Path | None = None
    program: str = "ssh"
    options: Sequence[str] = ()
    progress: bool = False
    kind: DeviceKind = "measured"
    cache: ArtifactCache = field(default=SHARED, repr=False, compare=False)

    def __post_init__(self) -> None:
        address = Address.parse(self.name)
        threads, batch_size = address.threads or self.request.threads, address.batch_size or self.request.batch_size
        object.__setattr__(self, "request", replace(self.request, threads=threads, batch_size=batch_size))
        if not 0 < self.timeout_s < 1e7:
            raise InputError(f"timeout_s is {self.timeout_s}: give a positive number of seconds")

    @property
    def runtime(self) -> str:
        """What runs the networks there."""
        return "ort"

    @property
    def takes_files(self) -> bool:
        """Networks may be paths of ONNX files."""
        return True

    @property
    def threads(self) -> int:
        """Of the runtime."""
        return self.request.threads

    @property
    def batch_size(self) -> int:
        """Samples per call."""
        return self.request.batch_size

    def __call__(self, networks: Mapping[str, Model | Path], inputs: Batch) -> Measurement:
        """Measures every network there, by name, on `inputs`.

        Raises:
            InputError: no networks, inputs that do not fit, a setting out of range.
            DeviceError: the device cannot be reached, has no Python or runtime, is full, or was lost.
            FormatError: it sent back what is no record of this run.
            VerificationError: its outputs are not PyTorch's.
            MissingDependencyError, TraceError: a network cannot be written as ONNX.
        """
        with tempfile.TemporaryDirectory(prefix="whyprune-") as temporary:
            bundle = Path(temporary)
            fill(bundle, networks, inputs, self.request, self._export)
            spec = sha256((bundle / SPEC).read_bytes())
            kept = self._kept(spec)
            try:
                if not (kept / RECORD).is_file():
                    self._run(bundle, kept, len(networks))
                measurement = read_results(kept, bundle, device=self.name)
            except (FormatError, VerificationError):
                shutil.rmtree(kept, ignore_errors=True)
                for network in networks.values():  # a file of another network, maybe, that differs in its code alone
                    if isinstance(network, nn.Module):
                        self.cache.forget("onnx", network, inputs[slice(0, self.batch_size)])
                raise
            except (DeviceError, KeyboardInterrupt):
                if not any(kept.iterdir()):
                    kept.rmdir()
                raise
            shutil.rmtree(kept, ignore_errors=True)
        return measurement

    def _export(self, network: nn.Module, inputs: Batch, path: Path) -> None:
        artifact, _ = self.cache.get("onnx", network, inputs)
        shutil.copyfile(artifact.path, path)

    def _run(self, bundle: Path, kept: Path, networks: int) -> None:
        address = Address.parse(self.name)
        parts = sorted(f for f in kept.iterdir() if f.name.startswith(PART))
        files = [f for f in sorted(bundle.iterdir()) if f.name not in AT_HOME]
        header = {
            "modules": MODULES,
            "command": [RUNNER, SPEC],
            "parts": PART,
            "have": [f.name for f in parts],
            "results": [OUTPUTS, RECORD],
        }
        inbox = Inbox(kept, self.name, COMES_BACK)
        with Progress(self.progress) as bars, Connection(address, self.program, self.options) as connection:
            bar = bars.add(f"{address.host}: connecting", total=len(files) + networks + 2, completed=len(parts))
            for event in connection.run(header, [*files, *parts], self.timeout_s):
                if event.get("event") == "file":
                    name = inbox.take(event)
                    if name is not None and name.startswith(PART):
                        bars.advance(bar, description=f"{address.host}: measuring")
                elif event.get("event") == "received":
                    bars.advance(bar, description=f"{address.host}: copying")
        if not (kept / RECORD).is_file():
            raise DeviceError(f"{self.name}: it sent no record: run the same again")

    def _kept(self, spec: str) -> Path:
        """The folder of this run's finished parts: by device and spec, which names every file by its checksum."""
        base = self.workspace or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "whyprune" / "runs"
        kept = base / f"{sha256(self.name.encode())[:16]}-{spec[:16]}"
        try:
            kept.mkdir(parents=True, exist_ok=True)
            for folder in base.iterdir():
                if FOLDER.fullmatch(folder.name) and time.time() - folder.stat().st_mtime > KEPT_S:
                    shutil.rmtree(folder, ignore_errors=True)
            kept.mkdir(exist_ok=True)
        except OSError as error:
            raise InputError(
                f"unfinished runs cannot be kept in {base} ({error.strerror}): give a folder you can write to "
                "(workspace, or XDG_CACHE_HOME)"
            ) from error
        return kept
