"""One small trained network and one finished run for all tests of the command line."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from safetensors.torch import save_file
from typer.testing import CliRunner

from whyprune.cli import app
from whyprune.data import load_source
from whyprune.models import load_model, train_digits

# A run of seconds: no response curves, few images, nothing timed.
QUICK = ("--method", "magnitude-l2", "--calibration-images", "64", "--no-latency", "--no-onnx")
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


@pytest.fixture(scope="session")
def weights(tmp_path_factory):
    """Weights of a digits network that has learned its task."""
    source = load_source("digits")
    model = load_model("digits_cnn", num_classes=10, image_shape=source.image_shape)
    train_digits(model, source, seed=0)
    path = tmp_path_factory.mktemp("weights") / "digits.safetensors"
    save_file(model.state_dict(), path)
    return path


@pytest.fixture(scope="session")
def prune(weights):
    """The start of a quick `whyprune prune` on digits."""
    return ("prune", "digits_cnn", "--weights", weights, "--data", "digits", "--budget", "macs=0.5", *QUICK)


@pytest.fixture(scope="session")
def finished(prune, tmp_path_factory):
    """A finished run with everything: its folder and what it printed."""
    folder = tmp_path_factory.mktemp("finished") / "out"
    result = run(*prune, "--latency", "--onnx", "--json", "--out", folder)
    assert result.code == 0, result.err
    return SimpleNamespace(folder=folder, out=result.out, err=result.err)


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty current directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path
