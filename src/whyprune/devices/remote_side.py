"""The other end of an SSH device. Runs there as it is: Python 3.9 or newer, its standard library, nothing else.

It gets a bundle on standard input, unpacks it into a fresh temporary folder, runs the runner, and says on standard
output how that goes and what came out: one JSON object a line behind a mark, so that what a shell prints at login does
no harm. After the bundle, standard input is a sign of heartbeat: when it ends, or is silent for too long, everything
stops. Whatever happens, the folder goes; one that was left by a kill -9 or a loss of power goes at the next run.
"""

from __future__ import annotations

import base64
import contextlib
import errno
import fcntl
import hashlib
import importlib.util
import json
import os
import select
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
from typing import IO, Any, NoReturn

MARK, PREFIX, LOCK = "whyprune-device ", "whyprune-device-", ".lock"
CHUNK = 48 * 1024
SIGNALS = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGALRM)
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Stop(Exception):  # noqa: N818 - an end, not always an error
    """The run ends here; its event says why."""

    def __init__(self, event: str, **about: Any) -> None:
        super().__init__(event)
        self.event, self.about = event, about


def say(event: str, **about: Any) -> None:
    """One line to the other side; a broken connection ends the run."""
    line = MARK + json.dumps(dict(about, event=event)) + "\n"
    try:
        sys.stdout.buffer.write(line.encode())
        sys.stdout.buffer.flush()
    except (BrokenPipeError, OSError):
        raise Stop("lost") from None


def send(folder: str, name: str) -> None:
    """One file in pieces, its checksum with the last."""
    digest, offset = hashlib.sha256(), 0
    with open(os.path.join(folder, name), "rb") as file:
        while True:
            data = file.read(CHUNK)
            digest.update(data)
            last = len(data) < CHUNK
            about = {"sha256": digest.hexdigest()} if last else {}
            say("file", name=name, offset=offset, data=base64.b64encode(data).decode(), last=last, **about)
            offset += len(data)
            if last:
                return


def clean_leftovers() -> None:
    """Removes folders of earlier runs of this user whose process is gone: nobody holds their lock."""
    base = tempfile.gettempdir()
    for name in os.listdir(base):
        path = os.path.join(base, name)
        with contextlib.suppress(OSError):
            about = os.lstat(path)
            if name.startswith(PREFIX) and about.st_uid == os.getuid() and stat.S_ISDIR(about.st_mode):
                if not os.path.exists(os.path.join(path, LOCK)):
                    # Another run may be making it at this moment.
                    if time.time() - about.st_mtime > 60:
                        shutil.rmtree(path, ignore_errors=True)
                    continue
                with open(os.path.join(path, LOCK), "r+") as lock:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(path, ignore_errors=True)


def make_folder() -> tuple[str, IO[str]]:
    """(the folder, its lock); the lock is held as long as this process lives, and has its name only when it is."""
    folder = None
    try:
        clean_leftovers()
        folder = tempfile.mkdtemp(prefix=PREFIX)
        path = os.path.join(folder, LOCK)
        lock = open(path + ".new", "w")  # noqa: SIM115
        fcntl.flock(lock, fcntl.LOCK_EX)
        os.rename(path + ".new", path)
    except OSError as error:
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)
        raise Stop("no-folder", reason=error.strerror or str(error), full=error.errno in FULL) from None
    return folder, lock


def receive(folder: str, header: dict[str, Any], source: Any) -> None:
    """Writes the files that follow on standard input; silence ends it."""
    for entry in header["files"]:
        left = entry["size"]
        with open(os.path.join(folder, entry["name"]), "wb") as file:
            while left:
                signal.setitimer(signal.ITIMER_REAL, header["silence_s"])
                data = source.read1(min(left, 1 << 16))
                if not data:
                    raise Stop("lost")
                file.write(data)
                left -= len(data)
        say("received", name=entry["name"])
    signal.setitimer(signal.ITIMER_REAL, 0)


def check_modules(names: list[str]) -> None:
    """Everything the runner imports must be there."""
    missing = [name for name in names if importlib.util.find_spec(name) is None]
    if missing:
        raise Stop("missing", modules=missing, python=sys.executable, version=".".join(map(str, sys.version_info[:2])))


