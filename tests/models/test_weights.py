"""Weights survive a round trip; files that do not fit are refused and leave the model as it was."""

import os
import pickle
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn

from whyprune.errors import FormatError
from whyprune.models import architecture_fingerprint, fingerprint, load_model, load_weights


class Net(nn.Module):
    def __init__(self, classes=3, tied=False):
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)
        self.bn = nn.BatchNorm2d(4)
        self.linear = nn.Linear(4, classes)
        self.again = nn.Linear(4, classes)
        if tied:
            self.again.weight = self.linear.weight


def saved(path, model, drop=(), **changes):
    """A file of the model's weights, without `drop` and with changes by name (dots as __)."""
    state = {k: v.clone() for k, v in model.state_dict().items() if k not in drop}
    save_file(state | {k.replace("__", "."): v for k, v in changes.items()}, path)
    return path


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_round_trip_gives_the_same_network(tmp_path, prefix, dtype):
    one, other = Net().to(dtype), Net().to(dtype)
    assert fingerprint(one) != fingerprint(other)
    save_file({prefix + k: v for k, v in one.state_dict().items()}, tmp_path / "w.safetensors")
    load_weights(other, tmp_path / "w.safetensors")
    assert fingerprint(one) == fingerprint(other)


def test_a_models_own_module_prefix_stays(tmp_path):
    one, other = nn.DataParallel(Net()), nn.DataParallel(Net())
    load_weights(other, saved(tmp_path / "w.safetensors", one))
    assert fingerprint(one) == fingerprint(other)


def test_batch_counters_may_be_missing(tmp_path):
    one, other = Net(), Net()
    other.bn.num_batches_tracked.fill_(5)
    load_weights(other, saved(tmp_path / "w.safetensors", one, drop=["bn.num_batches_tracked"]))
    assert torch.equal(one.conv.weight, other.conv.weight)
    assert other.bn.num_batches_tracked == 5


def test_a_shared_parameter_may_be_saved_once(tmp_path):
    one, other = Net(tied=True), Net(tied=True)
    path = saved(tmp_path / "w.safetensors", one, drop=["again.weight"])
    load_weights(other, path)
    assert torch.equal(other.again.weight, one.linear.weight)
    with pytest.raises(FormatError, match="1 keys missing"):
        load_weights(Net(), path)


@pytest.mark.parametrize(
    ("drop", "changes", "message"),
    [
        (["conv.bias"], {}, r"1 keys missing \(conv\.bias\), 0 unexpected:"),
        ([], {"head__bias": torch.zeros(2)}, r"0 keys missing, 1 unexpected \(head\.bias\)"),
        (
            ["bn.bias", "bn.weight", "bn.running_mean", "bn.running_var"],
            {},
            r"4 keys missing \(bn\.bias, bn\.running_mean, bn\.running_var, \.\.\.\)",
        ),
        (
            [],
            {"linear__weight": torch.zeros(5, 4)},
            r"linear\.weight has shape \(5, 4\), the model's is \(3, 4\)",
        ),
        ([], {"conv__bias": torch.zeros(4, dtype=torch.int8)}, r"conv\.bias has type torch\.int8"),
        ([], {"conv__bias": torch.tensor([0, 1, 2, float("nan")])}, r"conv\.bias holds NaN"),
        ([], {"bn__running_var": torch.tensor([0, 1, 2, float("inf")])}, r"bn\.running_var holds NaN or inf"),
        ([], {"conv__bias": torch.full((4,), float("nan"), dtype=torch.bfloat16)}, r"conv\.bias holds NaN"),
    ],
)
def test_weights_that_do_not_fit_are_refused_and_change_nothing(tmp_path, drop, changes, message):
    model = Net()
    before = fingerprint(model)
    with pytest.raises(FormatError, match=message):
        load_weights(model, saved(tmp_path / "w.safetensors", Net(), drop, **changes))
    assert fingerprint(model) == before


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_damaged_files_load_or_are_refused(tmp_path_factory, data):
    path = saved(tmp_path_factory.mktemp("w") / "w.safetensors", Net())
    whole = path.read_bytes()
    if data.draw(st.booleans(), label="truncate"):
        path.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])
        with pytest.raises(FormatError, match=r"w\.safetensors"):
            load_weights(Net(), path)
        return
    position = data.draw(st.integers(0, min(len(whole), 900) - 1))
    path.write_bytes(whole[:position] + bytes([data.draw(st.integers(0, 255))]) + whole[position + 1 :])
    model = Net()
    before = fingerprint(model)
    try:
        load_weights(model, path)
    except FormatError:
        assert fingerprint(model) == before


class Bomb:
    def __reduce__(self):
        return os.mkdir, ("exploded",)


@pytest.mark.parametrize("name", ["w.pt", "w.pth", "w.bin", "w.PKL", "w.safetensors", "w"])
def test_pickles_are_refused_and_never_run(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    Path(name).write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(FormatError, match="save"):
        load_weights(Net(), name)
    assert not Path("exploded").exists()


def test_missing_files_and_folders_are_named(tmp_path):
    for path in (tmp_path / "none.safetensors", tmp_path):
        with pytest.raises(FormatError, match="no weights file"):
            load_weights(Net(), path)


def test_fingerprints_see_every_bit_of_the_weights_alone():
    one = Net()
    same = Net()
    same.load_state_dict(one.state_dict())
    same.eval().requires_grad_(False)
    assert fingerprint(same) == fingerprint(one)
    before = fingerprint(same)
    value = same.conv.bias.data
    value[1] = torch.nextafter(value[1], torch.tensor(9.0))
    assert fingerprint(same) != before


def test_the_fingerprint_does_not_depend_on_the_memory_layout():
    model = Net()
    before = fingerprint(model)
    assert fingerprint(model.to(memory_format=torch.channels_last)) == before


def test_the_architecture_fingerprint_sees_names_types_and_shapes_alone():
    assert architecture_fingerprint(Net()) == architecture_fingerprint(Net())
    different = [Net(), Net(classes=4), Net().double(), nn.Sequential(Net())]
    assert len({architecture_fingerprint(model) for model in different}) == 4


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_fingerprints_take_every_type(dtype):
    model = Net().to(dtype)
    before = fingerprint(model)
    model.conv.bias.data[0] += 1
    assert fingerprint(model) != before


@pytest.mark.data
@pytest.mark.skipif("WHYPRUNE_DATA" not in os.environ, reason="WHYPRUNE_DATA names no checkpoints")
def test_a_checkpoint_of_another_depth_is_refused():
    path = Path(os.environ["WHYPRUNE_DATA"], "checkpoints", "cifar10-resnet56.safetensors")
    with pytest.raises(FormatError, match=r"0 keys missing, 180 unexpected \(layer1\.3"):
        load_weights(load_model("resnet20", num_classes=10, image_shape=None), path)
