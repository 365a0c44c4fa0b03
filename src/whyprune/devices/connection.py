"""One run over the user's own ssh: the bundle goes in on its standard input, events come back on its standard output.

One connection, one login, no second program and no port: what `ssh HOST` does by hand, this does too, with the same
configuration, keys, agent and jump hosts. Host keys are checked as the user has it.
"""

import contextlib
import json
import os
import queue
import shlex
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

from whyprune.devices.address import Address
from whyprune.devices.ssh_errors import failure, ssh_failure
from whyprune.errors import DeviceError

MARK = b"whyprune-device "
MAX_LINE = 1 << 20
HEARTBEAT_S, SILENCE_S, GOODBYE_S = 5.0, 60.0, 15.0
OPTIONS = {
    "BatchMode": "yes",
    "ConnectTimeout": "15",
    "ServerAliveInterval": "10",
    "ServerAliveCountMax": "3",
    "ClearAllForwardings": "yes",
    "RemoteCommand": "none",
    "RequestTTY": "no",
}
# Every Python, however old, can read this line and say what it is.
BEGIN = (
    'import sys; sys.version_info >= (3, 9) or sys.exit("whyprune: python %d.%d" % sys.version_info[:2]); '
    'i = sys.stdin.buffer; exec(compile(i.read(int(i.readline())), "whyprune", "exec"))'
)
LAST = frozenset({"done", "lost", "no-folder", "missing", "timeout", "failed", "full", "failed-here", "ended"})


@dataclass
class Connection:
    """A running ssh; a context that always ends it, and gives the other side time to tidy up first.

    Attributes:
        address: where to.
        program: the ssh program.
        options: further arguments for it, before the host.
    """

    address: Address
    program: str = "ssh"
    options: Sequence[str] = ()
    _process: subprocess.Popen[bytes] | None = field(default=None, init=False)
    _events: "queue.Queue[dict[str, Any] | None]" = field(default_factory=lambda: queue.Queue(1000), init=False)
    _words: bytearray = field(default_factory=bytearray, init=False)
    _sent: threading.Event = field(default_factory=threading.Event, init=False)
    _over: threading.Event = field(default_factory=threading.Event, init=False)
    _threads: list[threading.Thread] = field(default_factory=list, init=False)

    def __enter__(self) -> "Connection":
        if shutil.which(self.program) is None:
            raise DeviceError(
                f"there is no program {self.program!r} here: install OpenSSH's client (Debian: openssh-client)"
            )
        chosen = [word for name, value in OPTIONS.items() for word in ("-o", f"{name}={value}")]
        command = f"{_quoted(self.address.python)} -u -c {shlex.quote(BEGIN)}"
        self._process = subprocess.Popen(
            [self.program, *self.options, "-T", "-x", *chosen, *self.address.arguments, command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            # Ctrl-C goes to this process alone: it ends ssh when the other side has tidied up.
            start_new_session=True,
        )
        return self

    def __exit__(self, *_: object) -> None:
        process = self._process
        assert process is not None
        self._over.set()
        if self._sent.is_set():
            with contextlib.suppress(OSError):
                process.stdin.close()  # type: ignore[union-attr]
        else:
            # A thread is still writing and holds the pipe; without ssh the other side sees its end too.
            process.terminate()
        try:
            process.wait(GOODBYE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        finally:
            for thread in self._threads:
                # A master connection of the user's keeps standard error open: not waited for.
                thread.join(1)

    def run(self, header: dict[str, Any], files: Sequence[Path], timeout_s: float) -> Iterator[dict[str, Any]]:
        """Sends the files and gives what the other side says, until it says its last.

        Args:
            header: what the other side needs to know; see `remote_side.py`.
            files: sent under their own names.
            timeout_s: for all of it; the other side is told too.

        Raises:
            DeviceError: it could not be reached, could not do it, or was lost.
        """
        about = {
            **header,
            "files": [{"name": f.name, "size": f.stat().st_size} for f in files],
            "timeout_s": timeout_s,
            "silence_s": SILENCE_S,
        }
        self._begin(self._write, about, files)
        self._begin(self._read)
        self._begin(self._listen)
        deadline = time.monotonic() + timeout_s + GOODBYE_S
        begun = False
        while True:
            event = self._next(deadline)
            if event is None:
                raise self._ended(begun)
            begun = True
            kind = event.get("event")
            if kind == "done":
                return
            if kind in LAST:
                raise failure(self.address, event)
            yield event

    def _next(self, deadline: float) -> dict[str, Any] | None:
        while time.monotonic() < deadline:
            with contextlib.suppress(queue.Empty):
                return self._events.get(timeout=0.5)
        raise failure(self.address, {"event": "timeout"})

    def _begin(self, work: Any, *arguments: Any) -> None:
        self._threads.append(threading.Thread(target=work, args=arguments, daemon=True))
        self._threads[-1].start()

    def _write(self, header: dict[str, Any], files: Sequence[Path]) -> None:
        code = resources.files("whyprune.devices").joinpath("remote_side.py").read_bytes()
        pipe = self._process.stdin  # type: ignore[union-attr]
        assert pipe is not None
        with contextlib.suppress(OSError, ValueError):
            pipe.write(b"%d\n%s%s\n" % (len(code), code, json.dumps(header).encode()))
            for path in files:
                with open(path, "rb") as file:
                    shutil.copyfileobj(file, pipe, 1 << 20)
            pipe.flush()
            self._sent.set()
            while not self._over.wait(HEARTBEAT_S):
                pipe.write(b".")
                pipe.flush()

    def _read(self) -> None:
        """Events; lines without the mark are what a shell prints at login."""
        pipe = self._process.stdout  # type: ignore[union-attr]
        assert pipe is not None
        with contextlib.suppress(OSError, ValueError):
            while line := pipe.readline(MAX_LINE):
                event = _event(line)
                if event is not None:
                    self._events.put(event)
        self._events.put(None)

    def _listen(self) -> None:
        pipe = self._process.stderr  # type: ignore[union-attr]
        assert pipe is not None
        with contextlib.suppress(OSError, ValueError):
            while data := os.read(pipe.fileno(), 4096):
                self._words += data
                del self._words[:-8192]

    def _ended(self, begun: bool) -> DeviceError:
        """The connection is over and the other side did not say its last."""
        process = self._process
        assert process is not None
        try:
            status = process.wait(GOODBYE_S)
        except subprocess.TimeoutExpired:
            status = -1
        self._threads[-1].join(1)
        return ssh_failure(self.address, status, self._words.decode("utf-8", "replace"), begun)


def _quoted(python: str) -> str:
    """For the shell there; `~` stays outside of the quotes."""
    if python.startswith("~/"):
        return f"~/{shlex.quote(python[2:])}"
    return shlex.quote(python)


def _event(line: bytes) -> dict[str, Any] | None:
    """What a line says; None for one that is not the other side's."""
    if not line.startswith(MARK):
        return None
    try:
        event = json.loads(line[len(MARK) :])
    except (ValueError, RecursionError):
        return None
    return event if isinstance(event, dict) and isinstance(event.get("event"), str) else None
