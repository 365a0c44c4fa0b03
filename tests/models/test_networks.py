"""The built-in networks are the published architectures: their sizes, their shapes, their weights."""

import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from whyprune.data import Loader, Normalization, calibration_indices, load_source
from whyprune.models import BUILT_INS, PadShortcut, default_normalization, load_model, load_weights

needs_data = pytest.mark.skipif("WHYPRUNE_DATA" not in os.environ, reason="WHYPRUNE_DATA names no checkpoints")


def convolutions(model):
    return [m for m in model.modules() if isinstance(m, nn.Conv2d)]


def sizes_at_convolutions(model, image_shape):
    """Rows of each convolution's output, in the order they run."""
    rows = []
    hooks = [c.register_forward_hook(lambda _m, _x, y: rows.append(y.shape[2])) for c in convolutions(model)]
    model(torch.zeros(2, *image_shape))
    for hook in hooks:
        hook.remove()
    return rows


def resnet_parameters(blocks, classes=10):
    """From He et al. 2015, section 4.2: 3x3 convolutions, and two numbers per batch-norm channel."""
    total = 3 * 16 * 9 + 2 * 16
    for inputs, outputs in ((16, 16), (16, 32), (32, 64)):
        first = inputs * outputs * 9 + outputs * outputs * 9
        total += first + (blocks - 1) * 2 * outputs * outputs * 9 + blocks * 4 * outputs
    return total + 64 * classes + classes


@pytest.mark.parametrize(("name", "blocks"), [("resnet20", 3), ("resnet56", 9)])
def test_resnets_have_the_papers_size_and_no_parameters_in_shortcuts(name, blocks):
    model = load_model(name, num_classes=None, image_shape=None)
    assert sum(p.numel() for p in model.parameters()) == resnet_parameters(blocks)
    assert len(convolutions(model)) + 1 == int(name.removeprefix("resnet"))
    shortcuts = [m for m in model.modules() if isinstance(m, PadShortcut)]
    assert [(s.stride, s.before, s.after) for s in shortcuts] == [(2, 8, 8), (2, 16, 16)]
    per_stage = 2 * blocks
    assert sizes_at_convolutions(model, (3, 32, 32)) == [32] * (1 + per_stage) + [16] * per_stage + [8] * per_stage


def test_vgg_has_13_convolutions_and_one_linear_layer():
    model = load_model("vgg16_bn", num_classes=None, image_shape=None)
    widths = [c.out_channels for c in convolutions(model)]
    assert widths == [64, 64, 128, 128, 256, 256, 256] + [512] * 6
    assert sizes_at_convolutions(model, (3, 32, 32)) == [32] * 2 + [16] * 2 + [8] * 3 + [4] * 3 + [2] * 3
    assert [(m.in_features, m.out_features) for m in model.modules() if isinstance(m, nn.Linear)] == [(512, 10)]


def test_mobilenet_keeps_the_size_until_the_third_stage():
    model = load_model("mobilenet_v2", num_classes=None, image_shape=None)
    assert len(convolutions(model)) == 52
    depthwise = [c for c in convolutions(model) if c.groups > 1]
    assert all(c.groups == c.in_channels == c.out_channels for c in depthwise)
    assert len(depthwise) == 17
    assert [c.stride[0] for c in depthwise] == [1, 1, 1, 2, 1, 1, 2] + [1] * 6 + [2, 1, 1, 1]
    assert sizes_at_convolutions(model, (3, 32, 32))[-1] == 4
    assert convolutions(model)[-1].out_channels == 1280


