"""A TOML file can hold every option; flags win over it, and typing errors are found."""

from pathlib import Path

import pytest
from command_line import record, refused, run


@pytest.fixture
def config(here, weights):
    def write(**more):
        values = {
            "model": "digits_cnn",
            "weights": str(weights),
            "data": "digits",
            "budget": "macs=0.6",
            "calibration-images": 64,
            "method": "random",
            "no-latency": True,
            "onnx": False,
            "out": "from_file",
        } | more
        Path("c.toml").write_text("".join(f"{key} = {_toml(value)}\n" for key, value in values.items()))
        return ("prune", "--config", "c.toml")

    return write


def _toml(value):
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "{" + ", ".join(f"{k} = {_toml(v)}" for k, v in value.items()) + "}"
    return str(value) if not isinstance(value, str) else f'"{value}"'


def test_the_file_alone_is_enough(config):
    assert run(*config(seed=7, ignore=["conv1"], mean=[0.25], std=[0.5])).code == 0
    kept = record("from_file")
    assert kept["seeds"] == {"seed": 7}
    assert kept["asked"]["budget"] == "macs=0.6"
    assert kept["asked"]["ignore"] == ["conv1"]
    assert kept["normalization"]["mean"] == [0.25]
    assert kept["dense"]["latency"] is None
    assert not Path("from_file/model.onnx").exists()


def test_flags_win(config):
    flags = ("--seed", "2", "--budget", "macs=0.9", "--out", "from_flag", "--method", "magnitude-l1")
    assert run(*config(seed=7, budget={"macs": 0.6, "params": 0.9}), *flags).code == 0
    kept = record("from_flag")
    assert kept["seeds"] == {"seed": 2}
    assert kept["asked"]["budget"] == "macs=0.9"
    assert kept["asked"]["method"] == "magnitude-l1"
    assert kept["asked"]["calibration_images"] == 64


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"calibration_image": 3}, "did you mean 'calibration_images'?"),
        ({"learning-rat": 3}, "did you mean 'learning_rate'?"),
        ({"warmup": 0.1}, "the option 'warmup' is called 'warmup-fraction' now"),
        ({"holdout": 0.1}, "the option 'holdout' is called 'validation-fraction' now"),
        ({"mixup": 0.1}, "the option 'mixup' is called 'mixup-alpha' now"),
        ({"zzz": 3}, "the options are"),
        ({"config": "c.toml"}, "no option 'config'"),
    ],
)
def test_unknown_keys_name_the_nearest(config, more, message):
    arguments = config(**more)
    assert message in refused(*arguments)


def test_wrong_values_are_refused(config):
    for more in ({"seed": "x"}, {"method": "magic"}, {"calibration_images": 1}, {"seed": -1}):
        result = run(*config(**more))
        assert result.code == 2
        assert next(iter(more)).replace("_", "-") in result.err
        assert not Path("from_file").exists()


@pytest.mark.parametrize(("text", "message"), [("a = ", "no TOML"), (None, "cannot read")])
def test_unreadable_files_are_refused(here, text, message):
    if text is not None:
        Path("c.toml").write_text(text)
    assert message in refused("prune", "--config", "c.toml")


def test_what_does_nothing_is_refused_in_a_file_too(config):
    assert "--learning-rate does nothing without --finetune-epochs" in refused(*config(learning_rate=0.1))
