"""Weights come back from every file that people have; nothing is run, and what cannot be read ends in one message."""

import json
import pickle
import zipfile
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn

from whyprune.errors import FormatError
from whyprune.models import fingerprint, load_weights


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.bn, self.linear = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 3)


def prefixed(prefix, state, **more):
    return {prefix + name: tensor for name, tensor in state.items()} | more


WRAPPED = {
    "plain": lambda s: s,
    "state_dict": lambda s: {"state_dict": s, "epoch": 3},
    "model": lambda s: {
        "model": s,
        "optimizer": {"state": {0: {"step": torch.tensor(1.0)}}, "param_groups": [{"lr": 1}]},
    },
    "model_state_dict": lambda s: {"model_state_dict": s, "loss": 0.1},
    "net, data parallel": lambda s: {"net": prefixed("module.", s)},
    "compiled": lambda s: prefixed("_orig_mod.", s),
    "compiled, data parallel": lambda s: {"model": prefixed("module._orig_mod.", s)},
    "lightning": lambda s: {"state_dict": prefixed("model.", s, **{"criterion.weight": torch.ones(3)}), "epoch": 1},
    "another name": lambda s: {"state_dict": prefixed("student.", s)},
    "ema alone": lambda s: {"ema": s},
    "nested": lambda s: {"checkpoint": {"model": {"state_dict": s}}},
    "parameters": lambda s: {k: nn.Parameter(v) if v.is_floating_point() else v for k, v in s.items()},
    "half": lambda s: {k: v.half() if v.is_floating_point() else v for k, v in s.items()},
}


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".bin", ".ckpt", ""])
@pytest.mark.parametrize("zipped", [True, False])
def test_every_file_of_torch_save_comes_back(tmp_path, suffix, zipped):
    one, other = Net(), Net()
    torch.save(one.state_dict(), tmp_path / f"w{suffix}", _use_new_zipfile_serialization=zipped)
    assert load_weights(other, tmp_path / f"w{suffix}") == ""
    assert fingerprint(one) == fingerprint(other)


@pytest.mark.parametrize("wrapped", WRAPPED)
def test_weights_are_found_in_whatever_they_are_wrapped(tmp_path, wrapped):
    one, other = Net(), Net()
    torch.save(WRAPPED[wrapped](one.state_dict()), tmp_path / "w.pt")
    load_weights(other, tmp_path / "w.pt")
    for name, tensor in one.state_dict().items():
        assert torch.allclose(other.state_dict()[name].float(), tensor.float(), atol=1e-3), name


def test_where_several_sets_fit_the_usual_one_is_taken_and_it_is_said(tmp_path):
    one, average, other = Net(), Net(), Net()
    torch.save({"ema": average.state_dict(), "model": one.state_dict()}, tmp_path / "w.pt")
    said = load_weights(other, tmp_path / "w.pt")
    assert fingerprint(other) == fingerprint(one)
    assert said == "weights: taken from 'model' of w.pt; 'ema' would fit as well"


def test_what_lies_beside_the_weights_is_said(tmp_path):
    torch.save(WRAPPED["lightning"](Net().state_dict()), tmp_path / "w.ckpt")
    said = load_weights(Net(), tmp_path / "w.ckpt")
    assert "names under 'model.'" in said
    assert "1 tensors beside them left out" in said


def test_a_wrapped_network_gets_plain_weights(tmp_path):
    one, other = Net(), nn.DataParallel(Net())
    torch.save(one.state_dict(), tmp_path / "w.pt")
    load_weights(other, tmp_path / "w.pt")
    assert fingerprint(one) == fingerprint(other.module)


