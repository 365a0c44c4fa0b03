"""Names of devices elsewhere, what goes wrong with them in words, and the other side by itself, without any ssh."""

import ast
import base64
import fcntl
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from carried import INPUTS, NETWORKS
from hypothesis import given
from hypothesis import strategies as st

from whyprune.devices import connection, remote_side, runner
from whyprune.devices.address import Address
from whyprune.devices.foreign import sha256
from whyprune.devices.inbox import Inbox
from whyprune.devices.registry import device
from whyprune.devices.ssh import COMES_BACK, RemoteDevice
from whyprune.devices.ssh_errors import failure, ssh_failure
from whyprune.errors import DeviceError, InputError

WORD = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,20}", fullmatch=True)


COUNT = st.none() | st.integers(1, 4096)


@given(
    user=st.none() | WORD,
    host=WORD,
    port=st.none() | st.integers(1, 65535),
    python=st.lists(WORD, max_size=3),
    threads=COUNT,
    batch_size=COUNT,
)
def test_a_name_says_what_ssh_is_told_and_what_is_measured(user, host, port, python, threads, batch_size):
    name = f"ssh://{f'{user}@' if user else ''}{host}{f':{port}' if port else ''}{''.join(f'/{p}' for p in python)}"
    asked = [*([f"{threads}t"] if threads else []), *([f"b{batch_size}"] if batch_size else [])]
    name += f"#{'-'.join(asked)}" if asked else ""
    found = Address.parse(name)
    assert (found.threads, found.batch_size) == (threads, batch_size)
    assert (device(name).threads, device(name).batch_size) == (threads or 1, batch_size or 1)
    assert (found.user, found.host, found.port) == (user, host, port)
    path = "/".join(python)
    assert found.python == ("python3" if not path else path if len(python) == 1 else f"/{path}")
    assert found.arguments[-2:] == ["--", host]
    assert device(name).name == name


def test_special_names():
    assert Address.parse("ssh://[fe80::1%eth0]:22").host == "fe80::1%eth0"
    assert Address.parse("ssh://pi/~/env/bin/python").python == "~/env/bin/python"


@pytest.mark.parametrize(
    "name",
    [
        "ssh://",
        "ssh:pi",
        "ssh://-oProxyCommand=touch@pi",
        "ssh://-oProxyCommand=touch",
        "ssh://me:secret@pi",
        "ssh://pi:0",
        "ssh://pi:70000",
        "ssh://pi:x",
        "ssh://a b",
        "ssh://pi#",
        "ssh://pi#4",
        "ssh://pi#b16-4t",
        "ssh://pi#-b16",
        "ssh://pi#4tb16",
        "ssh://pi#0t",
        "ssh://pi#b4097",
        "ssh://pi#4t#b2",
        "ssh://pi/\n",
        "ssh://pi\x1b[31m",
    ],
)
def test_names_that_are_none(name):
    with pytest.raises(InputError) as caught:
        device(name)
    assert "secret" not in str(caught.value)
    assert "touch pi" not in str(caught.value)


SAID = {
    "Could not resolve hostname pi: Name or service not known": "there is no host 'pi'",
    "connect to host pi port 22: Connection refused": "no ssh server answers there",
    "connect to host pi port 22: Connection timed out": "does not answer",
    "connect to host pi port 22: No route to host": "no way to it",
    "Timeout, server pi not responding.": "no longer answers",
    "Host key verification failed.": "host key is not known here",
    "WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!\nHost key verification failed.": "not the one you know it by",
    "me@pi: Permission denied (publickey).": "does not let you in",
    "Received disconnect: Too many authentication failures": "gave up on your keys",
    "command-line: line 0: Bad configuration option: x": "ssh failed",
    "": "ssh failed",
}


