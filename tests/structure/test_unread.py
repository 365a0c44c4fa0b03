"""Parameters that the example does not reach: heads of training, experts without a token, tokens, unused layers."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from whyprune import Network, remove, trace
from whyprune.errors import VerificationError
from whyprune.structure.notes import notes_on
from whyprune.structure.state import State
from whyprune.structure.training import check_training

IMAGES = torch.randn(8, 3, 12, 12, generator=torch.Generator().manual_seed(0))
VECTORS = torch.randn(40, 6, generator=torch.Generator().manual_seed(1))


class Auxiliary(nn.Module):
    """A head on early channels that only runs in training; `how` it gets to a vector."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.stem, self.aux, self.body = nn.Conv2d(3, 12, 3), nn.Linear(12 * 4, 5), nn.Conv2d(12, 10, 3)
        self.head = nn.Linear(10, 5)

    def forward(self, x: Tensor, target: Tensor | None = None) -> Tensor | tuple[Tensor, Tensor]:
        x = self.stem(x).relu()
        out = self.head(self.body(x).relu().mean((2, 3)))
        if not self.training:
            return out
        pooled = F.adaptive_avg_pool2d(x, 2)
        if self.how == "target":
            assert target is not None
        return out, self.aux(pooled.view(-1, 48) if self.how == "literal" else pooled.flatten(1))


def halved(network: Network) -> nn.Module:
    return remove(network, [u for g in network.groups for u in g.units[::2]])


def test_a_head_of_training_is_cut_along() -> None:
    network = trace(Auxiliary("flat").eval(), IMAGES[:2])
    assert {g.name for g in network.groups} == {"stem", "body"}
    assert network.unread == ()
    pruned = halved(network).train()
    out, aux = pruned(IMAGES)
    (out + aux).sum().backward()
    assert (pruned.aux.in_features, pruned.stem.out_channels) == (24, 6)


def test_what_a_head_of_training_names_as_a_number_stays() -> None:
    network = trace(Auxiliary("literal").eval(), IMAGES[:2])
    assert {g.name for g in network.groups} == {"body"}
    assert any("does not train without them" in r.reason for r in network.refusals)
    halved(network).train()(IMAGES)


class NeedsTarget(Auxiliary):
    """Training needs more than the example has; `twin` makes a second layer as wide as the one that feeds the head."""

    def __init__(self, twin: bool) -> None:
        super().__init__("target")
        self.aux = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(12, 7, 1), nn.Flatten())  # type: ignore[assignment]
        if twin:
            self.body, self.head = nn.Conv2d(12, 12, 3), nn.Linear(12, 5)

    def forward(self, x: Tensor, target: Tensor | None = None) -> Tensor | tuple[Tensor, Tensor]:
        x = self.stem(x).relu()
        out = self.head(self.body(x).relu().mean((2, 3)))
        return (out, self.aux(x) + target.sum()) if self.training else out  # type: ignore[union-attr]


@pytest.mark.parametrize("twin", [False, True])
def test_a_head_that_cannot_be_run_is_cut_along_or_keeps_what_may_feed_it(twin: bool) -> None:
    network = trace(NeedsTarget(twin).eval(), IMAGES[:2])
    assert {g.name for g in network.groups} == (set() if twin else {"stem", "body"})
    assert twin == any(r.where == "aux" and "do not run it" in r.reason for r in network.refusals)
    assert any("aux" in note for note in notes_on(network))
    halved(network).train()(IMAGES, torch.ones(1))


class Mixture(nn.Module):
    """Every token goes to one of four experts."""

    def __init__(self, residual: bool) -> None:
        super().__init__()
        self.residual, self.inner, self.head = residual, nn.Linear(6, 12), nn.Linear(12, 5)
        self.experts = nn.ModuleList(nn.Sequential(nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 12)) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        z, chosen = self.inner(x), x[:, :4].argmax(-1)
        y = z if self.residual else torch.zeros_like(z)
        for number, expert in enumerate(self.experts):
            mine = chosen == number
            if mine.any():
                y = y + mine[:, None] * expert(z)
        return self.head(y)


