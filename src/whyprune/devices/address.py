"""The name of a device elsewhere: `ssh://[user@]host[:port][/python][#Nt-bN]`."""

import re
from dataclasses import dataclass

from whyprune.devices.names import MAX_COUNT, counts
from whyprune.errors import InputError

FORM = "ssh://[user@]host[:port][/path/of/python3][#Nt-bN]"
GRAMMAR = re.compile(
    r"ssh://(?:(?P<user>[^@/#\s]+)@)?(?P<host>\[[0-9A-Za-z:.%]+\]|[^@/:#\[\]\s]+)(?::(?P<port>[0-9]{1,5}))?"
    r"(?P<python>/[^\s#]*)?(?:#(?P<asked>[^\s#]*))?"
)


@dataclass(frozen=True)
class Address:
    """Where a device is reached, as the user's own ssh understands it.

    Attributes:
        name: the whole name, as given.
        host: a host, an address, or an alias of the user's ssh configuration.
        user: None for what ssh takes by itself.
        port: None for what ssh takes by itself.
        python: the interpreter there: a path, or a program's name looked for in PATH.
        threads: of the runtime; None where the name says nothing.
        batch_size: samples per call; None where the name says nothing.
    """

    name: str
    host: str
    user: str | None = None
    port: int | None = None
    python: str = "python3"
    threads: int | None = None
    batch_size: int | None = None

    @classmethod
    def parse(cls, name: str) -> "Address":
        """Reads a name.

        One word after the slash is a program's name (`ssh://pi/python3.12`), more are an absolute path
        (`ssh://pi/opt/env/bin/python`); `/~/env/bin/python` begins at the home folder there.

        Raises:
            InputError: it is not of that form.
        """
        match = GRAMMAR.fullmatch(name)
        if match is None or not name.isprintable():
            raise InputError(f"{name!r} names no device: give {FORM}")
        host, user, port = match["host"].strip("[]"), match["user"], match["port"]
        if host.startswith("-") or (user or "").startswith("-"):
            raise InputError(f"{name!r} names no device: a host or user does not begin with '-'")
        if user is not None and ":" in user:
            raise InputError(f"the user of {match['host']!r} holds a colon: give no password, ssh uses your keys")
        if port is not None and not 1 <= int(port) <= 65535:
            raise InputError(f"{name!r} has the port {port}: give 1 to 65535")
        threads, batch_size = _asked(name, match["asked"])
        return cls(
            name,
            host,
            user,
            None if port is None else int(port),
            _python(match["python"]),
            threads,
            batch_size,
        )

    @property
    def arguments(self) -> list[str]:
        """What ssh is told of it; the host last."""
        user = [] if self.user is None else ["-l", self.user]
        port = [] if self.port is None else ["-p", str(self.port)]
        return [*user, *port, "--", self.host]


def _python(path: str | None) -> str:
    words = (path or "").strip("/")
    if not words:
        return "python3"
    if words.startswith("~/"):
        return words
    return f"/{words}" if "/" in words else words


def _asked(name: str, text: str | None) -> tuple[int | None, int | None]:
    """Threads and samples per call, as `devices.names` writes them."""
    if text is None:
        return None, None
    rest, threads, batch_size = counts(f"#-{text}", name)
    if rest != "#":
        raise InputError(f"{name!r} asks for {text!r}: give #Nt, #bN or #Nt-bN, threads and samples up to {MAX_COUNT}")
    return threads, batch_size
