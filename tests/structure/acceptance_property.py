"""What an accepted network must show: enough units, and removals that equal the original under do(removed := 0)."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from acceptance_oracle import Read, run
from networks import randomised
from removal_property import assert_attributes, assert_close, assert_same_snapshot, snapshot
from torch import Generator, Tensor, nn

from whyprune.structure.file import load, save_plan, save_weights
from whyprune.structure.network import Network
from whyprune.structure.plan import make_plan
from whyprune.structure.remove import masked, remove
from whyprune.structure.trace import trace
from whyprune.structure.units import Unit

TOLERANCE = 1e-4  # of the largest output: what `verify` asks for
Inputs = Callable[[int, Generator], Any]


@dataclass(frozen=True)
class Case:
    """A network, what it runs on, and what a user expects to be removable.

    Attributes:
        build: a new instance.
        inputs: (batch size, generator) -> a tensor, a tuple of positional or a dict of keyword inputs.
        must: layer or bare parameter -> at least how many units write its channels.
        together: layer -> how many of its channels go with each unit.
        either: layers whose channels may be units or refused, but not passed over in silence.
        kept: layers that no unit may touch, for their channels cannot go one by one.
        marked: layers whose units change statistics over channels.
        reads: where each channel is read, for `under_do`.
    """

    build: Callable[[], nn.Module]
    inputs: Inputs
    must: Mapping[str, int]
    together: Mapping[str, int] = field(default_factory=dict)
    either: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()
    marked: tuple[str, ...] = ()
    reads: tuple[Read, ...] = ()
    tolerance: float = TOLERANCE

    def model(self, seed: int = 0) -> nn.Module:
        return randomised(self.build(), seed)

    def draw(self, count: int, seed: int = 7) -> Any:
        return self.inputs(count, Generator().manual_seed(seed))

    def traced(self) -> Network:
        return trace(self.model(), self.draw(3, seed=1))


def image(count: int, generator: Generator) -> Tensor:
    return torch.randn(count, 3, 8, 8, generator=generator)


def bright_image(count: int, generator: Generator) -> Tensor:
    return torch.rand(count, 3, 8, 8, generator=generator)


def tokens(count: int, generator: Generator) -> Tensor:
    return torch.randn(count, 6, 5, generator=generator)


def vector(count: int, generator: Generator) -> Tensor:
    return torch.randn(count, 5, generator=generator)


# What is removable


def writes(model: nn.Module, layer: str) -> tuple[str, int]:
    """(parameter, axis) along which a layer's output channels lie, or a bare parameter's first axis."""
    if layer in dict(model.named_parameters()):
        return layer, 0
    module = model.get_submodule(layer)
    if isinstance(module, nn.RNNBase):
        return f"{layer}.weight_hh_l0", 1
    if getattr(module, "bias", None) is not None:
        return f"{layer}.bias", 0
    return f"{layer}.weight", int(isinstance(module, nn.Embedding | nn.modules.conv._ConvTransposeNd))


def units_of(network: Network, layer: str) -> dict[str, int]:
    """Unit name -> how many of the layer's output channels go with it."""
    parameter, axis = writes(network.model, layer)
    return {
        unit.name: len(piece.indices)
        for unit in network.units
        for piece in unit.slices
        if (piece.parameter, piece.axis) == (parameter, axis)
    }


def assert_removable(case: Case, network: Network) -> None:
    """At least what a user expects has units, in the expected couplings; the rest is refused with a reason."""
    for layer, least in case.must.items():
        assert len(units_of(network, layer)) >= least, f"{layer}: {list(map(str, network.refusals))}"
    for layer, count in case.together.items():
        assert set(units_of(network, layer).values()) == {count}, layer
    for layer in case.either:
        assert units_of(network, layer) or is_refused(network, layer), layer
    for layer in case.kept:
        assert not units_of(network, layer), layer
        assert is_refused(network, layer), layer
    for layer in case.marked:
        assert all(network.by_name[name].marks for name in units_of(network, layer)), layer


def is_refused(network: Network, layer: str) -> bool:
    """Whether a refusal with a place and a reason names a parameter of the layer."""
    mine = [r for r in network.refusals if any(p == layer or p.startswith(f"{layer}.") for p, _ in r.axes)]
    return bool(mine) and all(r.where.strip() and r.reason.strip() and r.channels for r in mine)


# Whether a removal is right


def assert_removal(case: Case, network: Network, units: Sequence[Unit]) -> None:
    """Removing `units` gives the masked original's outputs and promised size, and leaves the original alone."""
    before = snapshot(network.model)
    pruned = remove(network, units)
    assert type(pruned) is type(network.model)
    assert_close(run(pruned, case.draw(5)), run(masked(network, units), case.draw(5)), case.tolerance)
    assert_promises(network, units, pruned)
    assert_same_snapshot(before, snapshot(network.model))


def kinds(model: nn.Module) -> list[tuple[str, str, str]]:
    """(module, its class) by name: torch makes a class of its own for each parametrized layer."""
    return [(name, type(m).__module__, type(m).__qualname__) for name, m in model.named_modules()]


def assert_promises(network: Network, units: Sequence[Unit], pruned: nn.Module) -> None:
    """Every module keeps its class and states its widths, and the network is smaller by exactly what was promised."""
    assert kinds(pruned) == kinds(network.model)
    params = sum(p.numel() for p in pruned.parameters())
    assert network.cost(units).params == params < network.cost().params
    assert_attributes(pruned)
    for module in pruned.modules():
        for kind, stated in _WIDTHS:
            if isinstance(module, kind):
                assert stated(module), module


_WIDTHS: list[tuple[Any, Callable[[Any], bool]]] = [
    (
        nn.modules.conv._ConvTransposeNd,
        lambda m: m.weight.shape[:2] == (m.in_channels, m.out_channels // m.groups),
    ),
    (nn.LayerNorm, lambda m: m.weight is None or tuple(m.normalized_shape) == tuple(m.weight.shape)),
    (
        nn.GroupNorm,
        lambda m: m.weight is None or (m.num_channels == len(m.weight) and m.num_channels % m.num_groups == 0),
    ),
    (nn.PReLU, lambda m: m.num_parameters == len(m.weight)),
    (nn.Embedding, lambda m: m.weight.shape == (m.num_embeddings, m.embedding_dim)),
    (nn.RNNBase, lambda m: m.weight_hh_l0.shape[1] == m.hidden_size and m.weight_ih_l0.shape[1] == m.input_size),
]


def assert_comes_back(case: Case, network: Network, units: Sequence[Unit], folder: Path) -> None:
    """Plan and weights, saved and loaded into a fresh instance with other weights, give the same outputs."""
    pruned = remove(network, units)
    save_plan(make_plan(network, units), folder)
    save_weights(pruned, folder)
    loaded = load(case.model(seed=9), folder)
    assert_promises(network, units, loaded)
    assert_close(run(loaded, case.draw(5)), run(pruned, case.draw(5)), 0.0)
