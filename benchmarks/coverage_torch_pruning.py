"""Torch-Pruning on the networks of the coverage table: half of every layer at random, only the output layers ignored.

What it removes is read off the parameters themselves: between building its graph and pruning, every parameter holds
the positions of its own entries, so what is left of it afterwards says which entries stayed. The reference is the
original with all other entries zero, and its normalisations over channels taken over the channels that stay.
"""

import copy
from collections.abc import Iterator, Mapping
from importlib import import_module, metadata, util
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from benchmarks.common import at_most
from benchmarks.coverage_check import fresh_inputs, judged, left, outputs, relative_difference, said, size
from benchmarks.coverage_models import Subject
from whyprune.data.batches import Batch
from whyprune.structure.capture import as_example
from whyprune.structure.precise import doubled

LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
PATIENCE_S = 120
"""After so many seconds of computing its pruning is stopped: on some networks it does not come to an end."""


def installed() -> str | None:
    """Its version, or None where it is not installed."""
    return metadata.version("torch-pruning") if util.find_spec("torch_pruning") else None


def build_graph(model: nn.Module, inputs: Batch) -> None:
    """Builds its dependency graph, and nothing else."""
    library = import_module("torch_pruning")
    library.DependencyGraph().build_dependency(model, example_inputs=inputs.kwargs or inputs.args)


def prune_half(subject: Subject, seed: int = 0) -> dict[str, Any]:
    """Prunes half of every layer and says how it went: outcome, error, difference and what is left."""
    library = import_module("torch_pruning")
    model, original = subject.model(0), subject.model(0)
    inputs = as_example(subject.draw(2, 1))
    ignored = output_layers(model, subject.heads, inputs)
    torch.manual_seed(seed)
    stage = "building"
    try:
        with at_most(PATIENCE_S):
            pruner = library.pruner.BasePruner(
                model,
                inputs.kwargs or inputs.args,
                importance=library.importance.RandomImportance(),
                pruning_ratio=0.5,
                ignored_layers=ignored,
            )
            stage = "pruning"
            _hold_positions(model)
            pruner.step()
    except TimeoutError as error:
        return {"outcome": f"no end while {stage}", "error": str(error)}
    except Exception as error:  # noqa: BLE001 - any error is an outcome of the table
        return {"outcome": f"crash while {stage}", "error": said(error)}
    kept = _take_positions(model, original)
    return _judged(subject, model, original, kept)


def _judged(subject: Subject, model: nn.Module, original: nn.Module, kept: Mapping[str, Tensor]) -> dict[str, Any]:
    inputs, dense = fresh_inputs(subject, original), dict(_tensors(original))
    cut = [n for n, positions in kept.items() if positions.numel() < dense[n].numel()]
    if not cut:
        return {"outcome": "nothing pruned", "error": None}
    reference, norms = masked_original(original, kept)
    with OverKeptChannels(norms) as normalisation:
        expected = outputs(reference, inputs)

    def precisely() -> tuple[list[Tensor], list[Tensor]]:
        with OverKeptChannels(norms):
            truth = outputs(reference.double(), doubled(inputs))  # in place: its norms are known by their parameters
        reference.float()
        return outputs(copy.deepcopy(model).double(), doubled(inputs)), truth

    row = {**judged(model, expected, inputs, precisely), "changes_statistics": normalisation.used}
    if row["difference"] is not None:
        zeroed = relative_difference(outputs(model, inputs), outputs(reference, inputs))
        row |= {"difference_zeroed": zeroed, **left(model, size(original, inputs), inputs)}
    return row


def output_layers(model: nn.Module, names: tuple[str, ...], inputs: Batch) -> list[nn.Module]:
    """The named layers, or the one with a weight that runs last."""
    if names:
        return [model.get_submodule(name) for name in names]
    ran: list[nn.Module] = []
    layers = [module for module in model.modules() if isinstance(module, LAYERS)]
    hooks = [m.register_forward_hook(lambda module, _args, _output: ran.append(module)) for m in layers]
    outputs(model, inputs)
    for hook in hooks:
        hook.remove()
    return ran[-1:]


def masked_original(
    original: nn.Module, kept: Mapping[str, Tensor]
) -> tuple[nn.Module, list[tuple[nn.Parameter, Tensor]]]:
    """The original with every entry zero that was not kept, and (weight, kept channels) of normalisation layers."""
    reference = copy.deepcopy(original)
    norms = []
    for name, tensor in _tensors(reference):
        if not name.endswith("running_var"):  # a variance of zero would blow up
            mask = torch.zeros(tensor.numel(), dtype=tensor.dtype)
            mask[kept[name].flatten()] = 1
            tensor.data = tensor.data * mask.view_as(tensor)
        if isinstance(tensor, nn.Parameter) and tensor.dim() == 1:
            norms.append((tensor, kept[name].sort().values))
    return reference, norms


class OverKeptChannels(TorchFunctionMode):
    """Within it, layer and group normalisation take their statistics over the kept channels alone.

    `used` says whether there was such a normalisation.
    """

    def __init__(self, norms: list[tuple[nn.Parameter, Tensor]]) -> None:
        super().__init__()
        self.kept = {id(weight): keep for weight, keep in norms if len(keep) < len(weight)}
        self.used = False

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is F.layer_norm:
            return self._layer_norm(*args, **kwargs)
        if func is F.group_norm:
            return self._group_norm(*args, **kwargs)
        return func(*args, **kwargs)

    def _layer_norm(
        self, x: Tensor, shape: Any, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
    ) -> Tensor:
        keep = self.kept.get(id(weight))
        if weight is None or keep is None:
            return F.layer_norm(x, shape, weight, bias, eps)
        self.used = True
        values = F.layer_norm(x[..., keep], (len(keep),), weight[keep], None if bias is None else bias[keep], eps)
        return torch.zeros_like(x).index_copy(-1, keep, values)

    def _group_norm(
        self, x: Tensor, groups: int, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
    ) -> Tensor:
        keep = self.kept.get(id(weight))
        if weight is None or keep is None:
            return F.group_norm(x, groups, weight, bias, eps)
        self.used = True
        result = torch.zeros_like(x)
        for row in torch.arange(x.shape[1]).view(groups, -1):
            rest = row[torch.isin(row, keep)]
            if len(rest):
                values = F.group_norm(x[:, rest], 1, weight[rest], None if bias is None else bias[rest], eps)
                result = result.index_copy(1, rest, values)
        return result


def _tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from model.named_parameters(remove_duplicate=False)
    for name, buffer in model.named_buffers(remove_duplicate=False):
        if buffer.is_floating_point():
            yield name, buffer


def _hold_positions(model: nn.Module) -> None:
    """Every entry becomes its own position; double precision holds them exactly."""
    for _, tensor in _tensors(model):
        tensor.data = torch.arange(tensor.numel(), dtype=torch.float64).view(tensor.shape)


def _take_positions(model: nn.Module, original: nn.Module) -> dict[str, Tensor]:
    """The positions that are left in a pruned model, which gets back the original's values there."""
    values, kept = dict(_tensors(original)), {}
    for name, tensor in _tensors(model):
        kept[name] = tensor.data.long()
    for name, tensor in _tensors(model):
        tensor.data = values[name].detach().flatten()[kept[name]]
    return kept
