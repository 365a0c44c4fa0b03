"""Random networks, random removals, and the property that holds for whatever blocks follow each other.

A file per kind of network tests it, so that they run side by side.
"""

import copy
import random
import tempfile
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from acceptance_property import assert_promises
from hypothesis import HealthCheck, note, settings
from hypothesis import strategies as st
from networks import CLASSES, randomised
from random_blocks import Draw, Shape, activations, image_block, sources, widths
from random_modules import Numbered
from random_tokens import attended, token_block
from removal_property import assert_close, assert_same_snapshot, output, removals, snapshot
from torch import Tensor, nn

from whyprune.data.batches import Batch
from whyprune.structure.file import load, save_plan, save_weights
from whyprune.structure.network import Network
from whyprune.structure.plan import make_plan
from whyprune.structure.remove import masked, remove
from whyprune.structure.replay import Replay
from whyprune.structure.trace import trace
from whyprune.structure.units import Unit

TOLERANCE = 1e-9  # networks are in double precision: what is wrong shows, what is rounded does not
HIDDEN = 3
EXAMPLES = {"images": 340, "tokens": 110, "attended": 60}
drawn: Counter[str] = Counter()


class Tail(Numbered):
    """From images or tokens to logits, by a mean, by a flatten or from one token; a hidden layer between."""

    def __init__(self, how: str, shape: Shape, places: int, end: str, activation: nn.Module, returns: str) -> None:
        super().__init__(how, shape.channels * places)
        self.end, self.activation, self.returns = end, activation, returns
        self.hidden = nn.Linear(shape.channels * (places if end == "flat" else 1), HIDDEN)
        self.head = nn.Linear(HIDDEN, CLASSES)

    def forward(self, x: Tensor) -> Any:
        if self.end == "flat":
            x = x.flatten(1) if self.how == "shape" else x.reshape(-1, self.count(x))
        elif self.end == "first":
            x = x[:, 0]
        else:
            x = x.mean((2, 3) if x.dim() == 4 else 1)
        features = self.activation(self.hidden(x))
        logits = self.head(features)
        if self.returns == "dict":
            return {"mean": features.mean(), "logits": logits}
        return (logits, features) if self.returns == "tuple" else logits


returns = st.sampled_from(("logits", "logits", "logits", "dict", "tuple"))


@st.composite
def image_networks(draw: Draw, attention: bool) -> nn.Module:
    shape = Shape(draw(widths), 4)
    layers: list[nn.Module] = [nn.Conv2d(3, shape.channels, 3, padding=1)]
    blocks = [image_block] * draw(st.integers(0 if attention else 1, 2 if attention else 3))
    if attention:
        blocks.insert(draw(st.integers(0, len(blocks))), attended)
    for kind in blocks:
        made, shape = draw(kind(shape))
        layers.append(made)
    tail = Tail(
        draw(sources), shape, shape.side**2, draw(st.sampled_from(("flat", "mean"))), draw(activations)(), draw(returns)
    )
    return nn.Sequential(*layers, tail)


@st.composite
def token_networks(draw: Draw) -> nn.Module:
    shape = Shape(draw(st.sampled_from((2, 4, 6))), 3)
    layers: list[nn.Module] = [nn.Linear(5, shape.channels)]
    for _ in range(draw(st.integers(1, 2))):
        made, shape = draw(token_block(shape))
        layers.append(made)
    end = draw(st.sampled_from(("flat", "mean", "first")))
    return nn.Sequential(*layers, Tail(draw(sources), shape, shape.side, end, draw(activations)(), draw(returns)))


def inputs(model: nn.Module, count: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    sizes = (5,) if isinstance(model[0], nn.Linear) else (4, 4)
    return torch.randn(count, 3, *sizes, generator=generator, dtype=torch.double)


def checked(kind: str, model: nn.Module, seed: int) -> None:
    """The property, for one network: two random removals, one of them by the slower checks as well."""
    drawn[kind] += 1
    network = trace(randomised(model.double(), seed), inputs(model, 2, seed))
    note(f"{network}\n{network.refusals}")
    batch = Batch((inputs(model, 3, seed + 1),), {})
    before = snapshot(network.model)
    rng = random.Random(seed)
    scattered = [u for g in network.groups for u in rng.sample(g.units, rng.randrange(len(g.units)))]
    half, most, *_ = [*removals(network, singles=0, seed=seed), [], []]
    for units in (scattered, half, most):
        if units:
            assert_right(network, units, batch)
    apart = [u for u in scattered if is_read_apart(network, u)]
    if apart:
        found = output(remove(network, apart), batch)
        assert_close(found, output(unread(network.model, apart), batch), TOLERANCE)
    if half and seed % 3 == 0:
        assert_comes_back(network, half, batch, seed)
    assert_same_snapshot(before, snapshot(network.model))


def assert_right(network: Network, units: list[Unit], batch: Batch) -> None:
    """Pruned equals masked, on another batch size, and is as large as promised."""
    pruned = remove(network, units)
    found = output(pruned, batch)
    assert_close(found, output(masked(network, units), batch), TOLERANCE)
    assert_close(Replay(network, pruned, units).logits(batch), network.outputs.rows_of(found), TOLERANCE)
    assert_promises(network, units, pruned)


def assert_comes_back(network: Network, units: list[Unit], batch: Batch, seed: int) -> None:
    """A second instance with other weights, after the saved plan and weights, gives the same outputs."""
    pruned = remove(network, units)
    fresh = randomised(copy.deepcopy(network.model), seed + 1)
    with tempfile.TemporaryDirectory() as folder:
        save_plan(make_plan(network, units), Path(folder))
        save_weights(pruned, Path(folder))
        loaded = load(fresh, folder)
    assert_close(output(loaded, batch), output(pruned, batch), 0.0)


def is_read_apart(network: Network, unit: Unit) -> bool:
    """Whether only layers with a weight for each channel read a unit."""
    return not unit.marks and all(r.affine for r in network.readers if unit.label in r.labels)


def unread(model: nn.Module, units: Iterable[Unit]) -> nn.Module:
    """The original with zeros where layers' weights read the units, and nothing else changed.

    This oracle does not know `masked`: what the units do before they are read plays no part.
    """
    blind = copy.deepcopy(model)
    state = dict(blind.named_parameters())
    for piece in (s for u in units for s in u.slices):
        module = blind.get_submodule(piece.parameter.rpartition(".")[0])
        axis = 0 if isinstance(module, nn.modules.conv._ConvTransposeNd) else 1
        if piece.axis == axis and state[piece.parameter].dim() > 1:
            state[piece.parameter].data.index_fill_(axis, torch.tensor(piece.indices), 0)
    return blind


def several(kind: str) -> settings:
    return settings(
        max_examples=EXAMPLES[kind],
        deadline=None,
        print_blob=True,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example],
    )


def assert_all_drawn(kind: str) -> None:
    """As many networks as are asked for, and so many of all kinds."""
    assert sum(EXAMPLES.values()) >= 500
    assert drawn[kind] >= EXAMPLES[kind]


seeds = st.integers(0, 2**31)
