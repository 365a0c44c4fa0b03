"""Every mistake ends in one message and exit code 2, and leaves nothing behind."""

import errno
import json
import resource
import shutil
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from command_line import QUICK, listing, record, refused, run
from safetensors.torch import load_file, save_file

import whyprune as wp
from whyprune.errors import InputError
from whyprune.models import load_model
from whyprune.pipeline import result as result_module

pytestmark = pytest.mark.usefixtures("here")
TOY = ("--mean", "0.3", "--std", "0.37")


def prune_with(weights, *more, model="digits_cnn", data="digits", budget="macs=0.5"):
    return (
        "prune",
        model,
        "--weights",
        weights,
        "--data",
        data,
        "--budget",
        budget,
        *QUICK,
        *more,
        "--out",
        "out",
    )


def test_missing_weights():
    assert "there is no weights file nowhere.safetensors" in refused(*prune_with("nowhere.safetensors"))
    assert "untrained" in refused("prune", "digits_cnn", "--data", "digits", "--budget", "macs=0.5", "--out", "out")


def test_truncated_weights(weights):
    Path("cut.safetensors").write_bytes(weights.read_bytes()[:10_000])
    assert "no whole safetensors file" in refused(*prune_with("cut.safetensors"))


def test_keys_that_do_not_fit(weights):
    tensors = load_file(weights)
    tensors["extra"] = tensors.pop("linear.weight")
    save_file(tensors, "other.safetensors")
    message = refused(*prune_with("other.safetensors"))
    assert "linear.weight" in message
    assert "extra" in message
    assert "has shape (10,), the model's is (5,)" in refused(*prune_with(weights, "--num-classes", "5"))


def test_wrong_image_size(weights):
    assert "at least 32x32" in refused(*prune_with(weights, model="vgg16_bn"))
    assert "cannot resize" in refused(*prune_with(weights, "--image-size", "16"))


def test_empty_data(weights):
    assert "empty" in refused(*prune_with(weights, data="toys:empty"))
    Path("folder").mkdir()
    assert "folder" in refused(*prune_with(weights, data="parquet:folder"))


def test_data_of_one_image(weights):
    assert "1 image" in refused(*prune_with(weights, data="toys:one_image"))


def test_nan_images(weights):
    assert "image 7 holds NaN" in refused(*prune_with(weights, data="toys:nan_images"))


def test_labels_out_of_range(weights):
    message = refused(*prune_with(weights, "--num-classes", "10", data="toys:wrong_labels"))
    assert "out of range" in message
    assert "12" in message


def test_an_impossible_budget_says_the_smallest_reachable(weights):
    message = refused(*prune_with(weights, budget="macs=0.0001"))
    smallest = float(message.rpartition(" ")[2])
    assert 0.0001 < smallest < 0.1
    assert run(*prune_with(weights, budget=f"macs={smallest}")).code == 0
    assert record("out")["pruned"]["macs"] <= smallest * record("out")["dense"]["macs"]


@pytest.mark.parametrize("budget", ["macs", "macs=x", "flops=0.5", "macs=-1", ""])
def test_budgets_that_make_no_sense(weights, budget):
    assert "budget" in refused(*prune_with(weights, budget=budget))


def test_a_model_in_training_mode():
    model = load_model("digits_cnn", num_classes=10, image_shape=(1, 8, 8)).train()
    images = torch.randn(16, 1, 8, 8)
    with pytest.raises(InputError, match=r"training mode: call model.eval\(\)"):
        wp.prune(model, [images], budget=wp.Budget(macs=0.5), example_inputs=images[:2], progress=False)


def test_an_output_folder_that_exists(weights):
    Path("out").mkdir()
    Path("out/precious").write_text("x")
    # Even before the weights are looked for: nothing is computed in vain.
    assert "out exists" in refused(*prune_with("nowhere.safetensors"))
    assert "no result folder" in refused(*prune_with(weights, "--overwrite"))
    assert Path("out/precious").read_text() == "x"


def test_overwrite_replaces_an_earlier_result(weights):
    assert run(*prune_with(weights, "--seed", "1")).code == 0
    assert "--overwrite" in refused(*prune_with(weights, "--seed", "2"))
    assert record("out")["seeds"] == {"seed": 1}
    assert run(*prune_with(weights, "--seed", "2", "--overwrite")).code == 0
    assert record("out")["seeds"] == {"seed": 2}
    assert listing(".") == ["out", *(f"out/{p.name}" for p in sorted(Path("out").iterdir()))]


def test_a_parent_that_is_no_folder(weights):
    Path("file").touch()
    arguments = [a if a != "out" else "file/out" for a in prune_with(weights)]
    assert "no folder you can write to" in refused(*arguments)


