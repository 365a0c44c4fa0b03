"""Whatever stands in a result folder: loading runs nothing and writes nothing, and refuses it or gives what it says."""

import json
import struct

import pytest
import torch
from hostile import (
    DTYPES,
    NETWORKS,
    Attributes,
    assert_refused_or_as_written,
    damaged,
    hostile,
    nothing_happens,
    numbers,
    packed,
    subject,
    values,
    words,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load as parsed

from whyprune.errors import FormatError
from whyprune.structure.file import load, read_plan
from whyprune.structure.plan import check_plan

many = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


@pytest.fixture
def folder(tmp_path):
    return tmp_path


def write(folder, plan: bytes | dict, weights: bytes) -> None:
    (folder / "plan.json").write_bytes(plan if isinstance(plan, bytes) else json.dumps(plan).encode())
    (folder / "model.safetensors").write_bytes(weights)


def cut_to_fit(tensors, removed):
    """Tensors of the shapes that a plan's entries ask for, as far as they make sense."""
    for entry in [e for e in removed if isinstance(e, dict)] if isinstance(removed, list) else ():
        key, axis, indices = entry.get("parameter"), entry.get("axis"), entry.get("indices")
        held = tensors.get(key) if isinstance(key, str) else None
        if held is not None and type(axis) is int and isinstance(indices, list) and 0 <= axis < held.dim():
            tensors[key] = held.narrow(axis, 0, max(held.shape[axis] - len(indices), 0))
    return tensors


@pytest.mark.parametrize("name", NETWORKS)
def test_an_honest_folder_loads_and_does_nothing_else(name, folder):
    network, plan, weights, fresh = subject(name)
    write(folder, plan, weights)
    load(fresh, folder)
    with nothing_happens():
        load(fresh, folder)
    check_plan(network, read_plan(folder))
    load(fresh, folder, example_inputs=network.example)


@pytest.mark.parametrize("name", NETWORKS)
@given(st.data())
@many
def test_a_hostile_plan_is_refused_or_gives_what_it_says(name, folder, data):
    _, plan, weights, _ = subject(name)
    write(folder, data.draw(hostile(plan)), weights)
    assert_refused_or_as_written(name, folder)


@pytest.mark.parametrize("name", NETWORKS)
@given(st.data())
@many
def test_a_hostile_plan_with_weights_made_to_fit_is_refused_or_gives_what_it_says(name, folder, data):
    """The author of a plan can write the weights as well: shapes alone refuse nothing."""
    _, plan, _, fresh = subject(name)
    mutant = data.draw(hostile(plan))
    write(folder, mutant, packed(cut_to_fit(dict(fresh.state_dict()), mutant.get("removed"))))
    assert_refused_or_as_written(name, folder)


@given(st.data())
@many
def test_bytes_of_a_plan_that_were_flipped_are_refused_or_give_what_they_say(folder, data):
    _, plan, weights, _ = subject("attributes")
    write(folder, data.draw(damaged(json.dumps(plan).encode())), weights)
    assert_refused_or_as_written("attributes", folder)


@pytest.mark.parametrize("deep", ["[", '{"a":', '[{"a":'])
def test_deep_nesting_is_refused(folder, deep):
    _, plan, weights, _ = subject("attributes")
    close = {"[": "]", '{"a":': "}", '[{"a":': "}]"}[deep]
    for depth in (50, 500, 200_000):
        text = json.dumps(plan).replace('{"macs": 0.5}', '{"macs": ' + deep * depth + "1" + close * depth + "}")
        write(folder, text.encode(), weights)
        assert_refused_or_as_written("attributes", folder)


# Weights


@given(st.data())
@many
def test_damaged_weights_are_refused_or_loaded_as_they_are(folder, data):
    _, plan, weights, _ = subject("attributes")
    write(folder, plan, data.draw(damaged(weights)))
    assert_refused_or_as_written("attributes", folder)


@given(st.data())
@many
def test_a_forged_header_is_refused_or_loaded_as_it_says(folder, data):
    _, plan, weights, _ = subject("attributes")
    size = struct.unpack("<Q", weights[:8])[0]
    header, body = json.loads(weights[8 : 8 + size]), weights[8 + size :]
    for _ in range(data.draw(st.integers(1, 3))):
        name = data.draw(st.sampled_from(sorted(header)))
        forged = {
            "dtype": st.sampled_from(DTYPES) | words,
            "shape": st.lists(numbers, max_size=4),
            "data_offsets": st.lists(st.integers(-1, len(body) + 9) | numbers, max_size=3),
            "extra": values,
        }
        key = data.draw(st.sampled_from(sorted(forged)))
        if isinstance(header[name], dict):
            header[name][key] = data.draw(forged[key])
        if data.draw(st.integers(0, 3)) == 0:
            header[data.draw(words)] = header.pop(name)
    text = json.dumps(header).encode()
    claimed = data.draw(st.sampled_from((len(text), len(text), len(text), 0, 2**40, 2**64 - 1)))
    write(folder, plan, struct.pack("<Q", claimed) + text + body)
    assert_refused_or_as_written("attributes", folder)


@given(
    st.sampled_from(sorted(Attributes().state_dict())),
    st.sampled_from(
        (torch.float64, torch.float16, torch.bfloat16, torch.int8, torch.int64, torch.bool, torch.complex64)
    ),
    st.sampled_from((0.0, 1.0, 3.0, 300.0, 1e30, 1e200, float("nan"), float("inf"), -float("inf"))),
)
@many
def test_values_that_do_not_fit_their_place_are_refused_or_loaded_as_they_are(folder, key, kind, value):
    _, plan, weights, _ = subject("attributes")
    tensors = parsed(weights)
    tensors[key] = torch.full(tensors[key].shape, value, dtype=torch.double).to(kind)
    write(folder, plan, packed(tensors))
    assert_refused_or_as_written("attributes", folder)


# The contract on attributes


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"module": "", "attribute": "steps", "value": 5}, "attributes are not those of a removal"),
        ({"module": "", "attribute": "parts", "place": 1, "value": 3}, "attributes are not those of a removal"),
    ],
)
def test_a_number_that_counts_no_channels_is_told_by_a_trace(folder, change, message):
    """Without a trace a user's own integer may shrink: no file could prove what it counts."""
    network, plan, weights, fresh = subject("attributes")
    write(folder, {**plan, "attributes": [*plan["attributes"], change]}, weights)
    load(fresh, folder)
    with pytest.raises(FormatError, match=message):
        load(fresh, folder, example_inputs=network.example)


