"""Costs of less common products, what cannot be counted, and networks without any MACs."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from whyprune import Budget, trace
from whyprune.errors import BudgetError
from whyprune.structure.notes import notes_on


class One(nn.Module):
    """A function with one layer's parameters."""

    def __init__(self, layer: nn.Module, run: Callable[[nn.Module, Tensor], Tensor]) -> None:
        super().__init__()
        self.layer, self.run = layer, run

    def forward(self, x: Tensor) -> Tensor:
        return self.run(self.layer, x)


COUNTED = {
    "bilinear": (nn.Bilinear(8, 8, 5), lambda m, x: m(x, x), torch.randn(2, 8), 8 * 8 * 5 + 8 * 5),
    "bag": (nn.EmbeddingBag(20, 6), lambda m, x: m(x), torch.randint(0, 20, (2, 7)), 7 * 6),
    "computed weight": (nn.Linear(8, 6), lambda m, x: F.linear(x, m.weight * 2), torch.randn(2, 8), 48),
    "functional": (nn.Conv1d(8, 6, 3), lambda m, x: F.conv1d(x, m.weight.abs()), torch.randn(2, 8, 9), 7 * 6 * 24),
    "inner": (nn.Linear(8, 6), lambda m, x: torch.inner(x, m.weight), torch.randn(2, 8), 48),
    "tensordot": (nn.Linear(8, 6), lambda m, x: torch.tensordot(x, m.weight, [[1], [1]]), torch.randn(2, 8), 48),
    "three operands": (
        nn.Linear(8, 6),
        lambda m, x: torch.einsum("bi,oi,op->bp", x, m.weight, m.weight[:, :3]),
        torch.randn(2, 8),
        8 * 6 + 6 * 3,
    ),
    "broadcast letters": (
        nn.Linear(8, 6),
        lambda m, x: torch.einsum("...i,oi->...o", x, m.weight),
        torch.randn(2, 5, 8),
        5 * 48,
    ),
}


@pytest.mark.parametrize("name", COUNTED)
def test_products_are_counted(name: str) -> None:
    layer, run, x, macs = COUNTED[name]
    network = trace(One(layer, run).eval(), x)
    assert (network.cost().macs, network.cost.uncounted) == (macs, ())


UNKNOWN = {
    "cdist": (nn.Linear(8, 6), lambda m, x: torch.cdist(x, m.weight), torch.randn(2, 8)),
    "kron": (nn.Linear(8, 6), lambda m, x: torch.kron(x, m.weight), torch.randn(2, 8)),
    "fft_rfft": (nn.Linear(8, 5), lambda m, x: m(torch.fft.rfft(x).real), torch.randn(2, 14)),
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_what_cannot_be_counted_is_named(name: str) -> None:
    layer, run, x = UNKNOWN[name]
    network = trace(One(layer, run).eval(), x)
    assert any(name in operation for operation in network.cost.uncounted)
    assert any(name in note and "not counted" in note for note in notes_on(network))


def test_what_is_computed_once_is_no_cost_of_a_sample() -> None:
    def run(layer: nn.Module, x: Tensor) -> Tensor:
        return F.linear(x, torch.kron(layer.weight, torch.ones(1, 1)))

    assert trace(One(nn.Linear(8, 6), run).eval(), torch.randn(2, 8)).cost.uncounted == ()


@pytest.mark.parametrize("bound", [0.5, 1000.0])
def test_a_budget_on_what_a_network_has_none_of_is_refused(bound: float) -> None:
    words = nn.Sequential(nn.Embedding(9, 8), nn.LayerNorm(8)).eval()
    dense = trace(words, torch.randint(0, 9, (2, 5))).cost()
    assert dense.macs == 0
    with pytest.raises(BudgetError, match="no macs that are counted"):
        Budget(macs=bound).limits(dense)
    assert Budget(params=0.5).limits(dense) == {"params": dense.params / 2}
