"""What is written into a module is what the closed form found, in evaluation and in training mode."""

import copy

import pytest
import torch
from torch import nn

from structure.networks import randomised, traced
from structure.removal_property import fresh_batch
from whyprune.repair.rows import layout
from whyprune.repair.writeback import Refitted, write
from whyprune.structure.replay import Replay
from whyprune.structure.trace import trace


def drawn(replay, node, generator):
    """Any weights will do; the moments are those of no data at all."""
    weight, _ = replay.parameters_of(node)
    outputs = len(weight)

    def vector():
        return torch.rand(outputs, generator=generator) + 0.5

    return Refitted(node, torch.randn(weight.shape, generator=generator), vector() - 1, vector(), vector())


@pytest.mark.parametrize("name", ["residual", "flatten", "separable", "vgg", "mlp", "concat"])
def test_the_module_computes_with_the_weights_that_were_written(name):
    network = traced(name)
    replay, module = Replay(network), copy.deepcopy(network.model)
    generator = torch.Generator().manual_seed(0)
    written = 0
    for node in replay.order:
        norm_behind = any("batch_norm" in str(user.target) for user in node.users)
        if layout(node) is None or (norm_behind and node not in replay.producers):
            continue
        result = drawn(replay, node, generator)
        _, bias = replay.parameters_of(node)
        if bias is None:
            result.bias.zero_()
        write(replay, module, result)
        replay.set_parameters(node, result.weight, result.bias)
        written += 1
    assert written >= 2
    batch = fresh_batch(network)
    with torch.no_grad():
        found, expected = batch.call(module), replay.logits(batch)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


@pytest.mark.parametrize("bias", [False, True])
def test_training_mode_computes_the_same_on_the_same_images(bias):
    """The statistics are those of the new weights; filters keep their norms."""
    model = randomised(nn.Sequential(nn.Conv2d(3, 5, 3, bias=bias), nn.BatchNorm2d(5), nn.ReLU(), nn.Conv2d(5, 2, 1)))
    network = trace(model, torch.zeros(2, 3, 8, 8))
    replay = Replay(network)
    node = next(iter(replay.producers))
    images = torch.randn(16, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    weight = torch.randn(5, 3, 3, 3, generator=torch.Generator().manual_seed(2))
    new_bias = torch.linspace(-1, 1, 5)
    response = nn.functional.conv2d(images, weight).transpose(0, 1).flatten(1)
    module = copy.deepcopy(model)
    write(replay, module, Refitted(node, weight, new_bias, response.mean(dim=1), response.var(dim=1)))
    block = module[:2]
    evaluated = block.eval()(images)
    torch.testing.assert_close(evaluated, nn.functional.conv2d(images, weight, new_bias), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(block.train()(images), evaluated, rtol=2e-3, atol=2e-3)
    norms = [m[0].weight.flatten(1).norm(dim=1) for m in (module, model)]
    torch.testing.assert_close(*norms)