@pytest.mark.parametrize(
    "change",
    [
        {"module": "0", "attribute": "stride", "place": 0, "value": 1},
        {"module": "0", "attribute": "padding", "place": 0, "value": 0},
        {"module": "0", "attribute": "kernel_size", "place": 1, "value": 1},
        {"module": "0", "attribute": "groups", "place": 0, "value": 0},
        {"module": "3", "attribute": "groups", "place": 0, "value": 0},
        {"module": "6", "attribute": "dilation", "place": 0, "value": 0},
        {"module": "7", "attribute": "output_size", "place": 0, "value": 0},
        {"module": "8", "attribute": "start_dim", "place": 0, "value": 0},
        {"module": "8", "attribute": "end_dim", "place": 0, "value": -1},
    ],
)
def test_numbers_of_torchs_layers_that_never_count_channels_stay(folder, change):
    _, plan, weights, fresh = subject("grouped")
    write(folder, {**plan, "attributes": [change]}, weights)
    with pytest.raises(FormatError):
        load(fresh, folder)


@pytest.mark.parametrize(
    ("parameter", "axis", "indices"), [("0.weight", 2, [0]), ("6.bias", 0, [4]), ("1.running_var", 0, [5])]
)
def test_cuts_that_leave_a_layer_in_pieces_are_refused(folder, parameter, axis, indices):
    _, plan, _, fresh = subject("grouped")
    entry = {"parameter": parameter, "axis": axis, "indices": indices}
    tensors = dict(fresh.state_dict())
    tensors[parameter] = tensors[parameter].narrow(axis, 0, tensors[parameter].shape[axis] - len(indices))
    write(folder, {**plan, "removed": [entry], "attributes": []}, packed(tensors))
    with pytest.raises(FormatError, match="parts that do not fit"):
        load(fresh, folder)


def test_a_unit_in_parts_is_told_by_a_trace(folder):
    network, plan, weights, fresh = subject("attributes")
    shifted = [{**e, "indices": [(i + 1) % 6 for i in e["indices"]]} if e["axis"] == 1 else e for e in plan["removed"]]
    write(folder, {**plan, "removed": shifted}, weights)
    load(fresh, folder)
    with pytest.raises(FormatError, match="indices are not those of a removal of whole units"):
        load(fresh, folder, example_inputs=network.example)
