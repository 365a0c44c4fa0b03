"""`--untrained`: fresh weights by the seed for every network by name, and the run that follows."""

import pytest
import torch
from command_line import record, refused, run

from whyprune import load_model
from whyprune.workspace.configs import DataConfig
from whyprune.workspace.folder import evaluate_folder, load_pruned
from whyprune.workspace.setup import prepare

FEW = DataConfig(calibration_images=16)
PRUNE = ("prune", "digits_cnn", "--data", "digits", "--budget", "macs=0.4", "--calibration-images", "32")


def fresh(model, seed, **images):
    return prepare(model, "digits", images=FEW, seed=seed, untrained=True).model.state_dict()


def test_fresh_weights_come_from_the_seed_and_nothing_else_is_drawn():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first, again, other = (fresh("digits_cnn", seed) for seed in (3, 3, 4))
    assert torch.equal(torch.rand(3), expected)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_a_transformer_brings_along_no_weights(tmp_path):
    transformers = pytest.importorskip("transformers")
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24}
    config = transformers.ViTConfig(**sizes, image_size=8, patch_size=4, num_channels=1, num_labels=10)
    transformers.ViTForImageClassification(config).save_pretrained(tmp_path)
    spec, shape = f"transformers:{tmp_path}", (1, 8, 8)
    stored = load_model(spec, num_classes=10, image_shape=shape).state_dict()
    drawn = load_model(spec, num_classes=10, image_shape=shape, pretrained=False).state_dict()
    assert stored.keys() == drawn.keys()
    assert any(not torch.equal(stored[name], drawn[name]) for name in stored)


def test_weights_and_none_exclude_each_other_and_no_weights_are_asked_about(here, weights):
    said = refused(*PRUNE, "--untrained", "--weights", weights, "--out", "out")
    assert "--untrained gives fresh weights" in said
    assert "--weights FILE, or prune it before training, --untrained" in refused(*PRUNE, "--out", "out")
    assert "method 'causal' measures what units do in a trained network" in refused(
        *PRUNE, "--untrained", "--out", "out"
    )


def test_a_network_is_cropped_from_its_initialisation_and_trained(here):
    flags = ("--untrained", "--method", "precrop", "--finetune-epochs", "1", "--no-latency", "--no-onnx")
    result = run(*PRUNE, *flags, "--out", "out")
    assert result.code == 0, result.err
    assert "Pruned before training" in result.out
    found = record("out")
    assert found["asked"]["untrained"] is True
    assert found["asked"]["recovery"]["learning_rate"] == 0.1
    assert found["pruned"]["macs"] <= 0.4 * found["dense"]["macs"]
    assert evaluate_folder("out", "digits", progress=False).top1_percent == found["pruned"]["top1_percent"]
    assert sum(p.numel() for p in load_pruned("out").parameters()) == found["pruned"]["params"]


def test_a_rate_that_is_asked_for_stays(here):
    flags = ("--untrained", "--method", "precrop", "--finetune-epochs", "1", "--no-latency", "--no-onnx")
    assert run(*PRUNE, *flags, "--learning-rate", "0.01", "--out", "out").code == 0
    assert record("out")["asked"]["recovery"]["learning_rate"] == 0.01