@pytest.fixture
def remote(tmp_path, monkeypatch):
    """A device whose ssh is a script of the test's; networks are not exported."""
    monkeypatch.setattr(RemoteDevice, "_export", lambda _, __, ___, path: path.write_bytes(b"network"))

    def make(script):
        program = tmp_path / "ssh"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        return RemoteDevice("ssh://me@pi:2200", program=str(program), workspace=tmp_path / "kept", timeout_s=30.0)

    return make


def message(remote):
    with pytest.raises(DeviceError) as caught:
        remote(NETWORKS, INPUTS)
    text = str(caught.value)
    assert "\n" not in text
    assert text.startswith("ssh://me@pi:2200: ")
    assert list(remote.workspace.iterdir()) == []
    return text


@pytest.mark.parametrize("said", SAID)
def test_what_ssh_says_becomes_one_line_with_a_way_out(remote, said):
    text = message(remote(f"cat >&2 <<'END'\n{said}\nEND\nexit 255"))
    assert SAID[said] in text


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("echo 'sh: python3: not found' >&2; exit 127", "there is no python3 that can be run"),
        ("echo 'whyprune: python 3.6' >&2; exit 1", "python 3.6 there is too old: 3.9 is needed"),
        ("echo 'This account is not available' ; exit 1", "python3 could not be started there"),
        ("kill -9 $$", "python3 could not be started there"),
    ],
)
def test_an_end_without_a_word_of_the_other_side(remote, script, expected):
    assert expected in message(remote(script))


EVENTS = [
    ({"event": "folder"}, 137, "the run there was killed"),
    ({"event": "folder"}, 255, "the connection was lost"),
    ({"event": "nonsense"}, 255, "the connection was lost"),
    ({"event": "done"}, 0, "it sent no record"),
    (
        {"event": "missing", "modules": ["numpy"], "python": "/p", "version": "3.9"},
        0,
        "run there /p -m pip install numpy",
    ),
    ({"event": "failed", "status": -9, "words": ""}, 0, "killed by signal 9"),
    ({"event": "failed", "status": 2, "words": "a\nFormatError: b"}, 0, "the runner failed there: FormatError: b"),
    ({"event": "failed", "status": 2, "words": "OSError: No space left on device"}, 0, "the disk there is full"),
    ({"event": "full", "free_bytes": 12}, 0, "the disk there is full, 12 bytes are free"),
    ({"event": "lost", "left": True, "folder": "/t"}, 0, "remove '/t' there by hand"),
    ({"event": "file", "name": "../../x", "data": ""}, 0, "not asked for"),
]


@pytest.mark.parametrize(("event", "status", "expected"), EVENTS, ids=[str(e) for e, _, _ in EVENTS])
def test_what_the_other_side_says_becomes_one_line(remote, event, status, expected):
    line = f"whyprune-device {json.dumps(event)}"
    assert expected in message(remote(f"cat <<'END'\n{line}\nEND\nexit {status}"))


def test_what_a_device_says_is_shown_without_control_characters(remote):
    text = message(remote("printf 'Permission denied \\033[31m\\007' >&2; exit 255"))
    assert text.isprintable()


def test_an_ssh_that_is_not_there(remote):
    with pytest.raises(DeviceError, match="no program 'no-such-ssh' here"):
        replace(remote("exit 0"), program="no-such-ssh")(NETWORKS, INPUTS)


def test_ssh_never_asks_and_host_keys_are_checked_as_the_user_has_it(remote, tmp_path):
    message(remote(f'printf "%s\\n" "$@" > {tmp_path}/arguments; exit 255'))
    words = (tmp_path / "arguments").read_text().splitlines()
    assert "BatchMode=yes" in words
    assert not any("StrictHostKeyChecking" in w or "KnownHostsFile" in w for w in words)
    assert words[words.index("-l") + 1] == "me"
    assert words[words.index("-p") + 1] == "2200"
    assert words[words.index("--") + 1] == "pi"


