"""Times networks on the machine it runs on: all that a board needs beside Python 3.9, numpy and onnxruntime.

    python runner.py spec.json

writes `record.json` and `outputs.npz` beside the specification, or one line to standard error and exits with status 2.
A run that is broken off leaves its finished measurements as `part-*.json`; the next run goes on from them.
Every measurement runs in a process of its own: one per network for its cold start and its memory, one without any
network for the runtime's own memory, one for the interleaved rounds. `SPEC` lists the specification's fields.

Conventions: warm-up of at least 5 calls and until two successive medians agree within 5% (MLPerf warms up too, but by
count alone); rounds that call every network once, in an order that turns round every time, so that what disturbs the
machine disturbs all networks alike; a cold start is the load and the first inference, without the runtime's import.
"""

from __future__ import annotations

import argparse
import base64
import gc
import hashlib
import importlib
import importlib.util
import io
import json
import math
import os
import platform
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    import numpy as np

    Session = Callable[[Sequence[np.ndarray]], list[np.ndarray]]

SCHEMA_VERSION = 1
MIN_ROUNDS = 3
AGREEMENT = 0.05
LONGEST_WARMUP = 20
"""Warm-up ends after this many times its least calls, whether or not its medians agree."""
WARMUP_SECONDS = 5.0
ENERGY_SECONDS = 1.0
ENERGY_BLOCKS = 3
PART = "part-"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
ENVIRONMENT = re.compile(
    r"OMP_|KMP_|MKL_|ONEDNN_|DNNL_|ATEN_CPU|ORT_|OPENVINO|OV_|QEMU_CPU|CUDA_VISIBLE|TORCHINDUCTOR_(?!CACHE)"
)
MEBIBYTE = 2**20


