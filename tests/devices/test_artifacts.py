"""Files per format: written whole or not at all, by the same numbers as PyTorch, and traps that end in one message."""

import os
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from made_up_spec import onnx_file
from torch import nn

import tiny
from whyprune.data.batches import Batch
from whyprune.devices import LocalDevice, accuracy
from whyprune.devices.artifacts import FORMATS, OnnxNetwork, check_onnx, quantize_onnx, write_artifact
from whyprune.devices.runner import RefusedError
from whyprune.devices.runtimes import RUNTIMES
from whyprune.errors import FormatError, InputError, MissingDependencyError, TraceError, VerificationError

pytest.importorskip("onnxruntime")
QUICK = {"repeats": 3, "seconds": 0.5, "warmup": 1, "each_alone": False}


class Every(nn.Module):
    """Every second row, every third column, from the first or from a later one."""

    def __init__(self, start=0):
        super().__init__()
        self.start, self.conv = start, nn.Conv2d(3, 4, 3, padding=1)

    def forward(self, x):
        return self.conv(x)[:, :, self.start :: 2, ::3].relu()


def images(n=1, channels=3, size=12):
    return Batch((torch.randn(n, channels, size, size, generator=torch.Generator().manual_seed(n)),), {})


def needs(name):
    without = [module for module in FORMATS[name].modules if find_spec(module) is None]
    if without:
        pytest.skip(f"{', '.join(without)} not installed: pip install 'whyprune[{FORMATS[name].extra}]'")


@pytest.mark.parametrize("name", [n for n in FORMATS if n not in ("executorch", "litert")])
def test_a_network_becomes_the_formats_files_and_nothing_else(name, tmp_path, capfd):
    needs(name)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).train()
    before = [t.clone() for t in model.state_dict().values()]
    artifact = write_artifact(name, model, images(), tmp_path / "net.any")
    assert sorted(os.listdir(tmp_path)) == sorted(f"net{suffix}" for suffix in FORMATS[name].suffixes)
    assert artifact.path == tmp_path / f"net{FORMATS[name].suffixes[0]}"
    assert artifact.size_bytes == sum(p.stat().st_size for p in tmp_path.iterdir())
    assert model.training
    assert all(torch.equal(a, b) for a, b in zip(before, model.state_dict().values(), strict=True))
    assert "".join(capfd.readouterr()) == ""


@pytest.mark.parametrize("name", ["onnx", "torch-export", "openvino"])
def test_what_cannot_be_written_is_one_error_and_no_file(name, tmp_path):
    needs(name)

    class Failing(nn.Module):
        def forward(self, x):
            if torch.jit.is_tracing() or torch.compiler.is_exporting():
                raise ValueError("no such luck")
            return x

    with pytest.raises(TraceError, match=r"Failing cannot be written as .*no such luck"):
        write_artifact(name, Failing(), images(), tmp_path / "net")
    assert os.listdir(tmp_path) == []


