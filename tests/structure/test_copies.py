"""Values that a model's code keeps between runs are never taken over into a network with other weights."""

import torch
from networks import CLASSES
from torch import Tensor, nn

import whyprune as wp
from whyprune.structure.copies import duplicate
from whyprune.structure.file import load, save_plan, save_weights
from whyprune.structure.plan import make_plan

HEADS, WIDTH, TOKENS = 3, 4, 6


class KeptBiases(nn.Module):
    """Attention whose biases are looked up once and kept until the next training, as LeViT has it."""

    def __init__(self) -> None:
        super().__init__()
        self.heads = HEADS
        self.qkv, self.proj = nn.Linear(5, 3 * HEADS * WIDTH), nn.Linear(HEADS * WIDTH, 7)
        self.biases = nn.Parameter(torch.randn(HEADS, TOKENS))
        self.register_buffer("places", (torch.arange(TOKENS)[:, None] - torch.arange(TOKENS)).abs())
        self.kept: dict[str, Tensor] = {}

    def train(self, mode: bool = True) -> "KeptBiases":
        self.kept = {}
        return super().train(mode)

    def forward(self, x: Tensor) -> Tensor:
        if "biases" not in self.kept:
            self.kept["biases"] = self.biases[:, self.places]
        q, k, v = self.qkv(x).view(len(x), TOKENS, 3, self.heads, WIDTH).permute(2, 0, 3, 1, 4)
        weights = (q @ k.transpose(-2, -1) + self.kept["biases"]).softmax(-1)
        return self.proj((weights @ v).transpose(1, 2).flatten(2))


def model(seed: int = 0) -> nn.Module:
    """A network that has run once, with gradients."""
    torch.manual_seed(seed)
    network = nn.Sequential(KeptBiases(), nn.ReLU(), nn.Flatten(), nn.Linear(7 * TOKENS, CLASSES)).eval()
    network(tokens())
    return network


def tokens(count: int = 2) -> Tensor:
    return torch.randn(count, TOKENS, 5, generator=torch.Generator().manual_seed(count))


def test_a_copy_keeps_mode_and_function_and_leaves_the_original_alone():
    original = model()
    original[3].train()
    before = original[0].kept["biases"]
    copied = duplicate(original)
    assert not copied[0].kept
    assert original[0].kept["biases"] is before
    assert [m.training for m in copied.modules()] == [m.training for m in original.modules()]
    assert torch.equal(copied(tokens(3)), original(tokens(3)))


def test_a_copy_follows_its_own_weights():
    copied = duplicate(model())
    with torch.no_grad():
        copied[0].biases.mul_(3)
    fresh = model(1)
    fresh.load_state_dict(copied.state_dict())
    fresh.train().eval()
    assert torch.equal(copied(tokens()), fresh(tokens()))


def test_heads_with_kept_biases_can_go():
    network = wp.trace(model(), tokens())
    heads = [u for u in network.units if any(s.parameter == "0.biases" for s in u.slices)]
    assert len(heads) == HEADS
    pruned = wp.remove(network, heads[:1])
    assert pruned[0].biases.shape[0] == HEADS - 1
    wp.verify(network, pruned, heads[:1], [tokens(4)])


def test_a_plan_fits_a_network_that_has_run_with_other_weights(tmp_path):
    network = wp.trace(model(), tokens())
    units = [group.units[0] for group in network.groups]
    pruned = wp.remove(network, units)
    save_plan(make_plan(network, units), tmp_path)
    save_weights(pruned, tmp_path)
    assert torch.equal(load(model(1), tmp_path)(tokens(3)), pruned(tokens(3)))
