"""`devices bundle` and `devices import`: from a finished run to a device carried by hand, and back."""

import json
import shutil
import subprocess
import sys

import pytest
from command_line import listing, refused, run

pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def carried(finished, weights, tmp_path_factory):
    """A bundle of the dense network and the finished run's, run here as a device would."""
    folder = tmp_path_factory.mktemp("carried")
    shutil.copytree(finished.folder, folder / "half")
    home = folder / "home.tar.gz"
    asked = ("--threads", "1", "--batch-size", "2", "--repeats", "20", "--seconds", "0.5")
    made = run(
        "devices", "bundle", "digits_cnn", folder / "half", "--weights", weights, "--out", home, *asked, "--json"
    )
    assert made.code == 0, made.err
    assert json.loads(made.out) == {"bundle": str(home)}
    shutil.unpack_archive(home, folder, filter="data")
    done = subprocess.run([sys.executable, folder / "home" / "runner.py"], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return home, folder / "home"


def test_a_bundle_is_measured_elsewhere_and_imported(carried):
    home, away = carried
    said = json.loads(run("devices", "import", away / "record.json", "--bundle", home, "--device", "pi", "--json").out)
    record = json.loads((away / "record.json").read_text())
    assert said["device"] == "pi"
    assert said["kind"] == "measured"
    assert said["samples_ms"] == record["samples_ms"]
    assert list(said["latency"]) == ["digits_cnn", "half"]
    assert said["latency"]["half"]["batch_size"] == 2
    assert said["size_bytes"]["half"] < said["size_bytes"]["digits_cnn"]
    low, high = said["ratios"]["digits_cnn over half"]["interval"]
    assert low <= said["ratios"]["digits_cnn over half"]["speedup"] <= high
    shown = run("devices", "import", away, "--device", "pi")
    assert shown.code == 0
    assert [line.split()[0] for line in shown.out.splitlines()] == ["pi", "network", "digits_cnn", "half", "digits_cnn"]


def test_what_was_changed_on_the_way_is_refused(carried, here):
    _, away = carried
    shutil.copytree(away, "back")
    text = (here / "back" / "record.json").read_text()
    (here / "back" / "record.json").write_text(text.replace('"threads": 1', '"threads": 2'))
    assert "record.json was changed after it was written" in refused("devices", "import", "back")
    assert "cannot read no/record.json" in refused("devices", "import", "no/record.json")
    shutil.copy(away / "record.json", "back")
    (here / "back" / "spec.json").unlink()
    assert "the bundle is not beside back/record.json" in refused("devices", "import", "back/record.json")


def test_what_cannot_be_bundled_is_refused(carried, finished, weights, here):
    def message(*arguments):
        return refused("devices", "bundle", *arguments, "--out", "bundle")

    assert "untrained" in message("digits_cnn")
    assert "give one name" in message("digits_cnn", "resnet20", "--weights", weights)
    assert "different shapes" in message("toys:branching", finished.folder, "--input-shape", "3,9,9")
    assert "there is no model 'resnet21'" in message("resnet21")
    assert "called" in message(finished.folder, finished.folder)
    (here / "bundle").mkdir()
    assert "exists" in message(finished.folder)
    assert listing(here) == ["bundle"]