def test_an_ssh_that_hangs_is_ended(remote, tmp_path, monkeypatch):
    monkeypatch.setattr(connection, "GOODBYE_S", 0.3)
    monkeypatch.setattr(RemoteDevice, "_export", lambda _, __, ___, path: path.write_bytes(bytes(2**20)))
    slow = replace(remote(f"echo $$ > {tmp_path}/pid; exec sleep 100"), timeout_s=0.5)
    assert "did not finish in time" in message(slow)
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
KINDS = st.sampled_from(["missing", "no-folder", "full", "failed", "timeout", "lost", "failed-here", "ended"])
FIELDS = st.sampled_from(
    ["words", "left", "folder", "modules", "python", "version", "reason", "full", "free_bytes", "status"]
)


@given(kind=KINDS, fields=st.dictionaries(FIELDS, JSON))
def test_whatever_a_device_says_becomes_one_line(kind, fields):
    text = str(failure(Address.parse("ssh://pi"), {**fields, "event": kind}))
    assert text.startswith("ssh://pi: ")
    assert text.isprintable()
    assert len(text) < 1000


@given(words=st.text(), status=st.integers(-20, 256), begun=st.booleans())
def test_whatever_ssh_says_becomes_one_line(words, status, begun):
    text = str(ssh_failure(Address.parse("ssh://pi"), status, words, begun))
    assert text.startswith("ssh://pi: ")
    assert text.isprintable()
    assert len(text) < 1000


def test_a_device_that_never_ends_is_ended(remote, monkeypatch):
    monkeypatch.setattr(connection, "GOODBYE_S", 0.3)
    endless = """while :; do echo 'whyprune-device {"event": "progress", "text": "x"}'; done"""
    assert "did not finish in time" in message(replace(remote(endless), timeout_s=0.5))


def test_what_was_kept_long_ago_is_measured_anew(remote, tmp_path):
    old, recent, foreign = (tmp_path / "kept" / n for n in (f"{'a' * 16}-{'b' * 16}", f"{'c' * 16}-{'d' * 16}", "mine"))
    for folder in (old, recent, foreign):
        folder.mkdir(parents=True)
        (folder / "part-0.json").touch()
    for folder in (old, foreign):
        os.utime(folder, (0, 0))
    with pytest.raises(DeviceError):
        remote("exit 255")(NETWORKS, INPUTS)
    assert sorted((tmp_path / "kept").iterdir()) == sorted([recent, foreign])


def test_a_workspace_that_cannot_be_written(remote, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"unfinished runs cannot be kept in .*file"):
        replace(remote("exit 255"), workspace=tmp_path / "file")(NETWORKS, INPUTS)


def pieces(name, data, size):
    for offset in range(0, len(data) + 1, size):
        part = data[offset : offset + size]
        last = offset + size > len(data)
        event = {"name": name, "offset": offset, "data": base64.b64encode(part).decode(), "last": last}
        yield {**event, "sha256": sha256(data)} if last else event


@given(data=st.binary(max_size=200), size=st.integers(1, 50), damage=st.integers(0, 10**6))
def test_files_come_whole_or_not_at_all(tmp_path_factory, data, size, damage):
    folder = tmp_path_factory.mktemp("inbox")
    inbox = Inbox(folder, "pi", COMES_BACK)
    taken = [inbox.take(piece) for piece in pieces("record.json", data, size)]
    assert taken[-1] == "record.json"
    assert (folder / "record.json").read_bytes() == data
    if data:
        wrong = bytearray(data)
        wrong[damage % len(data)] ^= 1
        sent = [{**p, **({"sha256": sha256(data)} if p["last"] else {})} for p in pieces("outputs.npz", wrong, size)]
        with pytest.raises(DeviceError, match="damaged"):
            [inbox.take(piece) for piece in sent]
        assert not (folder / "outputs.npz").exists()


