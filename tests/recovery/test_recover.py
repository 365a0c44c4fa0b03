import copy
import random

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional as F
from torch.utils.data import TensorDataset

from whyprune.errors import InputError
from whyprune.recovery import Recovery, recover
from whyprune.recovery.checkpoint import under
from whyprune.recovery.objective import distillation_loss, learning_rate_at
from whyprune.recovery.split import split_data

QUICK = Recovery(epochs=2, batch_size=16, learning_rate=0.1)


def quick(**changes):
    return Recovery(**(QUICK.model_dump() | changes))


def top1_percent(model, batches):
    right = [model(b.args[0]).argmax(1) == b.labels for b in batches]
    return 100 * float(torch.cat(right).double().mean())


def same(one, other):
    return all(torch.equal(a, b) for a, b in zip(one.values(), other.values(), strict=True))


def test_it_learns_the_task(network, dataset):
    result = recover(network, dataset, quick(epochs=15), progress=False)
    x, y = dataset.tensors
    assert float((result.model(x).argmax(1) == y).double().mean()) > 0.85
    assert result.history[-1].train_loss < result.history[0].train_loss
    assert [epoch.epoch for epoch in result.history] == list(range(1, 16))
    assert result.seconds >= sum(epoch.seconds for epoch in result.history) > 0


def test_neither_network_nor_the_generators_change(network, make, dataset):
    dense = make(9, width=12)
    dense.train()
    before = copy.deepcopy((network.state_dict(), dense.state_dict()))
    drawn = random.getstate(), np.random.get_state()[1].copy(), torch.get_rng_state()  # noqa: NPY002
    result = recover(network, dataset, quick(distill=0.5), dense=dense, progress=False)
    assert same(before[0], network.state_dict())
    assert same(before[1], dense.state_dict())
    assert network.training
    assert dense.training
    assert all(p.requires_grad and p.grad is None for m in (network, dense) for p in m.parameters())
    assert not result.model.training
    assert random.getstate() == drawn[0]
    assert (np.random.get_state()[1] == drawn[1]).all()  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), drawn[2])


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_it_is_sgd_on_the_schedule(make, images, labels, momentum):
    """Oracle: the same steps with torch alone, in the same memory layout."""
    network = make(0, dropout=0.0)
    recovery = quick(epochs=4, validation_fraction=0, momentum=momentum, weight_decay=0.01, warmup_fraction=0.25)
    recovered = recover(network, [(images, labels)], recovery, progress=False).model
    oracle = copy.deepcopy(network).train().to(memory_format=torch.channels_last)
    laid_out = images.contiguous(memory_format=torch.channels_last)
    sgd = torch.optim.SGD(oracle.parameters(), 1.0, momentum, weight_decay=0.01)
    for step in range(4):
        sgd.param_groups[0]["lr"] = learning_rate_at(step, 4, 0.1, 0.25)
        sgd.zero_grad()
        F.cross_entropy(oracle(laid_out), labels).backward()
        sgd.step()
    assert same(oracle.state_dict(), recovered.state_dict())


class Viewing(nn.Sequential):
    """Its `view` of activations needs them contiguous."""

    def forward(self, x):
        y = self[0](x)
        return super().forward(x) + 0 * y.view(len(y), -1).mean()


@pytest.mark.parametrize(("kind", "stride"), [(nn.Sequential, 1), (Viewing, 36)])
def test_networks_train_with_channels_last_where_they_run_so(make, images, labels, kind, stride):
    network = kind(*make(0))
    seen = set()

    def look(module, args):
        if module.training:
            seen.add(args[0].stride(1))

    handle = network.register_forward_pre_hook(look)
    recover(network, [(images, labels)], quick(epochs=1, validation_fraction=0), progress=False)
    handle.remove()
    assert seen == {stride}


def test_clipping_bounds_the_step(network, images, labels):
    recovery = quick(epochs=1, validation_fraction=0, momentum=0, weight_decay=0, clip_grad_norm=1e-3)
    recovered = recover(network, [(images, labels)], recovery, progress=False).model
    pairs = zip(recovered.state_dict().items(), network.state_dict().items(), strict=True)
    length = torch.sqrt(
        sum(((a - b) ** 2).sum() for (n, a), (_, b) in pairs if "1." not in n or n[2:] in ("weight", "bias"))
    )
    assert 0 < float(length) <= 0.1 * 1e-3 * 1.01


def test_the_held_out_accuracy_is_that_of_the_returned_network(network, dataset):
    result = recover(network, dataset, quick(epochs=6, validation_fraction=0.3), seed=4, progress=False)
    accuracies = [epoch.validation_top1_percent for epoch in result.history]
    held = split_data(dataset, 0.3, 16, seed=4).validation
    assert top1_percent(result.model, held.batches(0)) == pytest.approx(max(accuracies))
    assert result.best_epoch == 6 - accuracies[::-1].index(max(accuracies)), "a tie goes to the later epoch"


