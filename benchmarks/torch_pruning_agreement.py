"""Do our scores rank channels as Torch-Pruning 1.6.1 does: L2, FPGM and Taylor on the same groups, in the same run.

Each is compared as both libraries define it, and with the definition matched:

- L2: Torch-Pruning counts the weight of the batch norm of a group as one layer more; matched without it.
- FPGM: Torch-Pruning squares the weights before it takes distances; matched, ours is asked of the squared weights.
- Taylor: Torch-Pruning takes |weight x gradient| of every entry under the gradient of the mean loss; ours is activation
  times gradient, image by image. A reader's weights times their gradient, summed over one input channel, are the
  same number (Euler): matched, Torch-Pruning is asked image by image for the readers' slices, summed before the
  absolute value (`multivariable`).

Groups are compared where both libraries couple the same slices; others are counted and named.
"""

import argparse
import copy
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.stats import spearmanr
from torch import Tensor, nn

import whyprune as wp
from benchmarks.common import Stopwatch, arguments, calibration, cifar10, fingerprint, trained, write_record
from benchmarks.coverage_torch_pruning import installed
from whyprune.criteria import geometric_median, magnitude, taylor
from whyprune.structure.units import Group

Floats = NDArray[np.float64]
Slices = set[tuple[str, int, int, int]]
"""(weight, axis, unit, index along the axis)."""
AGREED = 0.999
LAYERS = (nn.Conv2d, nn.Linear)


def own_slices(network: wp.Network, group: Group) -> Slices:
    """What a group couples here."""
    tensors = network.model.state_dict()
    return {
        (s.parameter, s.axis, unit.index, int(k))
        for unit in group.units
        for s in unit.slices
        if tensors[s.parameter].dim() > 1
        for k in s.indices
    }


def their_slices(model: nn.Module, group: Any) -> Slices:
    """What a group couples in Torch-Pruning."""
    library = import_module("torch_pruning")
    names = {module: name for name, module in model.named_modules()}
    writes = (library.prune_conv_out_channels, library.prune_linear_out_channels)
    found = set()
    for item in group:
        if isinstance(item.dep.target.module, LAYERS):
            axis = 0 if item.dep.handler in writes else 1
            weight = f"{names[item.dep.target.module]}.weight"
            found |= {(weight, axis, root, k) for root, k in zip(item.root_idxs, item.idxs, strict=True)}
    return found


def their_groups(network: wp.Network, model: nn.Module) -> dict[str, Any]:
    """Torch-Pruning's group of the layer that every group of ours is named after."""
    library = import_module("torch_pruning")
    graph = library.DependencyGraph().build_dependency(model, example_inputs=network.example.args[0])
    found = {}
    for group in network.groups:
        layer = model.get_submodule(group.name)
        prune = library.prune_conv_out_channels if isinstance(layer, nn.Conv2d) else library.prune_linear_out_channels
        found[group.name] = graph.get_pruning_group(layer, prune, idxs=list(range(group.width)))
    return found


def pairs(
    network: wp.Network, model: nn.Module, groups: dict[str, Any], images: Tensor, labels: Tensor
) -> Iterator[tuple[str, str, wp.Effects, dict[str, Floats]]]:
    """(criterion, definition, our scores, Torch-Pruning's for every channel of every group)."""
    importance = import_module("torch_pruning").importance
    squared = copy.deepcopy(network.model)
    with torch.no_grad():
        for module in squared.modules():
            if isinstance(module, LAYERS):
                module.weight.square_()

    def asked(judge: Callable[[Any], Tensor]) -> dict[str, Floats]:
        return {name: judge(group).detach().double().numpy() for name, group in groups.items()}

    norms, medians = magnitude(network), geometric_median(network)
    of_squares = geometric_median(wp.State(network, squared, ()))
    ours = taylor(network, [(images, labels)], outcome="cross-entropy")
    yield "magnitude-l2", "as defined", norms, asked(importance.GroupMagnitudeImportance(p=2))
    weights_only = importance.GroupMagnitudeImportance(p=2, target_types=list(LAYERS))
    yield "magnitude-l2", "matched", norms, asked(weights_only)
    yield "geometric-median", "as defined", medians, asked(importance.FPGMImportance())
    yield "geometric-median", "matched", of_squares, asked(importance.FPGMImportance())
    _gradients(model, images, labels)
    yield "taylor", "as defined", ours, asked(importance.GroupTaylorImportance())
    readers = importance.GroupTaylorImportance(
        multivariable=True, group_reduction="gate", normalizer=None, target_types=list(LAYERS)
    )
    total = dict.fromkeys(groups, np.zeros(()))
    for k in range(len(images)):
        _gradients(model, images[k : k + 1], labels[k : k + 1])
        total = {name: total[name] + scores for name, scores in asked(readers).items()}
    yield "taylor", "matched", ours, total