@pytest.mark.parametrize(
    "name", ["spec.json", "../record.json", "part-x.json", "/etc/passwd", None, 3, "record.json\n"]
)
def test_files_that_were_not_asked_for_are_refused(tmp_path, name):
    with pytest.raises(DeviceError, match="not asked for"):
        Inbox(tmp_path, "pi", COMES_BACK).take({"name": name, "offset": 0, "data": "", "last": True})
    assert list(tmp_path.iterdir()) == []


def test_files_without_end_are_refused(tmp_path):
    inbox = Inbox(tmp_path, "pi", COMES_BACK, limit=100)
    with pytest.raises(DeviceError, match="more than 100 bytes"):
        [inbox.take(piece) for piece in pieces("record.json", bytes(300), 50)]
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def other_side(tmp_path):
    """Starts the other side by itself, with a runner of the test's."""
    (tmp_path / "tmp").mkdir()
    started = []

    def start(runner, **header):
        asked = {
            "modules": [],
            "command": ["runner.py"],
            "parts": "part-",
            "have": [],
            "results": [],
            "timeout_s": 60,
            "silence_s": 30,
            "files": [{"name": "runner.py", "size": len(runner.encode())}],
            **header,
        }
        process = subprocess.Popen(
            [sys.executable, remote_side.__file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "TMPDIR": str(tmp_path / "tmp")},
        )
        started.append(process)
        process.stdin.write(json.dumps(asked).encode() + b"\n" + runner.encode())
        process.stdin.flush()
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()


def last(process):
    lines = process.stdout.read().splitlines()
    assert process.wait() == 0
    return json.loads(lines[-1].removeprefix(remote_side.MARK.encode()))


SLEEPS = "import os, time; open('../pid', 'w').write(str(os.getpid())); time.sleep(100)"


def test_silence_ends_a_run_and_its_processes(other_side, tmp_path):
    process = other_side(SLEEPS, silence_s=1.5)
    assert last(process)["event"] == "lost"
    pid = int((tmp_path / "tmp" / "pid").read_text())
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert [f.name for f in (tmp_path / "tmp").iterdir()] == ["pid"]


def test_silence_while_files_are_sent_leaves_nothing(other_side, tmp_path):
    process = other_side("", silence_s=1.0, files=[{"name": "dense.onnx", "size": 100}])
    assert last(process)["event"] == "lost"
    assert list((tmp_path / "tmp").iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_signals_leave_nothing(other_side, tmp_path, number):
    process = other_side(SLEEPS)
    while not (tmp_path / "tmp" / "pid").exists():
        time.sleep(0.02)
    process.send_signal(number)
    assert last(process)["event"] == "lost"
    assert [f.name for f in (tmp_path / "tmp").iterdir()] == ["pid"]


def test_leftovers_go_but_not_those_of_runs_under_way(other_side, tmp_path):
    tmp = tmp_path / "tmp"
    names = {name: tmp / f"{remote_side.PREFIX}{name}" for name in ("dead", "alive", "new")}
    for folder in names.values():
        folder.mkdir()
    for name in ("dead", "alive"):
        (names[name] / remote_side.LOCK).touch()
    (tmp / f"{remote_side.PREFIX}link").symlink_to(tmp_path)
    (tmp / "precious").mkdir()
    with open(names["alive"] / remote_side.LOCK) as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert last(other_side("print('done')"))["event"] == "done"
    left = {f.name.removeprefix(remote_side.PREFIX) for f in tmp.iterdir()}
    assert left == {"alive", "new", "link", "precious"}


@pytest.mark.parametrize("module", [remote_side, runner])
def test_what_runs_on_devices_is_python_3_9(module):
    ast.parse(Path(module.__file__).read_text(encoding="utf-8"), feature_version=(3, 9))


def test_the_other_side_needs_nothing_but_the_standard_library():
    source = importlib.util.find_spec("whyprune.devices.remote_side").loader.get_source("whyprune.devices.remote_side")
    words = [line.split()[1].split(".")[0] for line in source.splitlines() if line.startswith(("import ", "from "))]
    assert set(words) <= set(sys.stdlib_module_names)