def test_a_tie_goes_to_the_later_epoch(dataset):
    linear = nn.Sequential(nn.Flatten(), nn.Linear(108, 2))
    result = recover(linear, dataset, quick(epochs=3, learning_rate=1e-12), progress=False)
    assert len({epoch.validation_top1_percent for epoch in result.history}) == 1
    assert result.best_epoch == 3


class Contradicting:
    """The training part teaches the opposite of the held-out part: the first epoch is the best."""

    def __init__(self, x, y):
        self.x, self.y = x, y

    def __iter__(self):
        return iter([(self.x, self.y)])

    def hold_out(self, share, seed):
        return Contradicting(self.x, 1 - self.y), self


def test_the_best_epoch_comes_back_with_its_batch_norm(network, dataset, tmp_path):
    taught = recover(network, dataset, quick(epochs=15), progress=False).model
    path, states = tmp_path / "recovery.safetensors", {}

    def keep(epoch, step):
        states[epoch] = under("model", load_file(path))

    result = recover(
        taught,
        Contradicting(*dataset.tensors),
        quick(epochs=4, learning_rate=0.3),
        checkpoint=path,
        checkpoint_interval_s=0,
        on_step=keep,
        progress=False,
    )
    accuracies = [epoch.validation_top1_percent for epoch in result.history]
    assert accuracies[-1] < accuracies[0]
    best = 4 - accuracies[::-1].index(max(accuracies))
    assert result.best_epoch == best < 4
    own = result.model.state_dict()
    assert all(torch.equal(own[name], tensor) for name, tensor in states[best].items())
    assert not torch.equal(own["1.running_mean"], states[4]["1.running_mean"])


def test_averaged_weights_are_the_average_of_the_steps(network, dataset, tmp_path):
    path, weights = tmp_path / "recovery.safetensors", []
    result = recover(
        network,
        dataset,
        quick(ema=0.8, validation_fraction=0),
        checkpoint=path,
        checkpoint_interval_s=0,
        on_step=lambda epoch, step: weights.append(load_file(path)["model.6.weight"]),
        progress=False,
    )
    average = weights[0]
    for weight in weights[1:]:
        average = 0.8 * average + 0.2 * weight
    torch.testing.assert_close(result.model[6].weight.detach(), average)


def test_distillation_alone_needs_no_labels(network, make, images):
    dense = make(5, width=12)
    with torch.no_grad():
        dense[6].weight *= 8
    recovery = quick(epochs=12, distill=1)
    result = recover(network, images.split(16), recovery, dense=dense, progress=False)
    dense.eval().requires_grad_(False)
    network.requires_grad_(False)
    result.model.requires_grad_(False)
    before, after = (
        float(distillation_loss(model.eval()(images), dense(images), 1)) for model in (network, result.model)
    )
    assert after < 0.5 * before
    assert all(epoch.validation_top1_percent is None for epoch in result.history)


def test_labels_do_not_matter_to_distillation_alone(network, make, images, labels):
    recovery = quick(distill=1, validation_fraction=0)
    one, other = (
        recover(network, [(images, y)], recovery, dense=make(5), progress=False).model for y in (labels, 1 - labels)
    )
    assert same(one.state_dict(), other.state_dict())


def test_the_same_seed_gives_the_same_weights_and_another_does_not(network, dataset):
    one, again, other = (recover(network, dataset, QUICK, seed=s, progress=False).model.state_dict() for s in (1, 1, 2))
    assert same(one, again)
    assert not same(one, other)


def test_frozen_parameters_stay(network, dataset):
    network[0].requires_grad_(False)
    recovered = recover(network, dataset, QUICK, progress=False).model
    assert torch.equal(recovered[0].weight, network[0].weight)
    assert not recovered[0].weight.requires_grad
    assert not torch.equal(recovered[6].weight, network[6].weight)


def test_tied_weights_stay_tied_through_a_checkpoint(dataset, tmp_path):
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.one = nn.Linear(3, 3)
            self.two = nn.Linear(3, 3)
            self.two.weight = self.one.weight
            self.head = nn.Linear(3, 2)

        def forward(self, x):
            return self.head(self.two(self.one(x.mean((2, 3)))))

    path = tmp_path / "recovery.safetensors"
    recovered = recover(Tied(), dataset, QUICK, checkpoint=path, progress=False).model
    assert recovered.one.weight is recovered.two.weight
    again = recover(Tied(), dataset, quick(epochs=2, validation_fraction=0.2), progress=False).model
    assert again.one.weight is again.two.weight


def test_half_precision_training_returns_the_networks_own_type(network, dataset):
    result = recover(network, dataset, quick(epochs=15, precision="bf16-mixed"), progress=False)
    assert {p.dtype for p in result.model.parameters()} == {torch.float32}
    x, y = dataset.tensors
    assert float((result.model(x).argmax(1) == y).double().mean()) > 0.8


class Wrapped(nn.Module):
    def __init__(self, network, wrap):
        super().__init__()
        self.network, self.wrap = network, wrap

    def forward(self, pixel_values):
        return self.wrap(self.network(pixel_values))