def _gradients(model: nn.Module, images: Tensor, labels: Tensor) -> None:
    model.zero_grad(set_to_none=True)
    with torch.enable_grad():
        F.cross_entropy(model(images), labels).backward()


def network_rows(name: str, images: int, seed: int) -> list[dict[str, Any]]:
    """One row for every criterion, definition and group that both libraries have; one for every other group."""
    model, normalization = trained(name)
    model.eval()
    batches = [(x, y) for x, y in calibration(cifar10(), normalization, images, seed)]
    x, y = (torch.cat(parts) for parts in zip(*batches, strict=True))
    network = wp.trace(copy.deepcopy(model), x[:2])
    theirs = their_groups(network, model)
    same = [g for g in network.groups if own_slices(network, g) == their_slices(model, theirs[g.name])]
    rows: list[dict[str, Any]] = [
        {"network": name, "group": g.name, "units": len(g.units), "same_slices": False}
        for g in network.groups
        if g not in same
    ]
    compared = {group.name: theirs[group.name] for group in same}
    for criterion, definition, ours, given in pairs(network, model, compared, x, y):
        for group in same:
            scores = [ours[unit] for unit in group.units]
            others = given[group.name][[unit.index for unit in group.units]]
            rows.append(
                {
                    "network": name,
                    "group": group.name,
                    "units": len(group.units),
                    "same_slices": True,
                    "criterion": criterion,
                    "definition": definition,
                    "spearman": float(spearmanr(scores, others).statistic),
                }
            )
    return rows


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The smallest and the mean correlation of every criterion, and how many groups are of other slices."""
    found: dict[str, Any] = {
        "groups_compared": len({(r["network"], r["group"]) for r in rows if r["same_slices"]}),
        "groups_of_other_slices": sum(not r["same_slices"] for r in rows),
    }
    for criterion in ("magnitude-l2", "geometric-median", "taylor"):
        for definition in ("as defined", "matched"):
            values = [
                r["spearman"] for r in rows if (r.get("criterion"), r.get("definition")) == (criterion, definition)
            ]
            key = f"{criterion}_{definition}".replace("-", "_").replace(" ", "_")
            found |= {f"{key}_spearman_min": min(values), f"{key}_spearman_mean": float(np.mean(values))}
            found[f"{key}_groups_agreed"] = sum(v >= AGREED for v in values)
    return found


def run(options: argparse.Namespace) -> None:
    """Compares on all networks and writes the record."""
    networks, images = (["resnet20"], 64) if options.quick else (["resnet20", "resnet56", "vgg16_bn"], 256)
    watch, rows = Stopwatch(), []
    for name in networks:
        rows += network_rows(name, images, seed=0)
        print(f"{name}: {watch.seconds:.0f} s", flush=True)
    headline = summary(rows)
    print("\n".join(f"{key}: {value}" for key, value in headline.items()), flush=True)
    write_record(
        "torch_pruning_agreement",
        options,
        headline,
        rows,
        torch_pruning_version=installed(),
        images=images,
        data_sha256=fingerprint(cifar10()),
        seconds=watch.seconds,
    )


def main() -> None:
    """Parses the arguments and runs."""
    options = arguments(__doc__ or "").parse_args()
    if installed() is None:
        raise SystemExit("Torch-Pruning is not installed: pip install 'whyprune[benchmarks]'")
    run(options)


if __name__ == "__main__":
    main()
