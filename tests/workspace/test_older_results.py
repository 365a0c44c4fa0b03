"""Result folders written by version 0.1.0, before methods had parts, still load, evaluate, report and export."""

import shutil
from pathlib import Path

import pytest
import torch

import whyprune
from cli.command_line import run as command
from whyprune.models import load_model
from whyprune.results import RunResult
from whyprune.workspace.folder import evaluate_folder, load_pruned, read_record, report_folder

HERE = Path(__file__).parent


@pytest.fixture
def folder(tmp_path):
    return Path(shutil.copytree(HERE / "older_result", tmp_path / "half"))


def test_an_older_folder_loads_and_has_the_accuracy_that_it_says(folder):
    record = read_record(folder)
    assert evaluate_folder(folder, "digits", progress=False).top1_percent == pytest.approx(record.pruned.top1_percent)
    fresh = load_model("digits_cnn", num_classes=10, image_shape=(1, 8, 8))
    loaded = whyprune.load(fresh, folder, example_inputs=torch.zeros(2, 1, 8, 8))
    assert sum(p.numel() for p in loaded.parameters()) == record.pruned.params
    x = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(loaded.eval()(x), load_pruned(folder).eval()(x))


def test_an_older_folder_is_reported_again(folder):
    page = report_folder(folder).read_text()
    assert "causal" in page
    assert read_record(folder).training == []


def test_an_older_record_of_a_recovery_is_read():
    record = RunResult.model_validate_json((HERE / "older_recovered.json").read_bytes())
    assert record.recovery[0].validation_top1_percent is not None
    assert record.recovery[0].penalty is None
    assert record.asked["recovery"]["holdout"] == 0.2


def test_the_commands_take_an_older_folder(folder):
    for words in (["evaluate", folder, "--data", "digits"], ["report", folder]):
        assert command(*words).code == 0
