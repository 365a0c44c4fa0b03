"""Every argument of the wrong kind ends in one message with the right form."""

import pytest
import torch
from torch import nn
from torch.utils.data import Dataset, TensorDataset

import whyprune as wp
from whyprune.data.calibration import FEW_IMAGES, few_images
from whyprune.errors import InputError
from whyprune.recovery import Recovery

X, Y = torch.randn(48, 3, 8, 8), torch.randint(0, 4, (48,))
FAST = wp.Settings(refute=False, latency=False)


def small():
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 6, 3), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4)).eval()


def prune(**changed):
    given = {"model": small(), "data": [(X, Y)], "budget": wp.Budget(macs=0.6), "example_inputs": X[:2]}
    return wp.prune(**({"settings": FAST, "progress": False} | given | changed))


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"budget": 0.5}, r"budget=0.5: give a Budget, such as Budget\(macs=0.5\) for 0.5 of the operations"),
        ({"budget": "macs=0.5"}, r"Budget.parse\('macs=0.5'\)"),
        ({"budget": None}, "budget=None: give a Budget"),
        ({"budget": wp.Budget}, "budget is the class Budget"),
        ({"recovery": 5}, r"give a Recovery, .*5 epochs are Recovery\(epochs=5\)"),
        ({"recovery": True}, "recovery=True: give a Recovery"),
        ({"training": {"epochs": 5}}, r"training=\{'epochs': 5\}: give a Recovery"),
        ({"settings": {}}, r"settings=\{\}: give Settings, .*or Settings\(\*\*settings\)"),
        ({"constraints": []}, r"constraints=\[\]: give Constraints"),
        ({"method": 3}, "method=3 is no method"),
        ({"method": "magnitude"}, "no method named 'magnitude'"),
        ({"outcome": 3}, "an outcome is a name"),
        ({"data": None}, "data is None: give calibration batches"),
        ({"data": "cifar10"}, "the calibration data is a str"),
        ({"data": []}, "0 images of calibration data"),
        ({"model": "resnet.pt"}, "the model is a str"),
        ({"example_inputs": None}, "example_inputs is None"),
        ({"example_inputs": (3, 8, 8)}, "example_inputs holds no input tensor but int, int, int"),
        ({"example_inputs": torch.utils.data.DataLoader(X, 2)}, r"one batch: next\(iter\(loader\)\)"),
        ({"augment": 3}, r"augment=3: give a function \(images, generator\)"),
        ({"workspace": 3}, "workspace=3: give the path of a folder"),
        ({"device": 3}, "device=3: give a Device or its name"),
        ({"seed": 0.5}, "seed=0.5: give a whole number"),
        ({"seed": None}, "seed=None: give a whole number"),
        ({"seed": -1}, "seed=-1: give a whole number from 0"),
        ({"asked": "x"}, "asked='x': give a dict"),
        ({"test": 7}, "the test data is a int"),
        ({"test": []}, "the test data is empty"),
        ({"test": [(X[:, :1], Y)]}, r"of the test data has an input of shape \(B, 1, 8, 8\)"),
        ({"recovery": Recovery(epochs=1), "recovery_data": [(X.byte(), Y)]}, "of the recovery data is .* uint8"),
        ({"recovery": Recovery(epochs=1), "recovery_data": []}, "the recovery data is empty"),
    ],
)
def test_a_wrong_argument_has_one_message_with_the_right_form(changed, words):
    with pytest.raises(InputError, match=words):
        prune(**changed)


def test_recover_refuses_a_number_of_epochs():
    with pytest.raises(InputError, match=r"recovery=5: give a Recovery"):
        wp.recover(small(), [(X, Y)], 5)


class Items(Dataset):
    def __len__(self):
        return len(X)

    def __getitem__(self, i):
        return X[i], int(Y[i])


FORMS = [Items, lambda: TensorDataset(X, Y), lambda: (b for b in [(X, Y)]), lambda: [(X.numpy(), Y.numpy())]]


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_the_same_data_gives_the_same_plan_and_accuracy(form):
    plain = prune(test=[(X, Y)])
    found = prune(data=form(), test=form(), recovery=Recovery(epochs=1), recovery_data=form())
    assert found.plan.units == plain.plan.units
    assert found.measurements.dense.top1_percent == plain.measurements.dense.top1_percent
    assert found.measurements.pruned.top1_percent is not None


def test_a_generator_of_data_is_there_for_the_recovery_too():
    found = prune(data=(b for b in [(X, Y)]), recovery=Recovery(epochs=1))
    assert len(found.measurements.recovery) == 1


def test_double_data_trains_and_measures_like_single():
    def trained(x):
        return prune(data=[(x, Y)], test=[(x, Y)], recovery=Recovery(epochs=1), recovery_data=[(x, Y)])

    one, two = trained(X), trained(X.double())
    assert one.plan.units == two.plan.units
    assert torch.equal(one.model(X), two.model(X))
    assert any("float64: it is converted to float32" in note for note in two.measurements.notes)


def test_few_images_are_warned_of():
    assert any("Only 48 calibration images" in note for note in prune().measurements.notes)
    assert few_images(FEW_IMAGES) == ""
    assert "more may be removed than the budget asks for" in few_images(FEW_IMAGES - 1)