def test_unknown_formats_missing_packages_and_folders_are_told(tmp_path, monkeypatch):
    with pytest.raises(InputError, match="'flatbuffer'"):
        write_artifact("flatbuffer", nn.ReLU(), images(), tmp_path / "net")
    with pytest.raises(InputError, match="cannot write"):
        write_artifact("onnx", nn.ReLU(), images(), tmp_path / "none" / "net")
    monkeypatch.setattr("whyprune.devices.artifacts.formats.find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match=r"whyprune\[executorch\]"):
        write_artifact("executorch", nn.ReLU(), images(), tmp_path / "net")


def test_the_quick_file_runs_at_any_batch_size_and_agrees_with_pytorch(tmp_path):
    model = tiny.trained()
    example = Batch((tiny.digits()[0][:2],), {})
    network = OnnxNetwork(write_artifact("onnx", model, example, tmp_path / "net").path)
    inputs = tiny.digits()[0][:7]
    with torch.inference_mode():
        torch.testing.assert_close(network(inputs), model(inputs), atol=1e-5, rtol=1e-5)


def test_what_tracing_cannot_write_the_other_exporter_does(tmp_path, monkeypatch):
    export = torch.onnx.export

    def without_tracing(*args, **options):
        if not options["dynamo"]:
            raise RuntimeError("no tracing here")
        return export(*args, **options)

    monkeypatch.setattr(torch.onnx, "export", without_tracing)
    model, x = nn.Linear(3, 2), torch.randn(4, 3)
    network = OnnxNetwork(write_artifact("onnx", model, Batch((x,), {}), tmp_path / "net").path)
    torch.testing.assert_close(network(x), model(x).detach())


# --- ncnn


def test_slices_with_steps_run_in_ncnn():
    needs("ncnn")
    found = LocalDevice("ncnn", **QUICK)({"net": Every()}, images())
    assert found.max_abs_difference["net"] < 1e-5


def test_a_layer_that_ncnn_does_not_have_is_named_and_does_not_crash(tmp_path):
    needs("ncnn")
    with pytest.raises(TraceError, match=r"Every cannot be written as ncnn, which has no Tensor\.slice"):
        write_artifact("ncnn", Every(start=1), images(), tmp_path / "net")
    assert os.listdir(tmp_path) == []
    path = tmp_path / "bad.param"
    path.write_text("7767517\n2 2\nInput in0 0 1 in0\nTensor.slice s 1 1 in0 out0\n")
    path.with_suffix(".bin").write_bytes(b"")
    with pytest.raises(RefusedError, match=r"bad\.param.*does not have"):
        RUNTIMES["ncnn"].load(path, 1)


# --- ONNX files of others


@pytest.mark.parametrize(
    ("made", "says"),
    [
        ({"opset": 99}, "opset 99"),
        ({"external": "/etc/hostname"}, "'/etc/hostname', outside its folder"),
        ({"external": "../weights"}, r"'\.\./weights', outside its folder"),
        ({"external": "link"}, "'link', outside its folder"),
    ],
)
def test_unreadable_and_dangerous_files_are_refused(tmp_path, made, says):
    folder = tmp_path / "here"
    folder.mkdir()
    (folder / "link").symlink_to("/etc/hostname")
    path = onnx_file(folder / "a.onnx", **made)
    for use in (check_onnx, OnnxNetwork, lambda p: LocalDevice(**QUICK)({"net": p}, Batch((torch.ones(1, 3),), {}))):
        with pytest.raises(FormatError, match=says):
            use(path)


def test_weights_beside_the_file_are_fine(tmp_path):
    (tmp_path / "weights").write_bytes(np.float32(2).tobytes())
    check_onnx(onnx_file(tmp_path / "a.onnx", external="weights"))


@pytest.mark.parametrize("content", [b"", b"no model", b"\x08\x07" * 100])
def test_what_is_no_onnx_file_is_one_error(tmp_path, content):
    (tmp_path / "a.onnx").write_bytes(content)
    with pytest.raises(FormatError, match=r"a\.onnx"):
        check_onnx(tmp_path / "a.onnx")
    with pytest.raises(FormatError, match=r"gone\.onnx"):
        check_onnx(tmp_path / "gone.onnx")


def test_a_callable_file_refuses_nan_and_inputs_that_do_not_fit(tmp_path):
    network = OnnxNetwork(onnx_file(tmp_path / "a.onnx", 0.0, divide=True))
    with pytest.raises(VerificationError, match="NaN"):
        network(torch.zeros(2, 3))
    with pytest.raises(VerificationError, match=r"\(2, 4\)"):
        network(torch.zeros(2, 4))


# --- eight bits


@pytest.fixture(scope="module")
def digits_file(tmp_path_factory):
    folder = tmp_path_factory.mktemp("int8")
    return write_artifact("onnx", tiny.trained(), Batch((tiny.digits()[0][:2],), {}), folder / "net").path


def calibration():
    return [Batch((x,), {}) for x, _ in tiny.batches(0, 256)]


def test_quantised_files_hold_weights_of_eight_bits_and_keep_their_accuracy(digits_file, tmp_path):
    small = tmp_path / "small.onnx"
    quantize_onnx(digits_file, small, calibration())
    model = pytest.importorskip("onnx").load(small)
    of_weights = [t.data_type for t in model.graph.initializer if len(t.dims) >= 2]
    assert of_weights
    assert set(of_weights) == {model.graph.initializer[0].INT8}
    right = {
        name: accuracy(OnnxNetwork(path), tiny.batches(1000, 1797), progress=False).top1_percent
        for name, path in (("float", digits_file), ("int8", small))
    }
    assert right["float"] > 90
    assert abs(right["float"] - right["int8"]) < 3


def test_a_device_measures_in_eight_bits_and_says_how_far_they_are(digits_file):
    model, inputs = tiny.trained(), Batch((tiny.digits()[0][:1],), {})
    found = LocalDevice(calibration=calibration(), **QUICK)({"net": model}, inputs)
    assert 1e-4 < found.max_abs_difference["net"] < 10
    assert found.size_bytes["net"] != digits_file.stat().st_size


def test_images_that_do_not_fit_and_none_are_refused(digits_file, tmp_path):
    x = tiny.digits()[0][:4]
    for batches, says in (([], "no images"), ([Batch((x, x), {})], "2 inputs")):
        with pytest.raises(InputError, match=says):
            quantize_onnx(digits_file, tmp_path / "bad.onnx", batches)
    with pytest.raises(FormatError, match=r"cannot be quantised"):
        quantize_onnx(digits_file, tmp_path / "bad.onnx", [Batch((x[:, :, :3],), {})] * 2)
    assert os.listdir(tmp_path) == []
