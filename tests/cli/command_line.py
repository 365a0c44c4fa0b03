"""Runs commands in this process and looks at what they leave."""

import json
from pathlib import Path
from types import SimpleNamespace

from typer.testing import CliRunner

from whyprune.cli import app

# A run of seconds: no response curves, few images, nothing timed, nothing refuted.
QUICK = (
    *("--method", "magnitude-l2", "--repair", "batch-norm", "--calibration-images", "64"),
    *("--no-latency", "--no-onnx", "--no-refute"),
)
FILES = ["effects.parquet", "model.onnx", "model.safetensors", "plan.json", "report.html", "result.json"]


def run(*arguments):
    """Runs the command line in this process; an exception that no message was made of fails the test."""
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return SimpleNamespace(code=result.exit_code, out=result.stdout, err=result.stderr)


def refused(*arguments):
    """The message of a run that must be refused: one line, exit code 2, and nothing written."""
    before = listing(Path.cwd())
    result = run(*arguments)
    assert result.code == 2, result.out + result.err
    assert result.out == ""
    lines = [line for line in result.err.splitlines() if not line.startswith("normalisation: ")]
    assert len(lines) == 1, result.err
    assert lines[0].startswith("error: ")
    assert listing(Path.cwd()) == before
    return lines[0]


def listing(folder):
    return sorted(str(path.relative_to(folder)) for path in Path(folder).rglob("*"))


def record(folder):
    return json.loads(Path(folder, "result.json").read_text())
