"""What went wrong with a device elsewhere, in one sentence with a way out."""

import shlex
from typing import Any

from whyprune.devices.address import Address
from whyprune.devices.foreign import shown
from whyprune.errors import DeviceError

PACKAGES = {"numpy": "numpy", "onnxruntime": "onnxruntime"}
FULL = ("No space left", "Disk quota exceeded", "File too large")
AGAIN = "what it had finished is kept here: run the same again to go on"


def by_hand(address: Address) -> str:
    """The command with which the user tries the connection."""
    return shlex.join(["ssh", *(word for word in address.arguments if word != "--")])


def ssh_failure(address: Address, status: int, words: str, begun: bool) -> DeviceError:
    """The end of an ssh that did not run to its end there.

    Args:
        address: where to.
        status: ssh's exit status; 255 is its own failure, all else that of the command there.
        words: what it wrote on standard error.
        begun: the run there had begun.
    """
    lines = [line.strip() for line in words.splitlines() if line.strip()]
    last = shown(lines[-1] if lines else f"status {status}", 200)[1:-1]
    where, hand = address.name, by_hand(address)
    if begun:
        why = "the connection was lost" if status == 255 else f"the run there was killed ({last})"
        return DeviceError(f"{where}: {why}; {AGAIN}, its folder there is removed by then")
    if status != 255:
        return DeviceError(f"{where}: {_no_python(address, status, words, last)}")
    known = {
        "Could not resolve hostname": f"there is no host {address.host!r}: check the name, or your ssh configuration",
        "Connection refused": f"no ssh server answers there ({last}): start it, or give its port, ssh://host:port",
        "IDENTIFICATION HAS CHANGED": "its host key is not the one you know it by: somebody may be in between. If "
        f"it was set up anew, forget the old key (ssh-keygen -R {_known_as(address)}) and log in once by hand: {hand}",
        "Host key verification failed": "its host key is not known here: log in once by hand and compare "
        f"the fingerprint: {hand}",
        "Permission denied": f"it does not let you in ({last}): put a key of yours there with ssh-copy-id, "
        f"a key with a passphrase into ssh-agent, and try {hand}",
        "Too many authentication failures": f"it gave up on your keys: name one with IdentityFile, and try {hand}",
        "timed out": f"it does not answer ({last}): is it switched on and in reach?",
        "not responding": f"it no longer answers ({last}): is it switched on and in reach?",
        "No route to host": "there is no way to it in your network: is it switched on and in reach?",
        "Network is unreachable": "there is no way to it in your network: is it switched on and in reach?",
    }
    for sign, message in known.items():
        if sign in words:
            return DeviceError(f"{where}: {message}")
    return DeviceError(f"{where}: ssh failed ({last}): try {hand}")


def failure(address: Address, event: dict[str, Any]) -> DeviceError:
    """The last event of a run that did not succeed; see `remote_side.py`."""
    where, kind = address.name, event.get("event")
    words = str(event.get("words", ""))
    left = f"; remove {shown(event.get('folder'))} there by hand" if event.get("left") is True else ""
    if kind == "missing":
        message = _missing(address, event)
    elif kind == "no-folder":
        full = event.get("full") is True
        message = "the disk there is full" if full else "there is no temporary folder to write to there"
        message += f" ({shown(event.get('reason'))}): make room, or set TMPDIR there"
    elif kind == "full" or (kind == "failed" and any(sign in words for sign in FULL)):
        free = event.get("free_bytes")
        room = f", {free:,} bytes are free" if isinstance(free, int) else ""
        message = f"the disk there is full{room}: make room, or set TMPDIR there; {AGAIN}"
    elif kind == "timeout":
        message = f"it did not finish in time: give it longer (timeout_s); {AGAIN}"
    elif kind == "lost":
        message = f"the run there was interrupted; {AGAIN}"
    elif kind == "failed":
        message = _failed(event.get("status"), words)
    else:
        message = f"the run there failed ({_last(words) or shown(kind)})"
    return DeviceError(f"{where}: {message}{left}")


def _missing(address: Address, event: dict[str, Any]) -> str:
    modules = event.get("modules")
    names = [m for m in modules if isinstance(m, str) and m in PACKAGES] if isinstance(modules, list) else []
    python = shown(event.get("python"))[1:-1]
    return (
        f"{python} ({shown(event.get('version'))[1:-1]}) has no {' and no '.join(names)}: run there "
        f"{python} -m pip install {' '.join(PACKAGES[n] for n in names)}, or name another Python, "
        f"ssh://{address.host}/path/of/python3"
    )


def _failed(status: Any, words: str) -> str:
    if isinstance(status, int) and status < 0:
        hint = ", which is what happens when memory runs out" if status == -9 else ""
        return f"the runner there was killed by signal {-status}{hint}; {AGAIN}"
    again = f"; {AGAIN}" if "ended by signal" in words else ""
    return f"the runner failed there: {_last(words) or f'status {status}'}{again}"


def _no_python(address: Address, status: int, words: str, last: str) -> str:
    python = address.python
    if "whyprune: python" in words:
        return f"{last.partition('whyprune: ')[2]} there is too old: 3.9 is needed, name another, ssh://host/path/of/python3"
    if status in (126, 127):
        return f"there is no {python} that can be run ({last}): install Python, or name it, ssh://host/path/of/python3"
    return f"{python} could not be started there ({last}): try {by_hand(address)}"


def _known_as(address: Address) -> str:
    return shlex.quote(address.host if address.port in (None, 22) else f"[{address.host}]:{address.port}")


def _last(words: str) -> str:
    lines = [line.strip() for line in words.splitlines() if line.strip()]
    return shown(lines[-1], 300)[1:-1] if lines else ""