@pytest.mark.parametrize("residual", [True, False])
def test_experts_without_a_token_are_cut_like_those_with_one(residual: bool) -> None:
    torch.manual_seed(0)
    network = trace(Mixture(residual).eval(), VECTORS[VECTORS[:, :4].argmax(-1) == 0][:2])
    assert {"inner", "experts.0.0"} <= {g.name for g in network.groups}
    pruned = halved(network)
    assert {tuple(e[0].weight.shape) for e in pruned.experts[1:]} == {(16, 6)}
    assert pruned(VECTORS).shape == (40, 5)
    assert any("experts.1 (cut like experts.0)" in note for note in notes_on(network))


def test_layers_one_after_the_other_are_no_siblings_that_tell() -> None:
    class Chain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList(nn.Linear(6, 6) for _ in range(3))
            self.hidden, self.head = nn.Linear(6, 9), nn.Linear(9, 2)

        def forward(self, x: Tensor, depth: int = 2) -> Tensor:
            for layer in self.layers[:depth]:
                x = layer(x).relu()
            return self.head(self.hidden(x).relu())

    network = trace(Chain().eval(), VECTORS[:2])
    assert {g.name for g in network.groups} == {"hidden"}
    assert halved(network)(VECTORS, 3).shape == (40, 2)


def test_a_token_of_the_only_width_around_it_is_cut_along_and_what_nothing_feeds_does_no_harm() -> None:
    class Masked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.token, self.head = nn.Linear(6, 12), nn.Parameter(torch.randn(1, 1, 12)), nn.Linear(12, 5)
            self.unused = nn.Linear(77, 9)

        def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
            x = self.embed(x)
            return self.head(x if mask is None else torch.where(mask[..., None], self.token, x))

    x = VECTORS.reshape(8, 5, 6)
    network = trace(Masked().eval(), x[:2])
    assert [g.name for g in network.groups] == ["embed"]
    pruned = halved(network)
    assert pruned(x, torch.rand(8, 5) > 0.5).shape == (8, 5, 5)
    assert pruned.unused.weight.shape == (9, 77)


def test_a_pruned_network_that_does_not_train_is_refused_before_recovery() -> None:
    network = trace(Auxiliary("flat").eval(), IMAGES[:2])
    units = network.group("stem").units[:3]
    pruned = remove(network, units)
    state = State(network, pruned, units, likeness=False)
    check_training(state)
    pruned.aux = nn.Linear(48, 5)
    broken = State.__new__(State)
    object.__setattr__(broken, "network", network)
    object.__setattr__(broken, "model", pruned)
    with pytest.raises(VerificationError, match=r"training mode.*test_unread.py"):
        check_training(broken)


class Keeping(nn.Module):
    """Training keeps statistics of hidden channels in buffers that evaluation does not read."""

    def __init__(self, bank):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.norm, self.last = nn.Linear(6, 10), nn.BatchNorm1d(10), nn.Linear(10, 4)
        self.register_buffer("kept", torch.randn(20, 10) if bank else torch.zeros(10))
        self.bank = bank

    def forward(self, x):
        hidden = torch.relu(self.norm(self.first(x)))
        if self.training and self.bank:
            self.kept[: len(hidden)] = hidden.detach()
        elif self.training:
            self.kept.mul_(0.9).add_(hidden.detach().mean(0) * 0.1)
        return self.last(hidden)


@pytest.mark.parametrize("bank", [False, True])
def test_buffers_that_only_training_writes_lose_the_channels_that_it_writes(bank):
    network = trace(Keeping(bank).eval(), torch.randn(3, 6))
    gone = [1, 4, 5]
    pruned = remove(network, [network.groups[0].units[k] for k in gone])
    left = [k for k in range(10) if k not in gone]
    assert torch.equal(pruned.kept, network.model.kept[..., left])
    pruned.train()(torch.randn(3, 6))
    assert pruned.kept.shape[-1] == pruned.first.out_features == len(left)
