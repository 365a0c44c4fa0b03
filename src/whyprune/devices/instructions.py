"""Emulated instructions: how many an ARM processor executes for one inference in ONNX Runtime, counted by qemu-user.

A cost that does not depend on how busy this machine is, and no latency: it knows nothing of caches, of how long an
instruction takes, or of how many run at once. The count is of one thread, and includes the runtime's own work for a
call. `tools/aarch64.sh` prepares the emulated machine.
"""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from importlib import resources
from pathlib import Path

import numpy as np
from torch import nn

from whyprune.data.batches import Batch
from whyprune.devices.onnx_file import export_onnx
from whyprune.errors import DeviceError, InputError, MissingDependencyError

# Runs in the emulator; the marks are read by the plugin, instructions.c.
COUNTED = """
import os, sys
import numpy, onnxruntime

def mark(number):
    try:
        os.getpgid(0x40000000 + number)
    except OSError:
        pass

calls, inputs, *files = sys.argv[1:]
with numpy.load(inputs, allow_pickle=False) as arrays:
    values = [arrays[str(i)] for i in range(len(arrays.files))]
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = options.inter_op_num_threads = 1
for number, file in enumerate(files):
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    feeds = {i.name: v for i, v in zip(session.get_inputs(), values)}
    for _ in range(2):
        session.run(None, feeds)
    mark(2 * number)
    for _ in range(int(calls)):
        session.run(None, feeds)
    mark(2 * number + 1)
"""


def emulated_instructions(
    networks: Mapping[str, nn.Module],
    inputs: Batch,
    python: str | os.PathLike[str],
    *,
    batch_size: int = 1,
    calls: int = 3,
    timeout_s: float = 600.0,
) -> dict[str, float]:
    """Counts instructions per inference, the mean of some calls after two others.

    Args:
        networks: by name.
        inputs: at least `batch_size` samples.
        python: the emulated machine's interpreter, the file `python` that `tools/aarch64.sh` makes.
        batch_size: samples per call.
        calls: how many are counted.
        timeout_s: for all networks together.

    Raises:
        InputError: no networks, too few inputs, or a count below 1.
        MissingDependencyError: no emulated machine, no C compiler, or a qemu without plugins (Debian's qemu-user has
            them in version 7.2; static builds do not).
        DeviceError: the networks cannot be run there.
    """
    if not networks or min(batch_size, calls) < 1 or len(inputs) < batch_size:
        raise InputError(
            f"{len(networks)} networks, {len(inputs)} inputs, batch_size {batch_size}, calls {calls}: give one network "
            "or more, counts of 1 or more, and as many inputs"
        )
    if not os.access(python, os.X_OK):
        raise MissingDependencyError(f"there is no emulated machine {python}: make one with tools/aarch64.sh")
    with tempfile.TemporaryDirectory(prefix="whyprune-") as temporary:
        folder = Path(temporary)
        plugin = _plugin(folder)
        batch = inputs[slice(0, batch_size)]
        np.savez(folder / "inputs.npz", **{str(i): t.cpu().numpy() for i, t in enumerate(batch.tensors())})  # type: ignore[arg-type]
        for number, network in enumerate(networks.values()):
            export_onnx(network, inputs, folder / f"{number}.onnx")
        files = [str(folder / f"{number}.onnx") for number in range(len(networks))]
        marks = _marks(
            [str(python), "-c", COUNTED, str(calls), str(folder / "inputs.npz"), *files], folder, plugin, timeout_s
        )
    if len(marks) != 2 * len(networks):
        raise MissingDependencyError(f"{python}: this qemu has no plugins: take Debian's qemu-user of version 7.2")
    return {name: (marks[2 * i + 1] - marks[2 * i]) / calls for i, name in enumerate(networks)}


def _plugin(folder: Path) -> Path:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        raise MissingDependencyError("counting instructions needs a C compiler (Debian: gcc)")
    source = folder / "instructions.c"
    source.write_bytes(resources.files("whyprune.devices").joinpath(source.name).read_bytes())
    plugin = folder / "instructions.so"
    built = subprocess.run(
        [compiler, "-shared", "-fPIC", "-O2", "-o", str(plugin), str(source)],
        check=False,
        capture_output=True,
        text=True,
    )
    if built.returncode:
        raise DeviceError(f"the C compiler {compiler} cannot build the counter: {built.stderr.strip()[:200]}")
    return plugin


def _marks(command: list[str], folder: Path, plugin: Path, timeout_s: float) -> dict[int, int]:
    log = folder / "log"
    environment = {
        **os.environ,
        "QEMU_OPTIONS": f"-plugin {plugin} -d plugin -D {log}",
        # Equal runs make equal dictionaries.
        "PYTHONHASHSEED": "0",
    }
    try:
        ran = subprocess.run(
            command, env=environment, check=False, capture_output=True, text=True, timeout=timeout_s, cwd=folder
        )
    except subprocess.TimeoutExpired as error:
        raise DeviceError(f"counting took more than {timeout_s:g} seconds: give it longer (timeout_s)") from error
    if "-plugin" in ran.stderr or "plugin" in ran.stderr.partition("\n")[0]:
        return {}
    if ran.returncode:
        last = (ran.stderr.strip().splitlines() or [f"status {ran.returncode}"])[-1]
        raise DeviceError(f"the emulated machine failed: {last[:300]}")
    words = [line.split() for line in log.read_text(encoding="ascii", errors="replace").splitlines()]
    return {int(w[1]): int(w[2]) for w in words if len(w) == 3 and w[0] == "mark"}