def test_mobilenet_projections_are_linear_and_shortcuts_need_equal_shapes():
    blocks = load_model("mobilenet_v2", num_classes=None, image_shape=None).blocks
    with_shortcut = [i for i, block in enumerate(blocks) if block.has_shortcut]
    assert with_shortcut == [2, 4, 5, 7, 8, 9, 11, 12, 14, 15]
    block, x = blocks[2], torch.randn(2, 24, 4, 4, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(block(x), x + block.layers(x))
    assert block.layers(x).min() < 0


def test_the_digits_network_has_both_kinds_of_block():
    model = load_model("digits_cnn", num_classes=None, image_shape=None)
    assert 50_000 < sum(p.numel() for p in model.parameters()) < 100_000
    assert model.block1.shortcut is None
    assert isinstance(model.block2.shortcut, PadShortcut)


@pytest.mark.parametrize("name", BUILT_INS)
def test_classes_and_channels_are_the_datas(name):
    shape = (2, 32, 32)
    model = load_model(name, num_classes=7, image_shape=shape)
    assert not model.training
    assert model(torch.zeros(3, *shape)).shape == (3, 7)
    assert all(c.bias is None for c in convolutions(model))


@pytest.mark.parametrize("name", BUILT_INS)
def test_images_do_not_influence_each_other(name):
    shape = BUILT_INS[name].image_shape
    model = load_model(name, num_classes=None, image_shape=None)
    x = torch.randn(3, *shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        together, alone = model(x), torch.cat([model(one[None]) for one in x])
    assert torch.allclose(together, alone, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", BUILT_INS)
def test_fresh_weights_keep_the_scale(name):
    """The logits of a fresh network in training mode neither vanish nor explode (He et al. 2015)."""
    torch.manual_seed(0)
    model = load_model(name, num_classes=None, image_shape=None).train()
    logits = model(torch.randn(16, *BUILT_INS[name].image_shape))
    assert 0.01 < logits.std() < 100


@given(st.integers(1, 3), st.integers(0, 4), st.integers(0, 4))
def test_a_pad_shortcut_keeps_every_strideth_pixel_and_reads_its_attributes(stride, before, after):
    x = torch.randn(2, 3, 7, 5)
    shortcut = PadShortcut(stride, before=1, after=1)
    shortcut.before, shortcut.after = before, after
    y = shortcut(x)
    assert y.shape == (2, before + 3 + after, math.ceil(7 / stride), math.ceil(5 / stride))
    for row in range(y.shape[2]):
        for column in range(y.shape[3]):
            assert torch.equal(y[:, before : before + 3, row, column], x[:, :, row * stride, column * stride])
    assert not y[:, :before].any()
    assert not y[:, before + 3 :].any()
    assert not list(shortcut.parameters())


@pytest.mark.data
@needs_data
@pytest.mark.parametrize(
    ("name", "percent"),
    [("resnet20", 91.73), ("resnet56", 93.39)],
)
def test_resnets_reach_the_accuracy_of_their_card(name, percent):
    folder = Path(os.environ["WHYPRUNE_DATA"])
    source = load_source(f"parquet:{folder / 'cifar10'}")
    model = load_model(name, num_classes=source.num_classes, image_shape=source.image_shape)
    weights = folder / "checkpoints" / f"cifar10-{name}.safetensors"
    load_weights(model, weights)
    card = Normalization.from_card(weights.with_suffix(".json"))
    built_in = default_normalization(name)
    assert (card.mean, card.std) == (built_in.mean, built_in.std)
    images = 400
    batches = Loader(source.test, card, 100, calibration_indices(len(source.test), images, seed=0))
    with torch.no_grad():
        correct = sum(int((model(x).argmax(1) == y).sum()) for x, y in batches)
    error = math.sqrt(percent * (100 - percent) / images)
    assert abs(100 * correct / images - percent) < 3.3 * error  # fails by chance once in 1,000 draws


def test_default_normalization_is_the_built_ins_alone():
    digits = default_normalization("digits_cnn")
    pixels = load_source("digits").train.batch(np.arange(1297))[0].double() / 255
    assert digits.mean == pytest.approx((pixels.mean().item(),))
    assert digits.std == pytest.approx((pixels.std(correction=0).item(),))
    for name, built_in in BUILT_INS.items():
        assert len(default_normalization(name).mean) == built_in.image_shape[0]
    assert default_normalization("timm:resnet18") is None
    assert default_normalization("package:factory") is None
