"""Torch-Pruning on the networks of the tasks: group L2 norms, at the MACs that are asked for, found by bisection."""

import copy
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.coverage_torch_pruning import installed

LAYERS = (nn.Conv1d, nn.Conv2d, nn.Linear, nn.ConvTranspose2d)
STEPS = 12

__all__ = ["installed", "macs_of", "torch_pruning"]


def torch_pruning(model: nn.Module, example: Tensor, ratio: float, *, over_all: bool) -> nn.Module:
    """Torch-Pruning's network of at most so large a share of the MACs, the layers of the outputs left alone.

    Args:
        model: the dense network; it is not changed.
        example: inputs, samples first.
        ratio: MACs that may be left, as a share.
        over_all: norms are compared over all layers; else every layer loses the same share.
    """
    library = import_module("torch_pruning")
    low, high, best = 0.0, 0.95, None
    for _ in range(STEPS):
        share = (low + high) / 2
        pruned = copy.deepcopy(model)
        pruner = library.pruner.BasePruner(
            pruned,
            example,
            importance=library.importance.GroupMagnitudeImportance(p=2),
            pruning_ratio=share,
            max_pruning_ratio=0.95,
            global_pruning=over_all,
            ignored_layers=_last_layers(pruned, example),
        )
        pruner.step()
        if macs_of(pruned, example) <= ratio * macs_of(model, example):
            best, high = pruned.eval(), share
        else:
            low = share
    if best is None:
        raise ValueError(f"Torch-Pruning reaches no {ratio:.0%} of the MACs")
    return best


def macs_of(model: nn.Module, example: Tensor) -> int:
    """Multiply-accumulates of one sample in convolutions and linear layers, by running it."""
    total: list[int] = []

    def count(layer: nn.Module, inputs: Any, output: Tensor) -> None:
        weight = layer.weight
        assert isinstance(weight, Tensor)
        # A transposed convolution uses its whole kernel once per place of its input, others per place of the output.
        places = inputs[0] if isinstance(layer, nn.ConvTranspose2d) else output
        total.append(weight.numel() * (places[0, 0].numel() if places.dim() > 2 else 1))

    hooks = [m.register_forward_hook(count) for m in model.modules() if isinstance(m, LAYERS)]
    with torch.inference_mode():
        model(example[:1])
    for hook in hooks:
        hook.remove()
    return sum(total)


def _last_layers(model: nn.Module, example: Tensor) -> list[nn.Module]:
    """The layers that give the outputs: those whose results are returned."""
    made: dict[int, nn.Module] = {}
    results = []

    def note(layer: nn.Module, _inputs: Any, output: Tensor) -> None:
        made[id(output)] = layer
        results.append(output)  # kept, so that no other tensor gets its id

    hooks = [m.register_forward_hook(note) for m in model.modules() if isinstance(m, LAYERS)]
    with torch.inference_mode():
        output = model(example[:1])
    for hook in hooks:
        hook.remove()
    outputs = [output] if isinstance(output, Tensor) else list(output)
    return [made[id(o)] for o in outputs]
