"""The file runs in ONNX Runtime at any batch size and agrees with PyTorch, or it is not written."""

import os
import warnings

import numpy as np
import pytest
import torch
from torch import nn

from whyprune.data.batches import Batch
from whyprune.devices import export_onnx, onnx_file
from whyprune.errors import InputError, MissingDependencyError, TraceError, VerificationError

ort = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.head = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 5)

    def forward(self, x, scale=None):
        y = self.norm(self.conv(x)).relu().mean((2, 3))
        return {"logits": self.head(y if scale is None else y * scale[:, None]), "features": y}


class FixedBatch(nn.Module):
    def forward(self, x):
        return x.view(2, 12) * 2


class NoOnnxOperator(nn.Module):
    def forward(self, x):
        return torch.linalg.svdvals(x)


def image_batch(n=1):
    return Batch((torch.randn(n, 3, 8, 8, generator=torch.Generator().manual_seed(n)),), {})


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    torch.manual_seed(0)
    model, folder = Small(), tmp_path_factory.mktemp("onnx")
    example = Batch(image_batch().args, {"scale": torch.ones(1)})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return model, folder, export_onnx(model, example, folder / "model.onnx")


def test_one_file_agrees_with_pytorch_at_a_new_batch_size(exported):
    model, folder, difference = exported
    assert os.listdir(folder) == ["model.onnx"]
    assert 0 <= difference < 1e-5
    assert model.training
    x, scale = image_batch(7).args[0], torch.linspace(0, 2, 7)
    session = ort.InferenceSession(str(folder / "model.onnx"), providers=["CPUExecutionProvider"])
    feeds = dict(zip([i.name for i in session.get_inputs()], (x.numpy(), scale.numpy()), strict=True))
    found = session.run(None, feeds)
    with torch.inference_mode():
        expected = model.eval()(x, scale)
    model.train()
    for f, e in zip(found, expected.values(), strict=True):
        np.testing.assert_allclose(f, e.numpy(), atol=1e-5)


def test_export_says_nothing(tmp_path, capfd):
    export_onnx(nn.Linear(3, 2), Batch((torch.randn(2, 3),), {}), tmp_path / "m.onnx")
    captured = capfd.readouterr()
    assert captured.out + captured.err == ""


def test_attention_whose_fused_kernel_lays_memory_out_otherwise_is_written(tmp_path):
    transformers = pytest.importorskip("transformers")
    small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    config = transformers.BeitConfig(image_size=16, patch_size=8, use_relative_position_bias=True, **small)
    model = transformers.BeitForImageClassification(config)
    assert export_onnx(model, Batch((torch.randn(2, 3, 16, 16),), {}), tmp_path / "m.onnx", batch_sizes=(3,)) < 1e-5


def test_another_network_is_told_from_the_exported_one(tmp_path):
    torch.manual_seed(0)
    model, other = nn.Linear(3, 2), nn.Linear(3, 2)
    with pytest.raises(VerificationError, match="differs from PyTorch"):
        export_onnx(model, Batch((torch.randn(2, 3),), {}), tmp_path / "m.onnx", check_against=other)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("model", [FixedBatch(), NoOnnxOperator()], ids=lambda m: type(m).__name__)
def test_what_cannot_be_exported_is_one_error_and_no_file(model, tmp_path):
    with pytest.raises(TraceError, match=f"{type(model).__name__} cannot be written as ONNX"):
        export_onnx(model, Batch((torch.randn(2, 3, 4),), {}), tmp_path / "m.onnx")
    assert os.listdir(tmp_path) == []


def test_inputs_that_do_not_fit_are_the_callers_mistake(tmp_path):
    with pytest.raises(InputError, match=r"failed on inputs \(2, 4\)"):
        export_onnx(nn.Linear(3, 2), Batch((torch.zeros(2, 4),), {}), tmp_path / "m.onnx")
    with pytest.raises(InputError, match="batch_sizes"):
        export_onnx(nn.Linear(3, 2), Batch((torch.zeros(2, 3),), {}), tmp_path / "m.onnx", batch_sizes=())


def test_a_missing_extra_is_named(monkeypatch, tmp_path):
    def missing(name):
        raise ImportError(name)

    monkeypatch.setattr(onnx_file, "import_module", missing)
    with pytest.raises(MissingDependencyError, match=r"whyprune\[onnx\]"):
        export_onnx(nn.Linear(3, 2), Batch((torch.zeros(2, 3),), {}), tmp_path / "m.onnx")