class RefusedError(Exception):
    """What a person can mend. `kind` names the error of whyprune that it stands for; the message is one line."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(" ".join(message.split()))
        self.kind = kind


# --- runtimes ---------------------------------------------------------------------------------------------------------


class Library:
    """A runtime that comes as a Python package: what all of them share. They add `load`, as `Ort` shows."""

    name = ""
    title = ""
    format = ""
    module = ""
    packages: tuple[str, ...] = ()
    install = ""
    place = "cpu"

    def missing(self) -> str | None:
        """Why it cannot run here, and what to install; None if it can. Nothing large is imported for that."""
        try:
            found = importlib.util.find_spec(self.module) is not None
        except (ImportError, ValueError):
            found = False
        return None if found else f"{self.title} is not installed: pip install {self.install}"

    def start(self) -> Any:
        """Imports it.

        Raises:
            RefusedError: it is missing or does not work here.
        """
        reason = self.missing()
        if reason:
            raise RefusedError("MissingDependencyError", reason)
        try:
            return importlib.import_module(self.module)
        except (ImportError, OSError) as error:
            raise RefusedError(
                "MissingDependencyError", f"{self.title} cannot be imported: {first_line(error)}"
            ) from error

    def versions(self) -> dict[str, str]:
        """What the numbers depend on."""
        return installed(*self.packages)

    def unreadable(self, path: Path, error: BaseException | str) -> RefusedError:
        """The error for a file that it cannot load."""
        reason = error if isinstance(error, str) else first_line(error)
        version = next(iter(self.versions().values()), "")
        return RefusedError("FormatError", f"{path.name}: {self.title} {version} cannot read it: {reason}")


class Ort(Library):
    """ONNX Runtime on the CPU."""

    name = "ort"
    title = "ONNX Runtime"
    format = "onnx"
    module = "onnxruntime"
    packages = ("onnxruntime", "numpy")
    install = "onnxruntime"

    def load(self, path: Path, threads: int) -> Session:
        """A session on one file.

        Raises:
            RefusedError: ONNX Runtime cannot read the file.
        """
        runtime = self.start()
        options = runtime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.log_severity_level = 4
        options.add_session_config_entry("session.force_spinning_stop", "1")  # or it disturbs the next network's call
        try:
            session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # its errors share no base class
            raise self.unreadable(path, error) from error
        names = [i.name for i in session.get_inputs()]

        def call(inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
            return list(session.run(None, dict(zip(names, inputs))))

        call.inputs = len(names)  # type: ignore[attr-defined]
        return call


RUNTIMES: dict[str, Any] = {"ort": Ort()}
METERS: list[Any] = []


# --- timing: also used by whyprune for callables ----------------------------------------------------------------------


def warm_up(call: Callable[[], object], least: int, clock: Callable[[], int] | None = None) -> int:
    """Calls until it runs steadily: two successive medians agree within 5%, or the bound is reached.

    Args:
        call: runs the network once.
        least: the least number of calls; the medians are each over half as many.
        clock: nanoseconds; by default the machine's.

    Returns:
        How many calls it took.
    """
    clock = clock or time.perf_counter_ns
    window = max(1, math.ceil(least / 2))
    started, times, before = clock(), [], math.inf  # type: tuple[int, list[int], float]
    while True:
        for _ in range(window):
            start = clock()
            call()
            times.append(clock() - start)
        median = statistics.median(times[-window:])
        long = len(times) >= LONGEST_WARMUP * max(least, 1) or (clock() - started) / 1e9 > WARMUP_SECONDS
        if len(times) >= least and (long or abs(median - before) <= AGREEMENT * median):
            return len(times)
        before = median


def interleaved(
    timed: Mapping[str, Callable[[], float]],
    rounds: Iterable[int],
    seconds: float | None,
    preempted: dict[str, list[int]] | None = None,
) -> dict[str, list[float]]:
    """Times in ms per network: one call of each per round, the order reversed every round.

    Args:
        timed: per network, a call that gives its own time in ms.
        rounds: as many rounds at most.
        seconds: no new round once they have taken this long, but not before 3 rounds.
        preempted: gets, per network, the rounds in which another process took the core in the midst of its call.
    """
    times: dict[str, list[float]] = {name: [] for name in timed}
    taken = {} if preempted is None else preempted
    taken.update({name: [] for name in timed})
    order = list(timed)
    started = time.monotonic()
    with _no_garbage_collection():
        for done, _ in enumerate(rounds):
            if seconds is not None and done >= MIN_ROUNDS and time.monotonic() - started >= seconds:
                break
            for name in order:
                before = preemptions()
                times[name].append(timed[name]())
                if preemptions() != before:
                    taken[name].append(done)
            order.reverse()
    return times


def preemptions() -> int:
    """How often the system took this process's core for another; always 0 where it does not tell."""
    try:
        import resource
    except ImportError:
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw


def by_host_clock(call: Callable[[], object], clock: Callable[[], int] | None = None) -> Callable[[], float]:
    """A call that gives its own time in ms."""
    clock = clock or time.perf_counter_ns

    def timed() -> float:
        start = clock()
        call()
        return (clock() - start) / 1e6

    return timed


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    was_enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


# --- the specification ------------------------------------------------------------------------------------------------


def _whole(least: int) -> Callable[[Any], bool]:
    return lambda v: type(v) is int and least <= v < 2**63


def _file(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and set(value) == {"path", "sha256"}
        and all(isinstance(v, str) for v in value.values())
        and bool(re.fullmatch(r"[0-9a-f]{64}", value["sha256"]))
        and not (os.path.isabs(value["path"]) or ".." in Path(value["path"]).parts)
    )


def _networks(value: Any) -> bool:
    return isinstance(value, dict) and len(value) > 0 and all(NAME.fullmatch(n) and _file(f) for n, f in value.items())


def _cores(value: Any) -> bool:
    return value is None or (isinstance(value, list) and len(value) > 0 and all(_whole(0)(c) for c in value))


def _seconds(value: Any) -> bool:
    return type(value) in (int, float) and 0 < value < math.inf


