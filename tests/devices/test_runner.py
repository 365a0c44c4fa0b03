"""The runner: planted clocks, planted networks, every wrong field, and what a killed or failing run leaves behind."""

import ast
import hashlib
import itertools
import json
import os
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_up_spec import RUNNER, onnx_file, ran, specification

from whyprune.devices import runner

WORKER = """
import os, sys, time
sys.path.insert(0, {folder!r})
import runner

class Fake:
    name, format, place = "fake", "text", "cpu"
    def start(self):
        if os.environ.get("FAKE") == "missing":
            raise runner.RefusedError("MissingDependencyError", "pip install fake")
    def load(self, path, threads):
        word = path.read_text()
        def call(inputs):
            if word == "abort":
                os.abort()
            if word == "chatter":
                print("library chatter")
                os.system("echo chatter of a library in C")
            if word == "slow":
                time.sleep(0.05)
            return [] if word == "nothing" else [inputs[0] * 2]
        return call
    def versions(self):
        return {{"fake": "1"}}

class Meter:
    def __init__(self, measures, mj):
        self.name, self.measures, self.mj, self.calls = "of " + measures, measures, mj, 0
    def missing(self):
        return None
    def begin(self):
        pass
    def end(self):
        return self.mj

if os.environ.get("FAKE") == "metered":
    runner.ENERGY_SECONDS = 0
    runner.METERS[:] = [Meter("gpu", 1), Meter("cpu", 7.5)]
runner.RUNTIMES["fake"] = Fake()
sys.exit(runner.main(command=[sys.executable, __file__]))
"""


@pytest.fixture
def fake(tmp_path):
    """Measures a made-up runtime whose behaviour the networks' files name."""
    folder = tmp_path / "run"
    folder.mkdir()
    program = tmp_path / "worker.py"
    program.write_text(WORKER.format(folder=str(Path(runner.__file__).parent)))

    def prepare(words, **changes):
        for name, word in words.items():
            (folder / name).write_text(word)
        return specification(folder, {n: n for n in words}, runtime="fake", **changes)

    return prepare, [sys.executable, str(program)]


# --- timing


