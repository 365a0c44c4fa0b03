"""What users bring beside the usual: it works and is right, or one message of ours names it."""

import sys

import pytest
import torch
from torch import nn
from torch.utils.data import Dataset

import whyprune as wp
from whyprune.errors import FormatError, InputError
from whyprune.models.checkpoint import weights_in
from whyprune.recovery import Recovery

X, Y = torch.randn(48, 3, 8, 8), torch.randint(0, 4, (48,))
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n"
FAST = wp.Settings(refute=False, latency=False)


def small(body=None):
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 6, 3), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4)).eval()


class Holding(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = small()


def prune(**changed):
    given = {"model": small(), "data": [X], "budget": wp.Budget(macs=0.6), "example_inputs": X[:2]}
    return wp.prune(**({"settings": FAST, "progress": False} | given | changed))


class Items(Dataset):
    def __init__(self, item):
        self.item = item

    def __len__(self):
        return len(X)

    def __getitem__(self, i):
        return self.item(i)


class PictureLike:
    """Stands for a picture of PIL."""


PictureLike.__module__ = "PIL.Image"


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"data": Items(lambda i: (int(Y[i]), X[i]))}, r"holds int, Tensor.*give \(inputs, labels\), in this order"),
        ({"data": Items(lambda i: (PictureLike(), 0))}, "PIL picture .*make it a tensor"),
        ({"data": Items(lambda i: {"image": PictureLike(), "label": 0})}, "PIL picture"),
        ({"data": Items(lambda i: {"x": X[i], "label": 0})}, "is a dict with the keys 'x'"),
        ({"data": Items(lambda i: 1 // 0)}, "the calibration data cannot be read.*ZeroDivisionError"),
        ({"data": Items(lambda i: X[i] if i < 40 else int("?"))}, "cannot be read.*ValueError"),
        ({"data": [X.to_sparse()]}, "in the layout torch.sparse_coo"),
        ({"data": [X.to("meta")]}, "on the meta device"),
        ({"example_inputs": X[:2] * float("nan")}, "example_inputs holds NaN"),
        ({"outcome": lambda a, b, labels: 1 / 0}, r"outcome <lambda> failed \(ZeroDivisionError"),
        ({"outcome": lambda a, b: a}, r"outcome <lambda> failed .*called as \(output, dense_output, labels\)"),
        ({"outcome": lambda a, b, labels: (a - b).sum(1) * float("nan")}, "gave NaN or infinite harm"),
        ({"augment": lambda x: x}, r"augment failed .*called as \(images, generator\)"),
        ({"augment": lambda x, g: None}, "augment gave a NoneType"),
        ({"augment": lambda x, g: x[:, :1]}, r"augment gave shape \(\d+, 1, 8, 8\): give"),
        ({"outputs": 1.5}, "outputs holds 1.5"),
        ({"recovery": Recovery(epochs=1), "recovery_data": Items(lambda i: None)}, "a batch is a NoneType"),
    ],
)
def test_one_message_names_the_true_cause(changed, words):
    with pytest.raises(InputError, match=words):
        prune(**changed)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"test": [X]}, "has no labels: accuracy needs"),
        ({"test": [(X, Y + 9)]}, "labels run from"),
        ({"recovery": Recovery(epochs=1), "recovery_data": [X]}, "the training data has no labels"),
        ({"recovery": Recovery(epochs=1), "recovery_data": [(X, Y - 1)]}, "labels run from -1"),
        ({"recovery": Recovery(epochs=1), "recovery_data": [(X, Y.float())]}, "one class number per row"),
        ({"recovery": Recovery(epochs=1), "recovery_data": [(X[:, :1], Y)]}, "of the recovery data has an input of"),
    ],
)
def test_labels_and_sizes_that_a_late_step_needs_are_refused_before_any_work(changed, words, monkeypatch):
    def worked(*_):
        raise AssertionError("units were chosen before the data was looked at")

    monkeypatch.setattr(sys.modules["whyprune.prune"], "choose", worked)
    with pytest.raises(InputError, match=words):
        prune(**changed)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda net, effects: wp.estimate(net, [X], method=3), "method=3 is no scorer"),
        (lambda net, effects: wp.estimate(net, [X], method=None), "method=None is no scorer"),
        (lambda net, effects: wp.estimate(net, [X], method="random", seed="a"), "seed='a'"),
        (lambda net, effects: wp.estimate(net, [X], units="0:1"), "units='0:1'"),
        (lambda net, effects: wp.allocate(net, None, wp.Budget(macs=0.5)), "effects is a NoneType"),
        (lambda net, effects: wp.allocate(net, effects, wp.Budget(macs=0.5), constraints={}), "give Constraints"),
        (lambda net, effects: wp.masked(net.model, []), "no State and no traced Network"),
        (lambda net, effects: wp.reestimate_batch_norm(net.model, None), "the data is a NoneType"),
        (lambda net, effects: wp.accuracy(net.model, 3), "the data is a int"),
        (lambda net, effects: wp.load(net.model, 3), "folder=3"),
        (lambda net, effects: wp.Budget(macs="half"), "budget macs='half'"),
        (lambda net, effects: wp.Budget(macs=[0.5]), r"budget macs=\[0.5\]"),
        (lambda net, effects: wp.Budget(params=True), "budget params=True"),
        (lambda net, effects: wp.Budget.parse(0.5), "budget 0.5: give text"),
        (lambda net, effects: wp.Settings(ignore="stem"), "ignore='stem': give a tuple"),
        (lambda net, effects: wp.Settings(refute="no"), "refute='no': give True or False"),
        (lambda net, effects: wp.trace(torch.export.export(net.model, (X[:2],)).module(), X[:2]), "torch.export gives"),
    ],
)
def test_every_step_refuses_arguments_of_the_wrong_kind(call, words):
    network = wp.trace(small(), X[:2])
    with pytest.raises(InputError, match=words):
        call(network, wp.estimate(network, [X], method="magnitude-l2"))


