"""`verify` accepts what is right, and says where a wrong network goes wrong."""

import pytest
import torch
from networks import build, image, traced, vector
from removal_property import removals
from torch import nn

from whyprune.errors import InputError, VerificationError
from whyprune.structure.remove import remove
from whyprune.structure.trace import trace
from whyprune.structure.verify import verify


def half(network):
    return removals(network, singles=0)[0]


@pytest.mark.parametrize("name", ["mlp", "concat", "pad shortcut", "squeeze excite", "dicts", "two inputs"])
def test_a_right_network_passes(name):
    network = traced(name)
    units = half(network) if network.units else []
    result = verify(network, remove(network, units), units)
    assert result.max_abs_difference <= result.tolerance
    assert result.inputs == len(network.example)
    assert (result.stress_max_abs_difference is None) == (not network.units)


@pytest.mark.parametrize(
    ("name", "parameter", "place"),
    [
        ("residual", "first.0.weight", "they part at conv2d in first.0"),
        ("residual", "stem.1.running_mean", "they part at conv2d in stem.0"),
        ("mlp", "0.bias", "they part at linear in 0 "),
        ("concat", "conv2.weight", "they part at conv2d in conv2"),
        ("mlp", "5.bias", "they part at linear in 5"),
    ],
)
def test_one_changed_number_is_found_and_placed(name, parameter, place):
    network = traced(name)
    pruned = remove(network, half(network))
    with torch.no_grad():
        pruned.state_dict()[parameter].view(-1)[0] += 0.5
    with pytest.raises(VerificationError, match=place) as caught:
        verify(network, pruned, half(network))
    assert "do not use the pruned network" in str(caught.value)


def test_the_wrong_units_are_found():
    network = traced("mlp")
    one, other = network.group("0").units[:2]
    with pytest.raises(VerificationError, match="they part at linear in 0 "):
        verify(network, remove(network, [one]), [other])


def test_a_network_that_does_not_run_is_found():
    network = traced("mlp")
    pruned = remove(network, half(network))
    pruned[3] = nn.Linear(3, 2)
    with pytest.raises(VerificationError, match="does not run: mat1 and mat2"):
        verify(network, pruned, half(network))


def test_nan_is_a_difference():
    network = traced("mlp")
    pruned = remove(network, half(network))
    nn.init.constant_(pruned[5].bias, torch.nan)
    with pytest.raises(VerificationError, match="differs from the masked original by nan"):
        verify(network, pruned, half(network))


def test_the_tolerance_is_relative_to_large_logits():
    network = traced("mlp")
    pruned = remove(network, half(network))
    with torch.no_grad():
        pruned[5].bias[0] += 0.01
    with pytest.raises(VerificationError):
        verify(network, pruned, half(network))
    result = verify(network, pruned, half(network), tolerance=0.1)
    assert result.max_abs_difference == pytest.approx(0.01, rel=1e-3)


def test_labels_are_left_out_and_64_images_are_enough():
    network = traced("residual")
    batches = [(torch.cat([image()] * 10), torch.zeros(30, dtype=torch.long))] * 5
    assert verify(network, remove(network, half(network)), half(network), batches, stress=False).inputs == 64


def test_no_data_is_no_proof():
    network = traced("mlp")
    with pytest.raises(InputError, match="no image to verify on"):
        verify(network, remove(network, half(network)), half(network), [])


def test_the_stress_removal_is_drawn_from_the_seed():
    network = traced("concat")
    model = remove(network, half(network))
    first, again = (verify(network, model, half(network), seed=3).stress_max_abs_difference for _ in range(2))
    assert first == again
    assert verify(network, model, half(network), stress=False).stress_max_abs_difference is None


def test_a_model_that_is_wrong_only_elsewhere_fails_the_stress():
    """The number of channels decides what this model computes: right for one removal, wrong for another."""

    class Trap(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.head = nn.Linear(5, 8), nn.Linear(8, 4)

        def forward(self, x):
            x = self.one(x)
            return self.head(x if x.shape[1] > 6 else x + x)

    network = trace(Trap().eval(), vector(5))
    units = network.units[:1]
    assert verify(network, remove(network, units), units, stress=False).max_abs_difference < 1e-5
    with pytest.raises(VerificationError):
        verify(network, remove(network, units), units)


def test_the_mode_of_the_pruned_network_stays():
    network = traced("residual")
    pruned = remove(network, half(network)).train()
    before = {k: v.clone() for k, v in pruned.state_dict().items()}
    verify(network, pruned, half(network))
    assert pruned.training
    assert all(torch.equal(v, before[k]) for k, v in pruned.state_dict().items())
    assert not build("residual").training


class Chaos(nn.Module):
    """Ends in a map that doubles every difference, 30 times: rounding in single precision becomes anything.

    Sums of 400 products are rounded in another way without half of them, whatever the processor.
    """

    def __init__(self):
        super().__init__()
        self.one, self.head = nn.Linear(5, 400), nn.Linear(400, 4)

    def forward(self, x):
        y = torch.sigmoid(self.head(torch.relu(self.one(x))))
        for _ in range(30):
            y = 4 * y * (1 - y)
        return y


def test_rounding_that_a_network_amplifies_is_told_from_a_wrong_result_in_double_precision():
    torch.manual_seed(0)
    network = trace(Chaos().eval(), vector(5))
    units = half(network)
    pruned = remove(network, units)
    found = verify(network, pruned, units, [torch.randn(16, 5)])
    assert found.in_double
    assert found.max_abs_difference <= found.tolerance
    assert not verify(traced("mlp"), traced("mlp").model, []).in_double
    with torch.no_grad():
        pruned.one.bias[0] += 0.5
    with pytest.raises(VerificationError):
        verify(network, pruned, units, [torch.randn(16, 5)])
