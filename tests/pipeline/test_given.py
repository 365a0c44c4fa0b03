"""What a recovery is given is held against the network before any work."""

import pytest
import torch
from torch import nn

from whyprune.errors import InputError
from whyprune.pipeline.given import check_recovery
from whyprune.recovery import Recovery
from whyprune.structure.trace import trace

VECTORS = torch.randn(6, 5, generator=torch.Generator().manual_seed(1))
NETWORK = trace(nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 3)).eval(), VECTORS[:2])


def test_labels_are_needed_unless_a_recovery_only_follows_the_dense_network():
    check_recovery(NETWORK, [VECTORS], Recovery(epochs=1, distill=1.0))
    with pytest.raises(InputError, match="the training data has no labels"):
        check_recovery(NETWORK, [VECTORS], Recovery(epochs=1, distill=0.5))


@pytest.mark.parametrize("labels", [torch.full((6,), 3), torch.full((6,), -1)])
def test_labels_are_classes_of_the_network(labels):
    check_recovery(NETWORK, [(VECTORS, labels.clamp(0, 2))], Recovery(epochs=1))
    with pytest.raises(InputError):
        check_recovery(NETWORK, [(VECTORS, labels)], Recovery(epochs=1))


def test_without_a_recovery_nothing_is_read():
    def unread():
        raise AssertionError("it was read")
        yield

    check_recovery(NETWORK, unread(), None)
