"""`whyprune devices`: what is listed can be shown, mistakes are answered in one line, a profile is written whole."""

import json

import pytest
import typer.main
from command_line import listing, refused, run

from whyprune.cli.app import app
from whyprune.devices.profile import FOLDER_VARIABLE, profiles


def test_every_device_that_is_listed_can_be_shown():
    listed = json.loads(run("devices", "list", "--json").out)["devices"]
    assert [d["name"] for d in listed] == list(profiles())
    for entry in listed:
        shown = json.loads(run("devices", "show", entry["name"], "--json").out)
        assert {k: shown[k] for k in entry} == entry


@pytest.mark.parametrize("name", ["pi4", "edge", "local"])
def test_a_device_is_shown_with_its_kind_and_its_sources(name):
    said = " ".join(run("devices", "show", name).out.split())
    profile = profiles()[name]
    assert profile.kind in said
    for source in profile.sources:
        assert source.what in said
    assert ("error" in said) == (profile.kind == "predicted")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("show", "pi9"), "pi4"),
        (("show", "local-onnx"), "no runtime"),
        (("show", "ssh://pi#4t"), "calibrate NAME --device ssh://pi#4t"),
        (("show", "ssh://pi#4"), "#Nt-bN"),
        (("list", "--profiles", "nowhere"), "nowhere"),
        (("calibrate", "Mine"), "lower-case"),
        (("calibrate", "mine", "--out", "other.json"), "mine.json"),
        (("calibrate", "mine", "--out", "nowhere/mine.json"), "nowhere"),
        (("calibrate", "mine", "--device", "pi4"), "predicted"),
        (("calibrate", "mine", "--device", "here"), "no device"),
    ],
)
def test_mistakes_are_answered_in_one_line(arguments, said, here):
    assert said in refused("devices", *arguments)


def test_a_broken_profile_is_named(here, monkeypatch):
    (here / "own").mkdir()
    (here / "own" / "board.json").write_text("{")
    monkeypatch.setenv(FOLDER_VARIABLE, "own")
    assert "board.json" in refused("devices", "list")


def test_a_profile_is_calibrated_and_then_listed(here):
    pytest.importorskip("onnxruntime")
    result = run("devices", "calibrate", "mine", "--device", "local-torch-1t", "--layers", "10", "--json")
    assert result.code == 0, result.err
    said = json.loads(result.out)
    assert listing(here) == ["mine.json"]
    assert said["profile"]["rooflines"][0]["errors"][0]["count"] == 10
    listed = json.loads(run("devices", "list", "--profiles", here, "--json").out)["devices"]
    assert {"name": "mine", "kind": "predicted", "runtime": "torch"}.items() <= listed[-1].items()


@pytest.mark.parametrize("command", ["list", "show", "calibrate"])
def test_every_option_is_explained(command):
    assert run("devices", command, "--help").code == 0
    for parameter in typer.main.get_command(app).commands["devices"].commands[command].params:
        assert parameter.help, parameter.name