def model_output(logits):
    outputs = pytest.importorskip("transformers.modeling_outputs")
    return outputs.ImageClassifierOutput(logits=logits)


@pytest.mark.parametrize("wrap", [lambda z: {"logits": z, "aux": z[:, :1]}, lambda z: (z, z[:, :1]), model_output])
def test_any_form_of_output_and_batch_trains_the_same(network, images, labels, wrap):
    plain = recover(network, [(images, labels)], QUICK, progress=False).model
    batches = [{"pixel_values": images, "labels": labels}]
    wrapped = recover(Wrapped(network, wrap), batches, QUICK, progress=False).model
    assert same(plain.state_dict(), wrapped.network.state_dict())


def test_outcome_of_reads_the_logits(network, images, labels):
    plain = recover(network, [(images, labels)], QUICK, progress=False).model
    odd = Wrapped(network, lambda z: {"boxes": z[:, :1], "classes": z})
    read = recover(odd, [(images, labels)], QUICK, outcome_of=lambda out: out["classes"], progress=False).model
    assert same(plain.state_dict(), read.network.state_dict())
    with pytest.raises(InputError, match=r"boxes.*classes"):
        recover(odd, [(images, labels)], QUICK, progress=False)


def never(epoch, step):
    pytest.fail("training started")


def with_labels(change):
    def batches(images, labels):
        return [(images, change(labels))]

    return batches


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (lambda x, y: [(x,)], "no labels"),
        (lambda x, y: TensorDataset(x, torch.cat([y[:-1], torch.tensor([2])])), "labels run from 0 to 2"),
        (with_labels(lambda y: torch.cat([y[:-1], torch.tensor([7])])), "labels run from 0 to 7"),
        (with_labels(lambda y: y - 1), "labels run from -1 to 0"),
        (with_labels(lambda y: y.double()), "float64"),
        (with_labels(F.one_hot), r"shape \(\d+, 2\)"),
        (lambda x, y: [(x[:, :2], y)], "expected input"),
        (lambda x, y: [(x.where(x < 1, float("nan")), y)], "NaN"),
        (lambda x, y: [(x, y[:5])], "must agree"),
    ],
)
def test_data_that_does_not_fit_is_refused_before_training(network, images, labels, data, message):
    with pytest.raises(InputError, match=message):
        recover(network, data(images, labels), QUICK, on_step=never, progress=False)


@pytest.mark.parametrize(
    ("changes", "arguments", "message"),
    [
        ({"distill": 0.5}, {}, "dense"),
        ({}, {"seed": -1}, "seed is -1"),
        ({}, {"resume": True}, "give checkpoint"),
        ({}, {"checkpoint": "no/such/folder/file"}, "cannot write"),
        ({"accelerator": "abacus"}, {}, "abacus"),
        ({"devices": 0}, {}, "devices"),
    ],
)
def test_arguments_that_cannot_work_are_refused_before_training(network, dataset, changes, arguments, message):
    with pytest.raises(InputError, match=message):
        recover(network, dataset, quick(**changes), on_step=never, progress=False, **arguments)


def test_networks_that_cannot_be_recovered_are_refused(network, make, dataset):
    broken = copy.deepcopy(network)
    with torch.no_grad():
        broken[6].bias[0] = float("nan")
    with pytest.raises(InputError, match="weights are broken"):
        recover(broken, dataset, QUICK, on_step=never, progress=False)
    frozen = copy.deepcopy(network).requires_grad_(False)
    with pytest.raises(InputError, match="nothing to recover"):
        recover(frozen, dataset, QUICK, on_step=never, progress=False)
    with pytest.raises(InputError, match=r"\(B, K\)"):
        recover(network[0], dataset, QUICK, on_step=never, progress=False)
    other = nn.Sequential(nn.Flatten(), nn.Linear(108, 5))
    with pytest.raises(InputError, match="differ in shape"):
        recover(network, dataset, quick(distill=0.1), dense=other, on_step=never, progress=False)


def test_a_loss_that_is_not_finite_stops_with_place_and_remedy(network, dataset):
    with pytest.raises(InputError, match=r"epoch 1, step \d+: use a lower learning_rate"):
        recover(network, dataset, quick(learning_rate=1e30), progress=False)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("epochs", 0),
        ("learning_rate", float("nan")),
        ("learning_rate", 0),
        ("momentum", 1),
        ("warmup_fraction", 1),
        ("distill", 1.1),
        ("temperature", 0),
        ("validation_fraction", 1),
        ("ema", 1.0),
        ("clip_grad_norm", -1),
        ("precision", "8-mixed"),
        ("optimizer", "lion"),
        ("strategy", "fsdp"),
        ("learningrate", 0.1),
    ],
)
def test_a_wrong_field_is_named_with_its_value(field, value):
    with pytest.raises(InputError, match=field) as caught:
        Recovery(**{field: value})
    assert str(caught.value).count("\n") == 0
    if field != "learningrate":
        assert repr(value) in str(caught.value)
