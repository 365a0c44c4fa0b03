"""Where one head is as wide as the stream, the two do not go together: 1 / head_dim ** 0.5 would follow."""

from networks import randomised
from random_networks import Shape, Tail, assert_right, inputs
from random_tokens import Residual
from torch import nn
from wide_attention import Separate

from whyprune.data.batches import Batch
from whyprune.structure.trace import trace


def test_a_removal_leaves_the_attentions_scale_as_it_is():
    tail = Tail("shape", Shape(2, 3), 3, "mean", nn.ReLU(), "logits")
    model = nn.Sequential(nn.Linear(5, 2), Residual(Separate(2, 1, 2, False), 2, False, False), tail)
    network = trace(randomised(model.double(), 0), inputs(model, 2, 0))
    assert {g.name: len(g.units) for g in network.groups} == {"0": 2, "2.hidden": 3}
    for unit in network.groups[0].units:
        assert_right(network, [unit], Batch((inputs(model, 3, 1),), {}))