class Heartbeat:
    """Whether the other side is still there: it writes a byte now and then, and closes when it goes."""

    def __init__(self, source: Any, silence_s: float) -> None:
        self.gone, self.heard, self.silence_s = False, time.monotonic(), silence_s
        threading.Thread(target=self._listen, args=(source,), daemon=True).start()

    def _listen(self, source: Any) -> None:
        while source.read1(64):
            self.heard = time.monotonic()
        self.gone = True

    def check(self) -> None:
        """Ends the run when nobody is there any more."""
        if self.gone or time.monotonic() - self.heard > self.silence_s:
            raise Stop("lost")


def start(folder: str, header: dict[str, Any]) -> subprocess.Popen[bytes]:
    """The runner as a process group of its own, which dies with this process where the system can do that."""

    def die_with_parent() -> None:
        with contextlib.suppress(Exception):
            import ctypes

            ctypes.CDLL(None).prctl(1, signal.SIGKILL)

    environment = dict(os.environ, TMPDIR=folder, PYTHONDONTWRITEBYTECODE="1")
    return subprocess.Popen(
        [sys.executable, "-u", *header["command"]],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=open(os.path.join(folder, ".stderr"), "wb"),
        start_new_session=True,
        preexec_fn=die_with_parent,  # noqa: PLW1509
    )


def watch(runner: subprocess.Popen[bytes], folder: str, header: dict[str, Any], heartbeat: Heartbeat) -> int:
    """Passes on lines and finished parts until the runner ends; gives its status."""
    deadline = time.monotonic() + header["timeout_s"]
    sent, pending = set(header["have"]), b""
    assert runner.stdout is not None
    output = runner.stdout.fileno()
    while True:
        heartbeat.check()
        if time.monotonic() > deadline:
            raise Stop("timeout")
        ended = runner.poll() is not None
        if select.select([output], [], [], 0 if ended else 0.2)[0]:
            pending += os.read(output, 65536)
        *lines, pending = pending.split(b"\n")
        for line in lines:
            say("progress", text=line.decode("utf-8", "replace")[:200])
        for name in sorted(os.listdir(folder)):
            if name.startswith(header["parts"]) and name.endswith(".json") and name not in sent:
                send(folder, name)
                sent.add(name)
        if ended:
            return runner.returncode


def finish(folder: str, status: int, header: dict[str, Any]) -> None:
    """Sends what came out, or the runner's last words."""
    if status == 0:
        for name in header["results"]:
            send(folder, name)
        return
    with open(os.path.join(folder, ".stderr"), "rb") as file:
        words = file.read()[-4000:].decode("utf-8", "replace")
    free = shutil.disk_usage(folder).free
    raise Stop("failed", status=status, words=words, free_bytes=free)


def kill(runner: subprocess.Popen[bytes]) -> None:
    """The runner and what it started."""
    with contextlib.suppress(OSError):
        os.killpg(runner.pid, signal.SIGKILL)
    runner.wait()


def stopped(_signal: int, _frame: object) -> NoReturn:
    """A signal ends the run like any other reason."""
    raise Stop("lost")


def main() -> None:
    """From the header on standard input to the last event; always without the folder at the end."""
    for number in SIGNALS:
        signal.signal(number, stopped)
    folder: str | None = None
    runner: subprocess.Popen[bytes] | None = None
    last: tuple[str, dict[str, Any]] = ("ended", {})
    source = sys.stdin.buffer
    try:
        header = json.loads(source.readline())
        check_modules(header["modules"])
        folder, _lock = make_folder()
        say("folder", path=folder)
        receive(folder, header, source)
        heartbeat = Heartbeat(source, header["silence_s"])
        runner = start(folder, header)
        finish(folder, watch(runner, folder, header, heartbeat), header)
        last = "done", {}
    except Stop as stop:
        last = stop.event, stop.about
    except OSError as error:
        free = shutil.disk_usage(folder).free if folder and os.path.isdir(folder) else None
        full = error.errno in FULL
        last = "full" if full else "failed-here", {"words": str(error), "free_bytes": free, "folder": folder}
    finally:
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        if runner is not None:
            kill(runner)
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)
        with contextlib.suppress(Stop):
            say(last[0], left=folder is not None and os.path.exists(folder), **last[1])
        # The listening thread may sit in a read: leave without waiting for it.
        os._exit(0)


if __name__ == "__main__":
    main()
