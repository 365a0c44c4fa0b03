"""Every profile that is shipped is complete and says where its figures come from; no other file is taken for one."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whyprune.devices.fit import PARAMETERS, default_prior
from whyprune.devices.profile import BUILT_IN, FOLDER_VARIABLE, Profile, profiles, read_profile, write_profile
from whyprune.devices.registry import device
from whyprune.errors import FormatError, InputError

NAMES = sorted(path.stem for path in BUILT_IN.glob("*.json"))


@pytest.mark.parametrize("name", NAMES)
def test_every_shipped_profile_is_complete(name):
    profile = read_profile(BUILT_IN / f"{name}.json")
    assert profile.name == name
    figures = {figure.name for figure in profile.figures}
    assert all(any(figure in source.what for source in profile.sources) for figure in figures), "a figure has no source"
    if profile.kind == "predicted":
        assert any(source.what == "all rates" and source.url for source in profile.sources)
        assert all(roofline.errors and roofline.fitted_to for roofline in profile.rooflines)
        assert device(name).kind == "predicted"
        assert device(f"{name}-{profile.threads}t-b4").name == f"{name}-{profile.threads}t-b4"


def test_the_devices_of_the_issue_are_there():
    kinds = {name: profile.kind for name, profile in profiles().items()}
    assert kinds["local"] == "measured"
    assert {name for name, kind in kinds.items() if kind == "emulated"} == {"laptop", "pc", "edge"}
    assert {"pi-zero-2w", "pi3", "pi4", "pi5", "jetson-nano", "jetson-orin-nano"} <= {
        name for name, kind in kinds.items() if kind == "predicted"
    }
    assert all(any(name.startswith(start) for name in kinds) for start in ("phone-", "laptop-", "pc-"))


def test_a_user_can_add_and_replace_profiles(tmp_path, monkeypatch):
    mine = profiles()["pi4"].model_copy(update={"name": "my-board", "title": "Mine"})
    write_profile(mine, tmp_path / "my-board.json")
    write_profile(profiles()["pi5"].model_copy(update={"title": "A warm one"}), tmp_path / "pi5.json")
    assert profiles(tmp_path)["my-board"] == mine
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path))
    assert device("my-board-1t").name == "my-board-1t"
    assert profiles()["pi5"].title == "A warm one"
    assert profiles()["pi4"] == read_profile(BUILT_IN / "pi4.json")
    with pytest.raises(InputError, match="no folder"):
        profiles(tmp_path / "none")


@pytest.mark.parametrize("name", ["pi4", "edge", "local"])
def test_a_written_profile_is_read_back(name, tmp_path):
    write_profile(profiles()[name], tmp_path / f"{name}.json")
    assert read_profile(tmp_path / f"{name}.json") == profiles()[name]


def test_a_predicted_device_answers_only_for_what_its_figures_say():
    with pytest.raises(InputError, match="pi4-1t or pi4-4t"):
        device("pi4-3t")
    with pytest.raises(InputError, match="ncnn, not openvino"):
        device("pi4-openvino")


GOOD = json.loads((BUILT_IN / "pi4.json").read_text())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"kind": "guessed"}, "kind"),
        ({"surprise": 1}, "surprise"),
        ({"threads": 3}, "threads is 3"),
        ({"sources": []}, "at least one source"),
        ({"rooflines": []}, "needs a roofline"),
        ({"name": "Pi 4"}, "name"),
        ({"kind": "measured"}, "roofline"),
        ({"limits": {"threads": 1}}, "limits"),
    ],
)
def test_a_wrong_profile_is_refused_by_field(change, said, tmp_path):
    path = tmp_path / "pi4.json"
    path.write_text(json.dumps(GOOD | change))
    with pytest.raises(FormatError) as caught:
        read_profile(path)
    assert said in str(caught.value)
    assert "pi4.json" in str(caught.value)


@pytest.mark.parametrize("value", [-1.0, float("inf"), float("nan"), "fast", None])
def test_rates_that_are_no_rates_are_refused(value, tmp_path):
    changed = json.loads(json.dumps(GOOD))
    changed["rooflines"][0]["rates"]["ms_per_mbyte"] = value
    path = tmp_path / "pi4.json"
    path.write_text(json.dumps(changed))
    with pytest.raises(FormatError, match="ms_per_mbyte"):
        read_profile(path)


@given(st.binary(max_size=200))
def test_any_other_file_is_refused_in_one_message(content):
    import tempfile
    from pathlib import Path

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "board.json")
        path.write_bytes(content)
        with pytest.raises(FormatError, match="board"):
            read_profile(path)


def test_a_profile_is_named_after_its_file(tmp_path):
    write_profile(profiles()["pi4"], tmp_path / "pi4.json")
    (tmp_path / "pi4.json").rename(tmp_path / "pi6.json")
    with pytest.raises(FormatError, match="named after"):
        read_profile(tmp_path / "pi6.json")


def test_the_shipped_prior_fits_the_parameters():
    prior = default_prior()
    assert prior.parameters == PARAMETERS
    assert len(prior.mean) == len(prior.covariance) == len(PARAMETERS)


def test_emulated_needs_limits():
    with pytest.raises(ValueError, match="limits"):
        Profile(name="a", kind="emulated", title="A")
