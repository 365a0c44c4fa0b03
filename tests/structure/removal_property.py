"""The property that every removal must have, whatever the network."""

import copy
import random
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree
from torch.utils.flop_counter import FlopCounterMode

from whyprune.data.batches import Batch
from whyprune.structure.network import Network
from whyprune.structure.remove import masked, remove
from whyprune.structure.replay import Replay
from whyprune.structure.units import Unit

TOLERANCE = 1e-5
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


def fresh_batch(network: Network, count: int = 5, seed: int = 7) -> Batch:
    """Random inputs of another batch size than the traced one."""
    generator = torch.Generator().manual_seed(seed)

    def draw(value: Tensor) -> Tensor:
        return torch.randn(count, *value.shape[1:], generator=generator)

    example = network.example
    return Batch(tuple(map(draw, example.args)), {k: draw(v) for k, v in example.kwargs.items()})


def output(model: nn.Module, batch: Batch) -> Any:
    with torch.inference_mode():
        return batch.call(model)


def assert_close(found: Any, expected: Any, tolerance: float = TOLERANCE) -> None:
    """Equal in every tensor, relative to the largest value of the expected one."""
    left, right = pytree.tree_leaves(found), pytree.tree_leaves(expected)
    assert len(left) == len(right)
    for one, other in zip(left, right, strict=True):
        assert one.shape == other.shape
        scale = max(1.0, float(other.abs().max()))
        assert float((one - other).abs().max()) <= tolerance * scale


def removals(network: Network, singles: int, seed: int = 0) -> list[list[Unit]]:
    """Single units, a random half of every group, all but one of each, a random few, one of every other group."""
    rng = random.Random(seed)
    units, groups = network.units, network.groups
    alone = [[u] for u in rng.sample(units, min(singles, len(units)))]
    others = [g.units[0] for g in groups[1::2]]
    half = [u for g in groups for u in rng.sample(g.units, len(g.units) // 2)]
    spare = [u for g in groups for u in g.units[1:]]
    few = rng.sample(spare, len(spare) // 3)
    most = [u for g in groups for u in rng.sample(g.units, len(g.units) - 1)]
    return [removal for removal in (*alone, half, most, few, others) if removal]


def assert_removal_is_right(network: Network, units: list[Unit], tolerance: float = TOLERANCE) -> None:
    """Removing `units` gives the masked original's outputs, at the cost and with the attributes it must have."""
    before = snapshot(network.model)
    batch = fresh_batch(network)
    pruned = remove(network, units)
    assert type(pruned) is type(network.model)
    expected = output(masked(network, units), batch)
    found = output(pruned, batch)
    assert_close(found, expected, tolerance)
    assert_close(Replay(network, pruned, units).logits(batch), network.outputs.rows_of(found), tolerance)
    assert_cost(network, pruned, units, batch)
    assert_attributes(pruned)
    assert_same_snapshot(before, snapshot(network.model))


def assert_cost(network: Network, pruned: nn.Module, units: list[Unit], batch: Batch) -> None:
    cost = network.cost(units)
    assert cost.params == sum(p.numel() for p in pruned.parameters())
    state = [*pruned.parameters(), *pruned.buffers()]
    assert cost.bytes == sum(t.numel() * t.element_size() for t in state)
    assert cost.macs == counted_macs(pruned, batch)


def counted_macs(model: nn.Module, batch: Batch) -> int:
    """MACs per sample as torch's own counter sees them; it counts a multiply-accumulate as 2."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        batch.call(model)
    total = counter.get_total_flops()
    assert total % (2 * len(batch)) == 0
    return total // (2 * len(batch))


def assert_attributes(model: nn.Module) -> None:
    """What modules say of their widths is what their parameters have."""
    for module in model.modules():
        if isinstance(module, CONVOLUTIONS):
            shape = (module.out_channels, module.in_channels // module.groups, *module.kernel_size)
            assert tuple(module.weight.shape) == shape
            assert module.in_channels % module.groups == module.out_channels % module.groups == 0
        elif isinstance(module, nn.Linear):
            assert tuple(module.weight.shape) == (module.out_features, module.in_features)
        elif isinstance(module, nn.modules.batchnorm._NormBase) and module.running_mean is not None:
            assert module.running_mean.shape == module.running_var.shape == (module.num_features,)


def snapshot(model: nn.Module) -> tuple[dict[str, Tensor], list[tuple[str, dict[str, Any]]]]:
    """All tensors of a model, and all plain attributes of its modules."""
    plain = [
        (name, {k: v for k, v in vars(m).items() if isinstance(v, int | float | str | tuple)})
        for name, m in model.named_modules()
    ]
    return copy.deepcopy(model.state_dict()), plain


def assert_same_snapshot(before: Any, after: Any) -> None:
    assert before[0].keys() == after[0].keys()
    for name, tensor in before[0].items():
        assert torch.equal(tensor, after[0][name]), name
    assert before[1] == after[1]