@contextmanager
def at_most(file_bytes):
    """Files cannot grow beyond this, as on a disk that is nearly full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("file_bytes", [1_000, 40_000])
def test_a_full_disk(weights, file_bytes):
    with at_most(file_bytes):
        assert "cannot write" in refused(*prune_with(weights))


def test_a_full_disk_keeps_the_earlier_result(weights):
    assert run(*prune_with(weights, "--seed", "1")).code == 0
    with at_most(40_000):
        assert "cannot write" in refused(*prune_with(weights, "--overwrite", "--seed", "2"))
    assert record("out")["seeds"] == {"seed": 1}


def test_a_full_disk_before_recovery_leaves_nothing(weights):
    with at_most(40_000):
        assert "cannot write" in refused(*prune_with(weights, "--finetune-epochs", "1", "--accelerator", "cpu"))


def test_a_full_disk_after_recovery_loses_nothing(weights, monkeypatch):
    tuned = prune_with(weights, "--finetune-epochs", "1", "--accelerator", "cpu")
    full = OSError(errno.ENOSPC, "No space left on device")
    with monkeypatch.context() as patched:
        patched.setattr(result_module, "save_weights", lambda *_: (_ for _ in ()).throw(full))
        first = run(*tuned)
    assert first.code == 2
    assert "No space left on device" in first.err
    assert "--resume" in first.err
    assert sorted(p.name for p in Path.cwd().iterdir()) == ["out.partial"]
    assert run(*tuned, "--resume").code == 0
    assert sorted(p.name for p in Path.cwd().iterdir()) == ["out"]


@pytest.fixture
def copied(finished, here):
    """A copy of the finished run, to be spoilt."""
    shutil.copytree(finished.folder, here / "run")
    return here / "run"


def spoil(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_a_plan_for_another_model(copied):
    spoil(copied / "plan.json", lambda plan: plan.update(architecture="0" * 64))
    assert "another model" in refused("evaluate", "run", "--data", "digits")
    assert "another model" in refused("export", "run")


def test_a_plan_that_names_foreign_parameters(copied):
    spoil(copied / "plan.json", lambda plan: plan["removed"][0].update(parameter="os.system"))
    assert "'os.system'" in refused("evaluate", "run", "--data", "digits")


def test_plans_with_impossible_indices(copied):
    spoil(copied / "plan.json", lambda plan: plan["removed"][0].update(indices=[10_000]))
    assert "corrupt" in refused("evaluate", "run", "--data", "digits")
    (copied / "plan.json").write_text("{")
    assert "no valid plan" in refused("evaluate", "run", "--data", "digits")
    (copied / "plan.json").unlink()
    assert "does not exist" in refused("evaluate", "run", "--data", "digits")


def test_damaged_result_folders(copied):
    assert "result.json" in refused("evaluate", "nowhere", "--data", "digits")
    (copied / "effects.parquet").write_bytes(b"PAR1")
    assert "effects.parquet" in refused("report", "run")
    spoil(copied / "result.json", lambda kept: kept["asked"].pop("image_shape"))
    assert "whyprune.load" in refused("evaluate", "run", "--data", "digits")
    (copied / "result.json").write_text("[]")
    assert "no record of a run" in refused("report", "run")


def test_data_that_does_not_fit_the_result(copied):
    assert "images of" in refused("evaluate", "run", "--data", "toys:colour")


def test_a_model_that_cannot_be_traced():
    save_file(load_model("toys:branching", num_classes=None, image_shape=None).state_dict(), "w.safetensors")
    message = refused(*prune_with("w.safetensors", *TOY, model="toys:branching"))
    source = Path(__file__).with_name("toys.py").read_text().splitlines()
    line = 1 + next(i for i, text in enumerate(source) if "must be named" in text)
    assert f"toys.py:{line}" in message


def test_no_normalisation_is_known(weights):
    message = refused(*prune_with(weights, model="toys:interrupted"))
    assert "--mean and --std" in message
    assert "give both" in refused(*prune_with(weights, "--mean", "0.3"))
    assert "comes normalised" in refused(*prune_with(weights, *TOY, data="toys:noise"))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--ignore", "nothing"), "is named 'nothing'"),
        (("--finetune-epochs", "1", "--validation-fraction", "2"), "validation_fraction is 2.0"),
        (("--recover-between", "2"), "schedule one-shot has no rounds to train between"),
        (("--schedule", "linear:3", "--recover-between", "2"), "(2 epochs each): give recovery"),
        (("--learning-rate", "0.1"), "--learning-rate does nothing without --finetune-epochs"),
        (("--training-penalty", "bn-l1"), "--training-penalty does nothing without --training-epochs"),
        (("--training-epochs", "1", "--training-penalty-weight", "1"), "there is no penalty"),
        (("--schedule", "sometimes"), "no schedule 'sometimes'"),
        (("--calibration-images", "4"), "at least 8"),
        (("--allocation", "curves"), "response curves"),
        (("--budget", "latency=0.5"), "latency=0.5 needs a device"),
        (("--budget", "latency=0.5", "--device", "nowhere"), "no device 'nowhere'"),
        (("--budget", "energy=0.5", "--device", "local-torch-1t"), "does not measure energy"),
        (("--budget", "watts=0.5"), "memory, energy"),
        (("--mean", "0.1,0.2", "--std", "0.1,0.2"), "channel"),
    ],
)
def test_settings_that_cannot_be(weights, flags, message):
    assert message in refused(*prune_with(weights, *flags))
