"""Earlier names of settings are refused with the new one; earlier records are read, earlier checkpoints are not."""

import json

import pytest
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from whyprune.errors import FormatError, InputError
from whyprune.recovery import Recovery, recover
from whyprune.recovery.checkpoint import HEADER
from whyprune.results import RecoveryEpoch


@pytest.mark.parametrize(
    ("old", "new"), [("warmup", "warmup_fraction"), ("holdout", "validation_fraction"), ("mixup", "mixup_alpha")]
)
def test_an_earlier_name_is_refused_with_the_new_one(old, new):
    with pytest.raises(InputError, match=f"the field '{old}' is called '{new}' now"):
        Recovery(**{old: 0.1})


def test_epochs_of_earlier_records_are_read():
    old = {"epoch": 1, "train_loss": 0.5, "holdout_top1_percent": 91.5, "learning_rate": 0.1, "seconds": 2.0}
    found = RecoveryEpoch.model_validate(old)
    assert found.validation_top1_percent == 91.5
    assert found.penalty is None
    assert RecoveryEpoch.model_validate_json(found.model_dump_json()) == found


def test_a_checkpoint_of_an_earlier_version_is_refused_by_its_version(network, dataset, tmp_path):
    path = tmp_path / "recovery.safetensors"
    run = {"checkpoint": path, "progress": False}
    recover(network, dataset, Recovery(epochs=1), **run)
    with safe_open(path, framework="pt") as file:
        header = json.loads(file.metadata()[HEADER])
    header["asked"], header["schema_version"] = header.pop("origin"), 1
    save_file(load_file(path), path, {HEADER: json.dumps(header)})
    with pytest.raises(FormatError, match=r"of another version of whyprune \(format 1, this one reads 2\).*resume"):
        recover(network, dataset, Recovery(epochs=1), resume=True, **run)
