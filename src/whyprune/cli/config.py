"""The TOML file of `--config`: the command's own options by name; flags win over it."""

import tomllib
from collections.abc import Collection, Iterable
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import typer

from whyprune.errors import InputError
from whyprune.recovery.config import RENAMED

CONFIG = "config"


def read_config(ctx: typer.Context, path: Path | None) -> Path | None:
    """Makes the file's values the defaults of the command's options.

    Raises:
        InputError: the file is missing, no TOML, or names an option that does not exist.
    """
    if path is not None:
        switches = {p.name for p in ctx.command.params if getattr(p, "secondary_opts", None)}
        lists = {p.name for p in ctx.command.params if getattr(p, "multiple", False)}
        names = [p.name for p in ctx.command.params if p.name and p.name not in (CONFIG, "help")]
        ctx.default_map = {
            name: value
            for key, entry in _read(path).items()
            for name, value in [_option(path, key, entry, names, switches, lists)]
        }
    return path


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"cannot read the configuration {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is no TOML file: {error}") from error


def _option(
    path: Path,
    key: str,
    entry: Any,
    names: Iterable[str],
    switches: Collection[str | None],
    lists: Collection[str | None],
) -> tuple[str, Any]:
    """(option, value) in the form the command line has it: `no-latency = true` is `latency = false`."""
    name = key.replace("-", "_")
    if name not in names and name.removeprefix("no_") in switches and isinstance(entry, bool):
        return name.removeprefix("no_"), not entry
    if name not in names and name in RENAMED:
        raise InputError(f"{path}: the option {key!r} is called {RENAMED[name].replace('_', '-')!r} now")
    if name not in names:
        near = get_close_matches(name, names, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"the options are {', '.join(sorted(names))}"
        raise InputError(f"{path}: there is no option {key!r}: {hint}")
    if isinstance(entry, dict):  # budget = {macs = 0.5, params = 0.4}
        return name, ",".join(f"{k}={v}" for k, v in entry.items())
    if name in lists:  # together = [["a", "b"], ["c", "d"]]
        return name, [_joined(one) for one in (entry if isinstance(entry, list) else [entry])]
    return name, _joined(entry)


def _joined(entry: Any) -> Any:
    return ",".join(map(str, entry)) if isinstance(entry, list) else entry