def test_weights_without_values_or_numbers_are_named():
    broken, empty = small(), small()
    broken[2].weight.data[0, 0, 0, 0] = float("nan")
    empty[2].to("meta")
    with pytest.raises(InputError, match=r"parameter 2\.weight holds NaN"):
        wp.trace(broken, X[:2])
    with pytest.raises(InputError, match=r"parameter 2\.weight lies on the meta device"):
        wp.trace(empty, X[:2])


def test_a_network_without_parameters_has_nothing_to_save():
    network = wp.trace(nn.Sequential(nn.ReLU(), nn.Flatten()).eval(), X[:2])
    assert network.groups == ()
    with pytest.raises(wp.WhypruneError, match="has no macs that are counted"):
        prune(model=nn.Sequential(nn.ReLU(), nn.Flatten()).eval())


def test_inputs_and_labels_alone_are_one_batch():
    plain = prune(data=[(X, Y)])
    for data in ((X, Y), [X.numpy(), Y.numpy()]):
        assert prune(data=data, test=data).plan.units == plain.plan.units


class OfDict(Holding):
    def forward(self, batch):
        return self.body(batch["views"]["left"]) * batch["scale"][:, None]


def test_a_network_of_one_dict_takes_batches_that_are_dicts():
    raw = {"views": {"left": X}, "scale": torch.ones(len(X))}
    example = ({"views": {"left": X[:2]}, "scale": torch.ones(2)},)
    wrapped = prune(model=OfDict().eval(), data=[(raw,)], example_inputs=example)
    bare = prune(
        model=OfDict().eval(), data=[raw], example_inputs=example, test=[raw | {"labels": Y}], outcome="logit-shift"
    )
    assert bare.plan.units == wrapped.plan.units
    assert bare.measurements.pruned.top1_percent is not None


class OfTwo(Holding):
    def forward(self, *inputs):
        return self.body(inputs[0]) + 2 * self.body(inputs[1])


def test_one_tensor_given_for_two_inputs_is_two_inputs():
    network = wp.trace(OfTwo().eval(), (X[:2], X[:2]))
    units = [group.units[0] for group in network.groups]
    state = wp.remove(wp.State.of(network), units)
    wp.verify(state, [(X, X.flip(0))])
    expected = wp.masked(network, units)
    with torch.no_grad():
        torch.testing.assert_close(state.model(X, X.flip(0)), expected(X, X.flip(0)))


class UnderAutocast(Holding):
    def forward(self, x):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return self.body(x).float()


def test_effects_under_autocast_are_those_of_the_same_network_without():
    found = wp.estimate(wp.trace(UnderAutocast().eval(), X[:2]), [X], method="exact")
    plain = wp.estimate(wp.trace(small(), X[:2]), [X], method="exact")
    assert found.units == tuple(f"body.{name}" for name in plain.units)
    torch.testing.assert_close(torch.tensor(found.mean), torch.tensor(plain.mean), rtol=0.1, atol=1e-3)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("w.pt", b"", "is empty"),
        ("w.pth", b"<html>404</html>", "neither of torch.save nor of safetensors"),
        (
            "w.safetensors",
            LFS,
            "pointer of Git LFS.*lfs pull",
        ),
        ("w.bin", LFS, "pointer of Git LFS"),
    ],
)
def test_files_that_hold_no_weights_say_what_they_are(tmp_path, name, content, words):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(FormatError, match=words):
        weights_in(tmp_path / name)


def test_a_pickled_model_is_named_by_its_class(tmp_path):
    torch.save(small(), tmp_path / "whole.pt")
    with pytest.raises(FormatError, match=r"besides tensors \(torch\.nn\.modules\.container\.Sequential\)"):
        weights_in(tmp_path / "whole.pt")


class NeedsLabels(Holding):
    def forward(self, x, labels=None):
        assert labels is not None or not self.training
        return self.body(x)


def test_a_model_that_does_not_train_on_its_inputs_alone_is_refused_before_any_work():
    with pytest.raises(InputError, match="does not run in training mode on example_inputs, which recovery needs"):
        prune(model=NeedsLabels().eval(), recovery=Recovery(epochs=1), recovery_data=[(X, Y)])
