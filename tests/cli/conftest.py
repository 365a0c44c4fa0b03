"""One small trained network and one finished run for all tests of the command line."""

from types import SimpleNamespace

import pytest
import torch
from command_line import QUICK, run
from safetensors.torch import save_file

from whyprune.data import load_source
from whyprune.models import load_model, train_digits


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Networks this small are slower on several threads, many times so on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


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
    result = run(*prune, "--repair", "refit", "--latency", "--onnx", "--refute", "--json", "--out", folder)
    assert result.code == 0, result.err
    return SimpleNamespace(folder=folder, out=result.out, err=result.err)


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty current directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path