@given(times=st.lists(st.integers(1, 50), min_size=1, max_size=40), least=st.integers(0, 8))
def test_warm_up_ends_at_the_first_two_medians_that_agree_and_not_before(times, least):
    now, steps, used = [0], itertools.cycle(times), []

    def call():
        used.append(next(steps))
        now[0] += used[-1]

    count = runner.warm_up(call, least, lambda: now[0])
    window = max(1, -(-least // 2))
    assert count == len(used) >= least
    medians = [statistics.median(used[i : i + window]) for i in range(0, count, window)]
    agree = [abs(b - a) <= 0.05 * b for a, b in itertools.pairwise(medians)]
    enough = [(i + 2) * window >= least for i in range(len(agree))]
    assert not any(a and e for a, e in zip(agree[:-1], enough[:-1], strict=True))
    assert (agree and agree[-1]) or count >= runner.LONGEST_WARMUP * max(least, 1)


def test_a_slow_network_is_not_warmed_up_for_ever():
    now = [0]

    def call():
        now[0] += int(2e9) if calls.append(1) is None and len(calls) % 2 else int(3e9)

    calls = []
    assert runner.warm_up(call, 2, lambda: now[0]) <= 4


def test_rounds_stop_at_the_time_but_keep_three_and_every_round_is_whole():
    timed = {n: (lambda n=n: float(ord(n))) for n in "ab"}
    assert runner.interleaved(timed, range(10**6), 1e-9) == {"a": [97.0] * 3, "b": [98.0] * 3}


def test_rounds_in_which_a_call_was_interrupted_are_named(monkeypatch):
    count, planted = [0], {"a": {1, 4}, "b": {4}}
    monkeypatch.setattr(runner, "preemptions", lambda: count[0])
    done = dict.fromkeys(planted, 0)

    def call(name):
        count[0] += 3 * (done[name] in planted[name])
        done[name] += 1
        return 1.0

    found = {}
    runner.interleaved({n: (lambda n=n: call(n)) for n in planted}, range(6), None, found)
    assert found == {"a": [1, 4], "b": [4]}


def test_a_process_that_is_robbed_of_its_core_notices():
    """Two busy processes on one core: the system gives it to and fro."""
    core = {min(os.sched_getaffinity(0))}
    spin = "import os, time\nos.sched_setaffinity(0, {core})\nend = time.time() + 2\nwhile time.time() < end: pass\n"
    program = (
        "import sys; sys.path.insert(0, {folder!r}); import runner\n"
        + spin.replace("{core}", "{core!r}")
        + "print(runner.preemptions())"
    ).format(folder=str(Path(runner.__file__).parent), core=core)
    both = [subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert all(int(process.communicate(timeout=60)[0]) > 0 for process in both)


# --- what it is


def test_it_needs_only_the_standard_library_numpy_and_onnxruntime_and_python_39():
    tree = ast.parse(Path(runner.__file__).read_text(encoding="utf-8"), feature_version=(3, 9))
    used = {a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
    used |= {n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
    assert {name.partition(".")[0] for name in used} - set(sys.stdlib_module_names) == {"numpy"}


# --- a run


def test_a_record_holds_what_the_networks_gave_and_its_checksums_fit(tmp_path):
    onnx_file(tmp_path / "dense.onnx", 2.0)
    onnx_file(tmp_path / "pruned.onnx", 3.0)
    networks = {"dense": "dense.onnx", "pruned": "pruned.onnx"}
    core = min(os.sched_getaffinity(0))
    done = ran(specification(tmp_path, networks, each_alone=True, cores=[core], seconds=20.0))
    assert (done.returncode, done.stderr) == (0, "")
    record = json.loads((tmp_path / "record.json").read_text())
    with np.load(tmp_path / "outputs.npz") as outputs, np.load(tmp_path / "inputs.npz") as inputs:
        assert sorted(outputs.files) == ["dense/0", "pruned/0"]
        for name, factor in (("dense/0", 2), ("pruned/0", 3)):
            np.testing.assert_array_equal(outputs[name], factor * inputs["0"])
    assert {n: len(t) for n, t in record["samples_ms"].items()} == {"dense": 4, "pruned": 4}
    assert all(t > 0 for times in record["samples_ms"].values() for t in times)
    assert all(5 <= calls <= 100 for calls in record["warmup_calls"].values())
    assert record["spec_sha256"] == hashlib.sha256((tmp_path / "spec.json").read_bytes()).hexdigest()
    assert record["outputs"]["sha256"] == hashlib.sha256((tmp_path / "outputs.npz").read_bytes()).hexdigest()
    rest = {k: v for k, v in record.items() if k != "sha256"}
    canonical = json.dumps(rest, sort_keys=True, separators=(",", ":"))
    assert record["sha256"] == hashlib.sha256(canonical.encode()).hexdigest()
    assert record["machine"]["affinity"] == [core]
    assert set(record["cold_start_ms"]) == set(networks)
    for peak in record["peak_memory_bytes"].values():
        assert 0.9 * record["baseline_memory_bytes"] < peak < 2**31
    if not Path("/sys/class/powercap").exists():
        assert (record["energy_mj"], record["energy_meter"]) == ({}, None)


def test_memory_of_a_network_that_needs_more_is_larger_and_can_be_limited(tmp_path):
    onnx_file(tmp_path / "small.onnx")
    onnx_file(tmp_path / "large.onnx", copies=10**7)  # 2 x 3e7 floats: 240 MB
    networks = {"small": "small.onnx", "large": "large.onnx"}
    path = specification(tmp_path, networks, each_alone=True, repeats=1, min_warmup=1)
    assert ran(path).returncode == 0
    peak = json.loads((tmp_path / "record.json").read_text())["peak_memory_bytes"]
    assert peak["large"] - peak["small"] > 150e6
    before = (tmp_path / "record.json").read_bytes()
    done = ran(specification(tmp_path, networks, each_alone=True, memory_bytes=150 * 2**20))
    assert done.returncode == 2
    assert done.stderr.startswith("InputError: ")
    assert "large" in done.stderr
    assert (tmp_path / "record.json").read_bytes() == before
    assert not list(Path("/sys/fs/cgroup").glob("**/whyprune-*"))


def test_the_limit_is_named_where_no_control_group_can_be_made(tmp_path, monkeypatch):
    """Then an allocation fails in the runtime's own words."""
    monkeypatch.setattr(runner, "_control_group", lambda limit_bytes: None)
    onnx_file(tmp_path / "large.onnx", copies=10**7)
    path = specification(tmp_path, {"large": "large.onnx"}, memory_bytes=150 * 2**20)
    with pytest.raises(runner.RefusedError, match="memory_bytes 157286400"):
        runner.run(path, RUNNER)


def test_what_libraries_print_does_not_mix_with_the_result(fake):
    prepare, command = fake
    path = prepare({"a": "chatter"})
    done = ran(path, command)
    assert done.returncode == 0
    assert done.stdout.strip() == str(path.parent / "record.json")


# --- what goes wrong

WRONG = [
    ({"schema_version": 2}, "schema_version is 2"),
    ({"schema_version": True}, "schema_version is True"),
    ({"threads": 0}, "threads is 0"),
    ({"threads": 1.0}, "threads is 1.0"),
    ({"batch_size": "2"}, "batch_size is '2'"),
    ({"cores": []}, r"cores is \[\]"),
    ({"cores": [4096]}, r"cores is \[4096\]"),
    ({"memory_bytes": -1}, "memory_bytes is -1"),
    ({"seconds": float("nan")}, "seconds is nan"),
    ({"seconds": float("inf")}, "seconds is inf"),
    ({"repeats": ...}, "no field 'repeats'"),
    ({"colour": 1}, "unknown field 'colour'"),
    ({"networks": {}}, r"networks is \{\}"),
    ({"networks": {"../a": {"path": "a", "sha256": "0" * 64}}}, "networks is"),
    ({"networks": {"a": {"path": "/etc/passwd", "sha256": "0" * 64}}}, "networks is"),
    ({"networks": {"a": {"path": "../a", "sha256": "0" * 64}}}, "networks is"),
    ({"networks": {"a": {"path": "net", "sha256": "0" * 64}}}, "net has the checksum"),
    ({"networks": {"a": {"path": "gone", "sha256": "0" * 64}}}, "gone cannot be read"),
    ({"networks": {"a": {"path": "link", "sha256": "0" * 64}}}, "link leads out of its folder"),
    ({"runtime": "abacus"}, "runtime is 'abacus'"),
    ({"each_alone": 1}, "each_alone is 1"),
]


@pytest.mark.parametrize(("changes", "says"), WRONG, ids=[says for _, says in WRONG])
def test_a_wrong_specification_names_file_field_and_value(tmp_path, changes, says):
    folder = tmp_path / "here"
    folder.mkdir()
    (folder / "net").write_bytes(b"net")
    (tmp_path / "outside").write_bytes(b"")
    (folder / "link").symlink_to(tmp_path / "outside")
    path = specification(folder, {"a": "net"}, **changes)
    with pytest.raises(runner.RefusedError, match=says):
        runner.read_spec(path)


@pytest.mark.parametrize("text", ["", "{", "[1]", "[" * 100_000, "\x00"])
def test_what_is_no_specification_is_one_line(tmp_path, text):
    (tmp_path / "spec.json").write_text(text)
    with pytest.raises(runner.RefusedError, match=r"spec\.json"):
        runner.read_spec(tmp_path / "spec.json")


def _refused(done, folder, files, kind, *words):
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith(f"{kind}: ")
    for word in words:
        assert word in done.stderr
    assert sorted(os.listdir(folder)) == sorted([*files, "inputs.npz", "spec.json"])


def test_a_network_that_gives_nan_is_refused_in_one_line_and_nothing_is_written(tmp_path):
    onnx_file(tmp_path / "bad.onnx", 0.0, divide=True)
    done = ran(specification(tmp_path, {"bad": "bad.onnx"}, [np.zeros((1, 3), np.float32)]))
    _refused(done, tmp_path, ["bad.onnx"], "VerificationError", "'bad'", "NaN")


@pytest.mark.parametrize(
    ("made", "kind", "says"),
    [
        ({"opset": 99}, "FormatError", "a.onnx"),
        ({"external": "/etc/hostname"}, "FormatError", "a.onnx"),
        ({"external": "../outside"}, "FormatError", "a.onnx"),
    ],
)
def test_files_that_onnx_runtime_cannot_or_must_not_read(tmp_path, made, kind, says):
    (tmp_path / "outside").write_bytes(np.ones(1, np.float32).tobytes())
    folder = tmp_path / "here"
    folder.mkdir()
    onnx_file(folder / "a.onnx", **made)
    _refused(ran(specification(folder, {"a": "a.onnx"})), folder, ["a.onnx"], kind, says)


@pytest.mark.parametrize(
    ("inputs", "says"),
    [
        ([np.ones((2, 4), np.float32)], "(2, 4)"),
        ([np.ones((2, 3))], "float64"),
        ([np.ones((2, 3), np.float32)] * 2, "takes 1 inputs, 2"),
    ],
)
def test_inputs_that_do_not_fit_are_named(tmp_path, inputs, says):
    onnx_file(tmp_path / "a.onnx")
    _refused(ran(specification(tmp_path, {"a": "a.onnx"}, inputs)), tmp_path, ["a.onnx"], "InputError", says)


def test_a_runtime_that_dies_is_told_with_its_signal(fake):
    prepare, command = fake
    path = prepare({"a": "abort"}, each_alone=True)
    _refused(ran(path, command), path.parent, ["a"], "VerificationError", "'fake'", f"signal {int(signal.SIGABRT)}")


def test_a_network_without_outputs_and_a_missing_runtime_are_told(fake, monkeypatch):
    prepare, command = fake
    path = prepare({"a": "nothing"})
    _refused(ran(path, command), path.parent, ["a"], "VerificationError", "no output")
    monkeypatch.setenv("FAKE", "missing")
    _refused(ran(path, command), path.parent, ["a"], "MissingDependencyError", "pip install fake")


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGKILL])
def test_killed_in_the_middle_it_leaves_neither_files_nor_processes(fake, sent):
    prepare, command = fake
    path = prepare({"a": "slow"}, repeats=10**6, seconds=60.0)
    process = subprocess.Popen([*command, path], stderr=subprocess.PIPE)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    end = time.monotonic() + 30
    while not (found := children.read_text().split()) and time.monotonic() < end:
        time.sleep(0.02)
    time.sleep(0.5)
    process.send_signal(sent)
    process.communicate(timeout=30)
    assert process.returncode in (128 + sent, -sent)
    end = time.monotonic() + 30
    while _alive(found[0]) and time.monotonic() < end:
        time.sleep(0.02)
    assert not _alive(found[0])
    assert sorted(os.listdir(path.parent)) == ["a", "inputs.npz", "spec.json"]


def _alive(pid):
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


def test_a_folder_that_cannot_be_written_is_one_line(fake):
    prepare, command = fake
    path = prepare({"a": "plain"})
    (path.parent / "outputs.npz").mkdir()
    done = ran(path, command)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert not (path.parent / "record.json").exists()
    left = sorted(name for name in os.listdir(path.parent) if not name.startswith("part-"))  # finished work is kept
    assert left == ["a", "inputs.npz", "outputs.npz", "spec.json"]


# --- energy


@given(steps=st.lists(st.integers(0, 900), min_size=1, max_size=20))
def test_rapl_adds_packages_and_survives_wrap_around(tmp_path_factory, steps):
    root = tmp_path_factory.mktemp("powercap")
    zones = [root / "intel-rapl:0", root / "intel-rapl:1"]
    for zone in [*zones, root / "intel-rapl:0:0"]:
        zone.mkdir()
        (zone / "max_energy_range_uj").write_text("1000\n")
        (zone / "energy_uj").write_text("500\n")
    meter, value = runner.Rapl(str(root)), 500
    assert meter.missing() is None
    for step in steps:
        meter.begin()
        value = (value + step) % 1000
        for zone in zones:
            (zone / "energy_uj").write_text(f"{value}\n")
        assert meter.end() == pytest.approx(2 * step / 1000)


def test_energy_comes_from_the_meter_of_the_part_that_the_runtime_runs_on(fake, monkeypatch):
    prepare, command = fake
    monkeypatch.setenv("FAKE", "metered")
    path = prepare({"a": "plain", "b": "plain"})
    assert ran(path, command).returncode == 0
    record = json.loads((path.parent / "record.json").read_text())
    assert record["energy_mj"] == {"a": 7.5, "b": 7.5}
    assert record["energy_meter"] == "of cpu"


def test_a_machine_without_counters_says_so(tmp_path):
    assert "no RAPL" in runner.Rapl(str(tmp_path / "none")).missing()


def test_the_command_is_the_file_itself():
    assert subprocess.run([*RUNNER, "--help"], capture_output=True, check=True).stdout
