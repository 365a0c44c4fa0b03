"""Half precision, autocast and double precision; memory layout and what else a tensor carries; older norm hooks."""

import copy

import pytest
import torch
from torch import Tensor, nn

from whyprune import Network, joint_effect, masked, remove, repair, trace, verify
from whyprune.repair.solve import refit
from whyprune.structure.replay import Replay
from whyprune.structure.state import State

IMAGES = torch.randn(16, 3, 10, 10, generator=torch.Generator().manual_seed(0))


def small() -> nn.Module:
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 12, 3), nn.BatchNorm2d(12), nn.ReLU(), nn.Conv2d(12, 10, 3), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(10, 5)).eval()


class Mixed(nn.Module):
    """A norm kept in single precision, and types named in the code."""

    def __init__(self, named: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.named = named
        self.stem, self.norm, self.head = nn.Conv2d(3, 12, 3), nn.LayerNorm(12), nn.Linear(12, 5)
        self.to(torch.bfloat16)
        self.norm.float()

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu().mean((2, 3))
        return self.head(self.norm(x.float()).to(torch.bfloat16 if self.named else x.dtype))


class Autocast(nn.Module):
    """A network that chooses its own precision."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.head = small(), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            x = self.inner(x).relu()
        return self.head(x.float())


NETWORKS = {
    "half": (lambda: small().half(), torch.float16),
    "bfloat": (lambda: small().bfloat16(), torch.bfloat16),
    "double": (lambda: small().double(), torch.float64),
    "mixed": (lambda: Mixed(named=False).eval(), torch.bfloat16),
    "named types": (lambda: Mixed(named=True).eval(), torch.bfloat16),
    "autocast": (lambda: Autocast().eval(), torch.float32),
}


def halved(network: Network) -> State:
    return remove(State.of(network), [u for g in network.groups for u in g.units[::2]])


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_of_all_types_are_measured_precisely_and_keep_their_types(name: str) -> None:
    build, kind = NETWORKS[name]
    model, x = build(), IMAGES.to(kind)
    state = halved(trace(model, x[:2]))
    assert state.removed
    assert verify(state, [x]).max_abs_difference < 1e-4
    mended = repair(state, [x])
    kinds = {n: t.dtype for n, t in model.state_dict().items()}
    assert {n: t.dtype for n, t in mended.model.state_dict().items()} == kinds
    measured = Replay.of(mended).logits(next(iter([state.network.example])))
    assert measured.dtype == (torch.float64 if name == "double" else torch.float32)
    assert joint_effect(mended, [x]).mean <= joint_effect(state, [x]).mean


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_half_precision_gives_nearly_the_effects_of_single(kind: torch.dtype) -> None:
    half = small().to(kind)
    effects = [
        joint_effect(halved(trace(model, x[:2])), [x]).mean
        for model, x in ((half, IMAGES.to(kind)), (copy.deepcopy(half).float(), IMAGES.to(kind).float()))
    ]
    assert effects[0] == pytest.approx(effects[1], rel=1e-6)


@pytest.mark.parametrize("dims", [2, 3])
def test_the_memory_layout_survives(dims: int) -> None:
    conv, layout = (nn.Conv2d, torch.channels_last) if dims == 2 else (nn.Conv3d, torch.channels_last_3d)
    model = nn.Sequential(conv(3, 8, 3), nn.ReLU(), conv(8, 6, 3), nn.Flatten(2)).eval().to(memory_format=layout)
    x = torch.randn(2, 3, *[7] * dims)
    state = halved(trace(model, x))
    weights = [p for p in state.model.parameters() if p.dim() > 2]
    assert weights[0].shape[0] == 4
    assert all(w.is_contiguous(memory_format=layout) and not w.is_contiguous() for w in weights)
    plain = halved(trace(copy.deepcopy(model).to(memory_format=torch.contiguous_format), x))
    assert all(p.is_contiguous() for p in plain.model.parameters())


class Own(nn.Parameter):
    """A parameter of a user's own class."""


def test_what_a_tensor_carries_survives() -> None:
    model = small()
    weight = Own(model[0].weight.detach())
    weight.no_decay, weight.requires_grad = True, False
    model[0].weight = weight
    model[3].register_buffer("scratch", torch.ones(10), persistent=False)
    model[3].shared = [model[3].weight]
    state = halved(trace(model, IMAGES[:2]))
    cut = state.model[0].weight
    assert (type(cut), cut.no_decay, cut.requires_grad, cut.shape[0]) == (Own, True, False, 6)
    assert "3.scratch" not in state.model.state_dict()
    assert state.model[3].shared[0] is state.model[3].weight
    assert model[0].weight.shape[0] == 12


@pytest.mark.parametrize("wrap", [nn.utils.spectral_norm, nn.utils.weight_norm])
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_weights_under_the_older_hooks_keep_their_values(wrap) -> None:
    torch.manual_seed(0)
    layers = [wrap(nn.Conv2d(3, 12, 1)), nn.LeakyReLU(0.2), wrap(nn.Conv2d(12, 10, 1)), nn.LeakyReLU(0.2)]
    model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(10, 4)).train()
    for _ in range(3):
        model(IMAGES)
    network = trace(model.eval(), IMAGES[:2])
    assert [g.width for g in network.groups] == [12, 10]
    for group, place in zip(network.groups, (1, 3), strict=True):
        units = group.units[:4]
        gone = [u.index for u in units]

        def zero(_module: nn.Module, _inputs: object, output: Tensor, gone: list[int] = gone) -> Tensor:
            return output.index_fill(1, torch.tensor(gone), 0)

        hook = model[place].register_forward_hook(zero)
        expected = model(IMAGES)
        hook.remove()
        pruned = remove(network, units)
        assert torch.allclose(pruned(IMAGES), expected, atol=1e-6)
        assert torch.allclose(masked(network, units)(IMAGES), expected, atol=1e-6)
        pruned.train()(IMAGES).sum().backward()


@pytest.mark.parametrize("data", ["zeros", "constant", "one row", "huge", "not finite"])
def test_degenerate_features_are_no_error_of_linear_algebra(data: str) -> None:
    x = {
        "zeros": torch.zeros(20, 30),
        "constant": torch.full((20, 30), 1e6),
        "one row": torch.randn(1, 30),
        "huge": torch.randn(20, 1) * torch.linspace(1, 1e18, 30),
        "not finite": torch.full((20, 30), float("inf")),
    }[data]
    weights, bias = refit(x, torch.randn(len(x), 4), None, torch.randn(4, 30), ridge=1e-18, relu_passes=2)
    assert (weights.shape, bias.shape) == ((4, 30), (4,))
    if data != "not finite":
        assert torch.isfinite(weights).all()