A_FILE = '{"path": a path inside this folder, "sha256": 64 hexadecimal digits}'
SPEC: dict[str, tuple[Callable[[Any], bool], str]] = {
    "schema_version": (lambda v: type(v) is int and v == SCHEMA_VERSION, f"{SCHEMA_VERSION}"),
    "runtime": (lambda v: isinstance(v, str), "the name of a runtime"),
    "threads": (_whole(1), "1 or more"),
    "batch_size": (_whole(1), "1 or more"),
    "cores": (_cores, "a list of core numbers, or null"),
    "memory_bytes": (lambda v: v is None or _whole(MEBIBYTE)(v), "1048576 or more, or null"),
    "networks": (_networks, f"an object with, per name of letters, digits, '.', '_' and '-', {A_FILE}"),
    "inputs": (_file, A_FILE),
    "min_warmup": (_whole(0), "0 or more"),
    "repeats": (_whole(1), "1 or more"),
    "seconds": (_seconds, "a positive number"),
    "each_alone": (lambda v: type(v) is bool, "true or false"),
}
"""Every field of a specification: a check, and what it asks for."""


def read_spec(path: Path) -> dict[str, Any]:
    """The specification, checked field by field, and its files by their checksums.

    Raises:
        RefusedError: a file, a field or a value is wrong.
    """
    spec = _json_object(path)
    for field in spec:
        if field not in SPEC:
            raise RefusedError("FormatError", f"{path.name}: unknown field {field!r}; fields are {', '.join(SPEC)}")
    for field, (fits, wanted) in SPEC.items():
        if field not in spec:
            raise RefusedError("FormatError", f"{path.name}: no field {field!r}: give {wanted}")
        if not fits(spec[field]):
            raise RefusedError("FormatError", f"{path.name}: {field} is {spec[field]!r:.200}: give {wanted}")
    if spec["runtime"] not in RUNTIMES:
        known = ", ".join(RUNTIMES)
        raise RefusedError("InputError", f"{path.name}: runtime is {spec['runtime']!r}: this machine knows {known}")
    _check_cores(path, spec["cores"])
    for file in (*spec["networks"].values(), spec["inputs"]):
        _check_file(path.parent, file)
    return spec


