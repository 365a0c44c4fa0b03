"""`inspect`, `demo`, `--version` and `--help`."""

import json
import shutil

import pytest
import torch
import typer.main
from command_line import listing, record, run

import whyprune as wp
from whyprune.cli import demo as demo_command
from whyprune.cli.app import app
from whyprune.models import digits, load_model
from whyprune.workspace import setup


def test_inspect_tells_what_tracing_finds():
    said = json.loads(run("inspect", "digits_cnn", "--json").out)
    network = wp.trace(load_model("digits_cnn", num_classes=10, image_shape=(1, 8, 8)), torch.randn(2, 1, 8, 8))
    assert said["units"] == len(network.units)
    assert {g["name"]: g["units"] for g in said["groups"]} == {g.name: len(g.units) for g in network.groups}
    assert said["dense"]["macs"] == network.cost().macs
    assert {(r["where"], r["channels"]) for r in said["refusals"]} == {(r.where, r.channels) for r in network.refusals}
    assert {a["attribute"] for a in said["attributes"]} == {"before", "after"}


def test_inspect_lists_the_residual_blocks():
    said = json.loads(run("inspect", "digits_cnn", "--json").out)
    assert said["blocks"] == [{"name": "block1", "groups": ["block1.conv1"]}]
    assert "Residual blocks that can go as a whole: block1" in " ".join(run("inspect", "digits_cnn").out.split())


def test_inspect_takes_the_image_size_into_account():
    def macs(*arguments):
        return json.loads(run("inspect", "resnet20", "--json", *arguments).out)["dense"]["macs"]

    small, large = macs("--image-size", "8"), macs("--input-shape", "3,16,16")
    head = 64 * 10
    assert large - head == 4 * (small - head)


def test_inspect_shows_groups_refusals_and_attributes():
    shown = " ".join(run("inspect", "digits_cnn").out.split())
    for words in ("block1.conv1", "the network's output is kept as it is", "block2.shortcut.before (now 16)"):
        assert words in shown


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("resnet21",), "resnet20"),
        (("resnet20", "--input-shape", "3,32"), "C,H,W"),
        (("toys:branching",), "--input-shape"),
        (("vgg16_bn", "--image-size", "16"), "at least 32x32"),
    ],
)
def test_inspect_refuses(arguments, message):
    result = run("inspect", *arguments)
    assert result.code == 2
    assert message in result.err
    assert result.out == ""


def test_the_demo_replaces_its_own_folder_and_no_other(here, monkeypatch, finished):
    monkeypatch.setattr(digits, "EPOCHS", 1)
    monkeypatch.setattr(demo_command, "EPOCHS", 1)
    monkeypatch.setattr(setup, "DEMO_CALIBRATION_IMAGES", 32)
    shutil.copytree(finished.folder, here / "demo")
    assert run("demo").code == 2
    earlier = record("demo")
    earlier["asked"]["demo"] = True
    (here / "demo" / "result.json").write_text(json.dumps(earlier))
    result = run("demo", "--json")
    assert result.code == 0, result.err
    kept = record("demo")
    assert kept["pruned"]["macs"] <= 0.5 * kept["dense"]["macs"]
    assert kept["asked"]["method"] == "causal"
    assert "demo/report.html" in listing(here)
    assert run("evaluate", "demo", "--data", "digits").code == 0
    (here / "other").mkdir()
    (here / "other" / "precious").touch()
    refused = run("demo", "--out", "other")
    assert refused.code == 2
    assert "other exists and is no earlier demo" in refused.err
    assert listing(here / "other") == ["precious"]


def test_version():
    assert run("--version").out.strip() == f"whyprune {wp.__version__}"


@pytest.mark.parametrize("command", [c.callback.__name__ for c in app.registered_commands])
def test_every_option_is_explained(command):
    help_text = run(command, "--help")
    assert help_text.code == 0
    for parameter in typer.main.get_command(app).commands[command].params:
        assert parameter.help, parameter.name