@pytest.mark.parametrize("kind", ["safetensors", "bin"])
def test_shards_are_put_together(tmp_path, kind):
    one, other = Net(), Net()
    state = one.state_dict()
    places = {name: f"part-{i % 2}.{kind}" for i, name in enumerate(state)}
    for file in set(places.values()):
        part = {name: state[name].clone() for name, place in places.items() if place == file}
        (save_file if kind == "safetensors" else torch.save)(part, tmp_path / file)
    index = tmp_path / f"model.{kind}.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": places}))
    load_weights(other, index)
    assert fingerprint(one) == fingerprint(other)
    with pytest.raises(FormatError, match=r"it is a folder: name the file|in which model.safetensors.index.json lies"):
        load_weights(other, tmp_path)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "no index of weights files"),
        ('{"weight_map": {"a": "../w.safetensors"}}', "other folders"),
        ('{"weight_map": {"a": "/etc/w.safetensors"}}', "other folders"),
        ('{"weight_map": {"a": "none.safetensors"}}', "no weights file"),
        ('{"weight_map": {"a": "w.index.json"}}', "another index"),
        ('{"weight_map": {"gone": "w.safetensors"}}', r"lack gone \(1 in all\)"),
        ('{"weight_map": 3}', "no index"),
        ("[1]", "no index"),
    ],
)
def test_an_index_that_is_broken_or_hostile_is_refused(tmp_path, text, words):
    save_file({"a": torch.ones(1)}, tmp_path / "w.safetensors")
    (tmp_path / "w.index.json").write_text(text)
    with pytest.raises(FormatError, match=words):
        load_weights(Net(), tmp_path / "w.index.json")


class Bomb:
    def __reduce__(self):
        return Path.touch, (Path("exploded"),)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("held", [Bomb(), {"state_dict": {"conv.weight": torch.ones(1)}, "hyper": Bomb()}, Net()])
def test_objects_are_never_made_and_the_way_out_is_said(tmp_path, monkeypatch, zipped, held):
    monkeypatch.chdir(tmp_path)
    torch.save(held, "w.pt", _use_new_zipfile_serialization=zipped)
    model = Net()
    before = fingerprint(model)
    with pytest.raises(FormatError, match=r"w.pt holds Python objects .*it was not.*save its weights alone") as caught:
        load_weights(model, "w.pt")
    assert "weights_only=False" in str(caught.value)
    assert not Path("exploded").exists()
    assert fingerprint(model) == before


def test_a_pickle_named_safetensors_is_not_read_as_one(tmp_path):
    torch.save(Net().state_dict(), tmp_path / "w.safetensors")
    with pytest.raises(FormatError, match="no whole safetensors file"):
        load_weights(Net(), tmp_path / "w.safetensors")


def test_torchscript_is_told_apart(tmp_path):
    torch.jit.save(torch.jit.script(nn.Linear(2, 2)), tmp_path / "w.pt")
    with pytest.raises(FormatError, match=r"TorchScript file: give the weights alone"):
        load_weights(Net(), tmp_path / "w.pt")


@pytest.mark.parametrize("held", [[torch.ones(2)], torch.ones(2), {"epoch": 3}, 7, {}])
def test_a_file_without_named_tensors_says_so(tmp_path, held):
    torch.save(held, tmp_path / "w.pt")
    with pytest.raises(FormatError, match=r"holds no weights by name"):
        load_weights(Net(), tmp_path / "w.pt")


def test_an_archive_that_would_fill_the_memory_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "w.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("w/data.pkl", pickle.dumps({}))
        archive.writestr("w/data/0", bytes(2**22))
    with pytest.raises(FormatError, match=r"would unpack to 4,194,\d+ bytes"):
        load_weights(Net(), tmp_path / "w.pt")


def test_keys_that_do_not_fit_are_named_with_the_place_they_were_found(tmp_path):
    state = Net().state_dict()
    state["head.bias"] = state.pop("linear.bias")
    torch.save({"model": state}, tmp_path / "w.pt")
    words = r"w.pt \(under 'model'\).*1 keys missing \(linear.bias\), 1 unexpected \(head.bias\)"
    with pytest.raises(FormatError, match=words):
        load_weights(Net(), tmp_path / "w.pt")


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_damaged_files_of_torch_save_load_or_are_refused(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("w") / "w.pt"
    torch.save(Net().state_dict(), path, _use_new_zipfile_serialization=data.draw(st.booleans(), label="zipped"))
    whole = path.read_bytes()
    if data.draw(st.booleans(), label="truncate"):
        path.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])
    else:
        position = data.draw(st.integers(0, len(whole) - 1))
        path.write_bytes(whole[:position] + bytes([data.draw(st.integers(0, 255))]) + whole[position + 1 :])
    model = Net()
    before = fingerprint(model)
    try:
        load_weights(model, path)
    except FormatError:
        assert fingerprint(model) == before