def _json_object(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise RefusedError("FormatError", f"{path.name} cannot be read: {first_line(error)}") from error
    if not isinstance(value, dict):
        raise RefusedError("FormatError", f"{path.name} holds a {type(value).__name__}: give a JSON object")
    return value


def _check_cores(path: Path, cores: list[int] | None) -> None:
    usable = usable_cores()
    if cores is not None and usable is not None and not set(cores) <= set(usable):
        raise RefusedError("InputError", f"{path.name}: cores is {cores}, but this process may use {usable}")


def _check_file(folder: Path, file: Mapping[str, str]) -> None:
    path = folder / file["path"]
    if folder.resolve() not in path.resolve().parents:
        raise RefusedError("FormatError", f"{file['path']} leads out of its folder: put the file itself there")
    try:
        found = sha256(path)
    except OSError as error:
        raise RefusedError("FormatError", f"{file['path']} cannot be read: {first_line(error)}") from error
    if found != file["sha256"]:
        raise RefusedError(
            "FormatError",
            f"{file['path']} has the checksum {found}, not {file['sha256']}: copy it again",
        )


def sha256(path: Path) -> str:
    """Of a file's content, in hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for block in iter(lambda: file.read(MEBIBYTE), b""):
            digest.update(block)
    return digest.hexdigest()


def checksum(record: Mapping[str, Any]) -> str:
    """SHA-256 of the record's canonical JSON (sorted keys, no spaces, ASCII) without its field `sha256`."""
    rest = {k: v for k, v in record.items() if k != "sha256"}
    text = json.dumps(rest, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode("ascii")).hexdigest()


# --- the machine ------------------------------------------------------------------------------------------------------


def machine(versions: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The machine's state, as far as the operating system tells; None for what it does not."""
    return {
        "cpu": _cpu_model(),
        "isa": _isa(),
        "cores": os.cpu_count(),
        "affinity": usable_cores(),
        "core_limit": _core_limit(),
        "governor": _text("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        "frequency_mhz": _frequency_mhz(),
        "load_average": _load_average(),
        "temperature_celsius": _temperature_celsius(),
        "memory_bytes": _meminfo("MemTotal"),
        "available_memory_bytes": _meminfo("MemAvailable"),
        "memory_limit_bytes": _container_memory(),
        "platform": platform.platform(),
        "architecture": platform.machine(),
        "python": platform.python_version(),
        "environment": {k: v for k, v in sorted(os.environ.items()) if ENVIRONMENT.match(k)},
        "versions": dict(versions or {}),
    }


def usable_cores() -> list[int] | None:
    """The cores this process may run on; None where the system has no such notion."""
    affinity = getattr(os, "sched_getaffinity", None)
    return sorted(affinity(0)) if affinity else None


def installed(*packages: str) -> dict[str, str]:
    """The versions of those that are installed."""
    from importlib import metadata

    versions = {}
    for package in packages:
        with suppress(metadata.PackageNotFoundError):
            versions[package] = metadata.version(package)
    return versions


def _text(path: str) -> str | None:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").strip() or None
    except OSError:
        return None


def _cpu_model(cpuinfo: str = "/proc/cpuinfo") -> str | None:
    lines = (_text(cpuinfo) or "").splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith(("model name", "Model"))]
    return next((name for name in names if name), None) or platform.processor() or None


def _isa(cpuinfo: str = "/proc/cpuinfo") -> list[str]:
    """The instruction sets that decide a network's speed, of those that the CPU names."""
    wanted = re.compile(r"sse4_[12]|avx\w*|fma|f16c|amx\w*|neon|asimd\w*|sve\w*|sme\d?|i8mm|bf16|fphp|v\b")
    lines = (_text(cpuinfo) or "").splitlines()
    flags = next((line.partition(":")[2].split() for line in lines if line.startswith(("flags", "Features"))), [])
    return sorted({flag for flag in flags if wanted.fullmatch(flag)})


def _frequency_mhz() -> float | None:
    khz = _text("/sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq")
    if khz and khz.isdigit():
        return int(khz) / 1000
    lines = (_text("/proc/cpuinfo") or "").splitlines()
    found = [line.partition(":")[2].strip() for line in lines if line.startswith("cpu MHz")]
    try:
        return float(found[0]) if found else None
    except ValueError:
        return None


def _temperature_celsius() -> float | None:
    """The hottest thermal zone."""
    zones = [_text(str(zone)) for zone in Path("/sys/class/thermal").glob("thermal_zone*/temp")]
    known = [int(zone) / 1000 for zone in zones if zone and zone.lstrip("-").isdigit()]
    return max(known) if known else None


def _load_average() -> list[float] | None:
    try:
        return [round(value, 2) for value in os.getloadavg()]
    except (AttributeError, OSError):
        return None


def _meminfo(field: str) -> int | None:
    for line in (_text("/proc/meminfo") or "").splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    return None


def _container_memory() -> int | None:
    """The memory limit of the control group, if it is one."""
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        value = _text(path)
        if value and value.isdigit() and int(value) < 2**60:
            return int(value)
    return None


def _core_limit() -> float | None:
    """How many cores' worth of time the control group may use, if it is limited."""
    quota, _, period = (_text("/sys/fs/cgroup/cpu.max") or "").partition(" ")
    if not quota:
        quota = _text("/sys/fs/cgroup/cpu/cpu.cfs_quota_us") or ""
        period = _text("/sys/fs/cgroup/cpu/cpu.cfs_period_us") or ""
    return int(quota) / int(period) if quota.isdigit() and period.isdigit() and int(period) else None


def peak_memory_bytes() -> int | None:
    """The largest resident set of this process so far; None where the system does not tell."""
    for line in (_text("/proc/self/status") or "").splitlines():
        if line.startswith("VmHWM:"):  # getrusage would count the parent's memory before this program began
            return int(line.split()[1]) * 1024
    try:
        import resource
    except ImportError:
        return None
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used if sys.platform == "darwin" else used * 1024


# --- the measuring processes ------------------------------------------------------------------------------------------


def child(spec: Mapping[str, Any], folder: Path, task: str) -> tuple[dict[str, Any], bytes]:
    """One measurement, in this process: `baseline`, `rounds`, or `alone:NAME`.

    Returns:
        Numbers, and for `rounds` the outputs as the bytes of an npz file.

    Raises:
        RefusedError: the runtime is missing, or a network fails or gives NaN.
    """
    runtime = RUNTIMES[spec["runtime"]]
    runtime.start()
    if task == "baseline":
        return {"peak_memory_bytes": peak_memory_bytes()}, b""
    inputs = _inputs(folder / spec["inputs"]["path"], spec["batch_size"])
    if task == "rounds":
        return _rounds(spec, folder, inputs)
    name = task.partition(":")[2]
    start = time.perf_counter_ns()
    session = runtime.load(folder / spec["networks"][name]["path"], spec["threads"])
    first_outputs(name, session, inputs)
    cold_start_ms = (time.perf_counter_ns() - start) / 1e6
    return {"cold_start_ms": cold_start_ms, "peak_memory_bytes": peak_memory_bytes()}, b""


def _inputs(path: Path, batch_size: int) -> list[np.ndarray]:
    import numpy as np

    try:
        with np.load(path, allow_pickle=False) as arrays:
            named = {name: arrays[name] for name in arrays.files}
    except Exception as error:  # zip, header and pickle errors share no base class
        raise RefusedError("FormatError", f"{path.name} cannot be read: {first_line(error)}") from error
    if sorted(named) != sorted(str(i) for i in range(len(named))) or not named:
        raise RefusedError("FormatError", f"{path.name} holds {sorted(named)}: name the inputs '0', '1', ... in order")
    inputs = [np.ascontiguousarray(named[str(i)]) for i in range(len(named))]
    sizes = [a.shape[:1] for a in inputs]
    if any(size != (batch_size,) for size in sizes):
        raise RefusedError("InputError", f"{path.name} holds inputs of lengths {sizes} for batch_size {batch_size}")
    return inputs


def first_outputs(name: str, session: Session, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The network's outputs.

    Raises:
        RefusedError: it cannot be called on these inputs, or gives NaN or infinite values.
    """
    import numpy as np

    wanted = getattr(session, "inputs", len(inputs))
    if wanted != len(inputs):
        raise RefusedError("InputError", f"network {name!r} takes {wanted} inputs, {len(inputs)} were given")
    try:
        outputs = [np.asarray(o) for o in session(inputs)]
    except RefusedError:
        raise
    except Exception as error:  # every runtime raises its own
        shapes = ", ".join(f"{a.shape} {a.dtype}" for a in inputs)
        raise RefusedError("InputError", f"network {name!r} failed on inputs {shapes}: {first_line(error)}") from error
    if not outputs:
        raise RefusedError("VerificationError", f"network {name!r} gives no output: its file was converted wrongly")
    for i, output in enumerate(outputs):
        if output.dtype.kind in "fc" and not np.isfinite(output).all():
            raise RefusedError(
                "VerificationError", f"network {name!r} gives NaN or infinite values in output {i}: do not use its file"
            )
    return outputs


def _rounds(spec: Mapping[str, Any], folder: Path, inputs: list[np.ndarray]) -> tuple[dict[str, Any], bytes]:
    import numpy as np

    runtime = RUNTIMES[spec["runtime"]]
    sessions = {n: runtime.load(folder / f["path"], spec["threads"]) for n, f in spec["networks"].items()}
    outputs = {n: first_outputs(n, session, inputs) for n, session in sessions.items()}
    calls = {n: (lambda s=session: s(inputs)) for n, session in sessions.items()}
    before = machine(runtime.versions())
    warmup_calls = {n: warm_up(call, spec["min_warmup"]) for n, call in calls.items()}
    timed = {n: _own_clock(sessions[n], inputs) or by_host_clock(call) for n, call in calls.items()}
    preempted: dict[str, list[int]] = {}
    samples = interleaved(timed, range(spec["repeats"]), spec["seconds"], preempted)
    energy_mj, meter = _energy(calls, runtime.place)
    file = io.BytesIO()
    arrays: dict[str, Any] = {f"{n}/{i}": o for n, found in outputs.items() for i, o in enumerate(found)}
    np.savez(file, **arrays)
    numbers = {
        "samples_ms": samples,
        "preempted_rounds": preempted,
        "warmup_calls": warmup_calls,
        "energy_mj": energy_mj,
        "energy_meter": meter,
        "machine": before,
    }
    return numbers, file.getvalue()


def _own_clock(session: Any, inputs: Sequence[np.ndarray]) -> Callable[[], float] | None:
    """For accelerators, whose own events tell the time."""
    own = getattr(session, "time_ms", None)
    return None if own is None else lambda: float(own(inputs))


def _energy(calls: Mapping[str, Callable[[], object]], place: str) -> tuple[dict[str, float], str | None]:
    """Energy per call in mJ of what the meter measures, idle power included; empty without a meter.

    Blocks of calls alternate between the networks, since a meter is too slow for single calls.
    """
    fitting = [m for m in METERS if m.measures in ("machine", place)]
    meter = next((m for m in fitting if m.missing() is None), None)
    if meter is None:
        return {}, None
    used: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(ENERGY_BLOCKS):
        for name, call in calls.items():
            meter.begin()
            started, count = time.monotonic(), 0
            while count == 0 or time.monotonic() - started < ENERGY_SECONDS:
                call()
                count += 1
            used[name].append(meter.end() / count)
    return {name: statistics.median(values) for name, values in used.items()}, meter.name


class Rapl:
    """The CPU packages' energy counters, where Linux shows them (`powercap`)."""

    name = "rapl"
    measures = "cpu"

    def __init__(self, root: str = "/sys/class/powercap") -> None:
        self.root = root
        self.before: dict[str, int] = {}

    def missing(self) -> str | None:
        """Why energy cannot be read here; None if it can."""
        zones = self._zones()
        if not zones:
            return "this system shows no RAPL counter: the CPU, the kernel or the virtual machine hides it"
        if any(_text(f"{zone}/energy_uj") is None for zone in zones):
            return f"{zones[0]}/energy_uj cannot be read: ask for read permission on it"
        return None

    def begin(self) -> None:
        """Starts to count."""
        self.before = {zone: self._microjoules(zone) for zone in self._zones()}

    def end(self) -> float:
        """Energy in mJ since `begin`; right while no counter has run round more than once (minutes)."""
        used = 0
        for zone, before in self.before.items():
            now = self._microjoules(zone)
            used += now - before if now >= before else now - before + int(_text(f"{zone}/max_energy_range_uj") or 0)
        return used / 1000

    @staticmethod
    def _microjoules(zone: str) -> int:
        return int(_text(f"{zone}/energy_uj") or 0)

    def _zones(self) -> list[str]:
        """Whole packages: their parts (cores, memory) have two numbers in their names."""
        found = Path(self.root).glob("intel-rapl:*")
        return sorted(str(z) for z in found if re.fullmatch(r"intel-rapl:\d+", z.name))


METERS.append(Rapl())


# --- limits -----------------------------------------------------------------------------------------------------------


def hold_to(cores: Sequence[int] | None) -> None:
    """Keeps this process to some cores."""
    if cores is not None:
        if not hasattr(os, "sched_setaffinity"):
            raise RefusedError("InputError", f"cores is {list(cores)}: this system cannot hold a process to cores")
        os.sched_setaffinity(0, cores)


class MemoryLimit:
    """A limit on the memory of child processes: a control group where one can be made, else RLIMIT_DATA."""

    def __init__(self, limit_bytes: int | None) -> None:
        self.limit_bytes, self.group = limit_bytes, None if limit_bytes is None else _control_group(limit_bytes)

    @property
    def kind(self) -> str | None:
        """How the limit is kept."""
        return None if self.limit_bytes is None else ("cgroup" if self.group else "rlimit_data")

    def enter(self) -> None:
        """In the child, before it loads anything."""
        if self.group:
            Path(self.group, "cgroup.procs").write_text(str(os.getpid()), encoding="ascii")
        elif self.limit_bytes is not None:
            import resource

            resource.setrlimit(resource.RLIMIT_DATA, (self.limit_bytes, self.limit_bytes))

    def remove(self) -> None:
        """The group, when its processes are gone."""
        if self.group:
            with suppress(OSError):
                os.rmdir(self.group)


def _control_group(limit_bytes: int) -> str | None:
    """A new group below this process's own, with the limit; None where that is not allowed."""
    own = {}
    for line in (_text("/proc/self/cgroup") or "").splitlines():
        _, controllers, path = line.split(":", 2)
        own.update(dict.fromkeys(controllers.split(","), path))
    tries = [
        (f"/sys/fs/cgroup/memory{own.get('memory', '/')}", {"memory.limit_in_bytes": limit_bytes}),
        (f"/sys/fs/cgroup{own.get('', '/')}", {"memory.max": limit_bytes, "memory.swap.max": 0}),
    ]
    for parent, limits in tries:
        group = f"{parent.rstrip('/')}/whyprune-{os.getpid()}"
        try:
            os.mkdir(group)
        except OSError:
            continue
        try:
            for file, value in limits.items():
                if file != "memory.swap.max" or os.path.exists(f"{group}/{file}"):
                    with open(f"{group}/{file}", "r+", encoding="ascii") as opened:
                        opened.write(str(value))
        except OSError:
            with suppress(OSError):
                os.rmdir(group)
        else:
            return group
    return None


# --- the supervising process ------------------------------------------------------------------------------------------


def run(spec_path: Path, command: Sequence[str]) -> Path:
    """Measures what the specification asks for and writes `record.json` and `outputs.npz` beside it.

    Args:
        spec_path: the specification; its files lie in the same folder.
        command: the program and arguments that start this runner again.

    Returns:
        The path of the record.

    Raises:
        RefusedError: something a person can mend; nothing was written then.
    """
    spec = read_spec(spec_path)
    ask = Supervisor(spec_path, spec, command)
    alone = {n: ask(f"alone:{n}")[0] for n in spec["networks"]} if spec["each_alone"] else {}
    baseline = ask("baseline")[0]["peak_memory_bytes"] if spec["each_alone"] else None
    numbers, outputs = ask("rounds")
    record = {
        "schema_version": SCHEMA_VERSION,
        "spec_sha256": sha256(spec_path),
        "runtime": spec["runtime"],
        "threads": spec["threads"],
        "batch_size": spec["batch_size"],
        **numbers,
        "cold_start_ms": {n: a["cold_start_ms"] for n, a in alone.items()},
        "peak_memory_bytes": {n: a["peak_memory_bytes"] for n, a in alone.items() if a["peak_memory_bytes"]},
        "baseline_memory_bytes": baseline,
        "memory_limit": ask.limited_by,
        "outputs": {"path": "outputs.npz", "sha256": hashlib.sha256(outputs).hexdigest()},
    }
    record["sha256"] = checksum(record)
    target = spec_path.parent / "record.json"
    _write(target.with_name("outputs.npz"), outputs)
    _write(target, (json.dumps(record, indent=1, allow_nan=False) + "\n").encode("ascii"))
    ask.forget()
    return target


class Supervisor:
    """Runs measurements in processes of their own."""

    def __init__(self, spec_path: Path, spec: Mapping[str, Any], command: Sequence[str]) -> None:
        self.spec_path, self.spec, self.command = spec_path, spec, command
        self.limited_by: str | None = None

    def __call__(self, task: str) -> tuple[dict[str, Any], bytes]:
        """The numbers and bytes of one measurement.

        Raises:
            RefusedError: the process says what is wrong, or dies.
        """
        kept = self._kept(task)
        if kept is not None:
            return kept
        limit_bytes = self.spec["memory_bytes"]
        if limit_bytes is not None and task == "rounds":  # the limit is each network's own; here all are loaded
            limit_bytes *= len(self.spec["networks"])
        limit = MemoryLimit(limit_bytes)
        self.limited_by = limit.kind
        order = {"task": task, "limit_bytes": limit_bytes, "group": limit.group, "parent": os.getpid()}
        try:
            done = subprocess.run(
                [*self.command, str(self.spec_path), "--order", json.dumps(order)],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                check=False,
            )
        finally:
            limit.remove()
        if done.returncode == 0:
            head, _, rest = done.stdout.partition(b"\n")
            self._keep(task, json.loads(head), rest)
            return json.loads(head), rest
        raise self._reason(task, done)

    def _part(self, task: str) -> Path:
        return self.spec_path.with_name(f"{PART}{hashlib.sha256(task.encode()).hexdigest()[:16]}.json")

    def _keep(self, task: str, numbers: dict[str, Any], content: bytes) -> None:
        """A finished measurement, for a run that goes on after this one was broken off."""
        part = {
            "of": [sha256(self.spec_path), platform.node(), task, self.limited_by],
            "numbers": numbers,
            "content": base64.b64encode(content).decode("ascii"),
        }
        text = json.dumps({**part, "sha256": checksum(part)}, allow_nan=False)
        _write(self._part(task), text.encode("ascii"))

    def _kept(self, task: str) -> tuple[dict[str, Any], bytes] | None:
        """What an earlier run of the same specification on this machine measured; None for nothing usable."""
        try:
            part = json.loads(self._part(task).read_bytes())
            spec, node, of, self.limited_by = part["of"]
            if [spec, node, of] != [sha256(self.spec_path), platform.node(), task] or part["sha256"] != checksum(part):
                return None
            return part["numbers"], base64.b64decode(part["content"], validate=True)
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return None

    def forget(self) -> None:
        """The finished measurements, once they are in the record."""
        for path in self.spec_path.parent.glob(f"{PART}*.json"):
            with suppress(OSError):
                path.unlink()

    def _reason(self, task: str, done: subprocess.CompletedProcess[bytes]) -> RefusedError:
        lines = done.stderr.decode("utf-8", "replace").strip().splitlines()
        kind, _, message = (lines[-1] if lines else "").partition(": ")
        if done.returncode == 2 and kind.endswith("Error") and message:
            return RefusedError(kind, message)
        how = f"by signal {-done.returncode}" if done.returncode < 0 else f"with status {done.returncode}"
        last = f": {lines[-1]}" if lines else ""
        limit = self.spec["memory_bytes"]
        if limit is not None:
            return RefusedError(
                "InputError",
                f"{task} ended {how} within memory_bytes {limit}{last}; give more memory",
            )
        return RefusedError(
            "VerificationError",
            f"the runtime {self.spec['runtime']!r} ended {how} in {task}{last}",
        )


def _write(path: Path, content: bytes) -> None:
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise


def _obey(spec_path: Path, order: Mapping[str, Any]) -> None:
    """The child's part: standard output belongs to the result, so what libraries print goes to standard error."""
    result = os.dup(1)
    os.dup2(2, 1)
    _die_with_parent(order["parent"])
    spec = _json_object(spec_path)
    hold_to(spec["cores"])
    limit = MemoryLimit(None)
    limit.limit_bytes, limit.group = order["limit_bytes"], order["group"]
    limit.enter()
    try:
        numbers, content = child(spec, spec_path.parent, order["task"])
    except MemoryError as error:
        raise RefusedError(
            "InputError", f"{order['task']} needs more than memory_bytes {spec['memory_bytes']}"
        ) from error
    except RefusedError as error:
        if spec["memory_bytes"] is None:
            raise
        # Runtimes say "allocation failed" each in their own words.
        raise RefusedError(error.kind, f"{error} (within memory_bytes {spec['memory_bytes']})") from error
    with os.fdopen(result, "wb") as file:
        file.write(json.dumps(numbers, allow_nan=False).encode("ascii") + b"\n" + content)


def _die_with_parent(parent: int) -> None:
    if sys.platform == "linux":
        with suppress(OSError, AttributeError, ImportError):
            import ctypes

            ctypes.CDLL(None).prctl(1, signal.SIGKILL)
        if os.getppid() != parent:
            sys.exit(1)


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or its type's name."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


def main(arguments: Sequence[str] | None = None, command: Sequence[str] | None = None) -> int:
    """The program. Returns its exit status: 0, or 2 after one line on standard error."""
    parser = argparse.ArgumentParser(description="Times networks on this machine: writes record.json beside the spec.")
    beside = Path(__file__).with_name("spec.json")
    parser.add_argument("spec", type=Path, nargs="?", default=beside, help="the specification; default: beside this")
    parser.add_argument("--order", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        if options.order is not None:
            _obey(options.spec, options.order)
        else:
            print(run(options.spec, command or (sys.executable, str(Path(__file__).resolve()))))
    except RefusedError as error:
        print(f"{error.kind}: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"InputError: {first_line(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
