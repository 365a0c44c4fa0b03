"""A saved result gives the same network back, or one clear error; no file harms the fresh model."""

import json
import shutil

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import CASES, build, traced
from removal_property import assert_same_snapshot, fresh_batch, output, removals, snapshot

from whyprune.errors import FormatError, InputError
from whyprune.structure.file import load, read_plan, save_plan, save_weights
from whyprune.structure.plan import make_plan
from whyprune.structure.remove import remove

NAME = "pad shortcut"


def save(name, folder):
    network = traced(name)
    units = removals(network, singles=0)[0] if network.units else []
    pruned = remove(network, units)
    save_plan(make_plan(network, units, method="random", budget={"macs": 0.5}), folder)
    save_weights(pruned, folder)
    return pruned


@pytest.fixture
def folder(tmp_path):
    save(NAME, tmp_path)
    return tmp_path


def rewrite(folder, change):
    plan = json.loads((folder / "plan.json").read_text())
    change(plan)
    (folder / "plan.json").write_text(json.dumps(plan))


def assert_refused(folder, message, name=NAME):
    fresh = build(name, seed=9)
    before = snapshot(fresh)
    with pytest.raises(FormatError, match=message):
        load(fresh, folder)
    assert_same_snapshot(before, snapshot(fresh))


@pytest.mark.parametrize("name", CASES)
def test_a_saved_network_comes_back_bit_for_bit(name, tmp_path):
    pruned = save(name, tmp_path)
    fresh = build(name, seed=9).train()
    before = snapshot(fresh)
    loaded = load(fresh, tmp_path)
    assert_same_snapshot(before, snapshot(fresh))
    assert not loaded.training
    batch = fresh_batch(traced(name))
    for one, other in zip(leaves(loaded, batch), leaves(pruned, batch), strict=True):
        assert torch.equal(one, other)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model.safetensors", "plan.json"]


def leaves(model, batch):
    return torch.utils._pytree.tree_leaves(output(model, batch))


def test_a_plan_comes_back_as_it_was(folder):
    network = traced(NAME)
    expected = make_plan(network, removals(network, singles=0)[0], method="random", budget={"macs": 0.5})
    assert read_plan(folder) == expected


def test_saving_over_an_older_result_replaces_it(folder):
    network = traced(NAME)
    plan = make_plan(network, network.units[:1])
    save_plan(plan, folder)
    assert read_plan(folder) == plan


def test_a_folder_that_does_not_exist_cannot_be_written_to(tmp_path):
    with pytest.raises(InputError, match="cannot write"):
        save_plan(make_plan(traced(NAME), []), tmp_path / "none")
    with pytest.raises(InputError, match="cannot write"):
        save_weights(traced(NAME).model, tmp_path / "none")


def test_missing_files_are_named(folder, tmp_path_factory):
    assert_refused(tmp_path_factory.mktemp("empty"), r"plan\.json does not exist")
    assert_refused(folder / "nothing", r"plan\.json does not exist")
    (folder / "model.safetensors").unlink()
    assert_refused(folder, r"model\.safetensors")


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_truncated_files_are_refused(folder, share):
    for name in ("model.safetensors", "plan.json"):
        path = folder / name
        path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
        assert_refused(folder, name)


def test_weights_of_another_pruned_network_are_refused(folder, tmp_path_factory):
    other = tmp_path_factory.mktemp("other")
    network = traced(NAME)
    save_weights(remove(network, network.units[:1]), other)
    shutil.copy(other / "model.safetensors", folder)
    assert_refused(folder, "has shape")


def test_a_result_of_another_architecture_is_refused(folder):
    assert_refused(folder, "for another model", name="residual")


def test_weights_that_are_not_finite_are_refused(folder):
    pruned = remove(traced(NAME), removals(traced(NAME), singles=0)[0])
    torch.nn.init.constant_(pruned.head.bias, torch.inf)
    save_weights(pruned, folder)
    assert_refused(folder, "NaN or infinite")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: p.update(schema_version=2), "schema_version"),
        (lambda p: p.update(schema_version="1"), "schema_version"),
        (lambda p: p.update(surprise=1), "surprise"),
        (lambda p: p.pop("architecture"), "architecture"),
        (lambda p: p.pop("removed"), "removed"),
        (lambda p: p["removed"][0].update(axis=-1), "removed.0.axis"),
        (lambda p: p["removed"][0].update(axis=True), "removed.0.axis"),
        (lambda p: p["removed"][0].update(indices=[-1]), "removed.0.indices.0"),
        (lambda p: p["removed"][0].update(indices=[0.5]), "removed.0.indices.0"),
        (lambda p: p["removed"][0].update(indices=["1"]), "removed.0.indices.0"),
        (lambda p: p["removed"][0].update(indices=[10**30]), "removed.0.indices.0"),
        (lambda p: p["removed"][0].update(step=2), "removed.0.step"),
        (lambda p: p["attributes"][0].update(value="1"), "attributes.0.value"),
        (lambda p: p["attributes"][0].update(value=1.0), "attributes.0.value"),
        (lambda p: p["attributes"][0].update(value=True), "attributes.0.value"),
        (lambda p: p["attributes"][0].update(value=None), "attributes.0.value"),
        (lambda p: p["attributes"][0].update(value=-1), "attributes.0.value"),
        (lambda p: p["attributes"][0].update(value=3), "no integer of the model that could shrink"),
        (lambda p: p["attributes"][0].update(module="stem.0"), "no integer of the model"),
        (lambda p: p["attributes"][0].update(attribute="_parameters"), "no integer of the model"),
        (lambda p: p["removed"][0].update(parameter="nine"), "does not have"),
        (lambda p: p["removed"].append(p["removed"][0]), "not distinct"),
        (lambda p: p["removed"].pop(), "parts that do not fit"),
    ],
)
def test_plans_that_were_tampered_with_are_refused(folder, change, message):
    rewrite(folder, change)
    assert_refused(folder, message)


@pytest.mark.parametrize(
    "text", ["", "null", "[]", "{}", "3", '"plan"', "{" * 10_000, "[" * 100_000, "\0", '{"removed": NaN}']
)
def test_what_is_no_plan_is_refused(folder, text):
    (folder / "plan.json").write_text(text)
    assert_refused(folder, "is no valid plan")


def test_bytes_that_are_no_text_are_refused(folder):
    (folder / "plan.json").write_bytes(b"\xff\xfe" * 50)
    assert_refused(folder, "is no valid plan")


def test_a_folder_in_place_of_a_file_is_refused(folder):
    (folder / "plan.json").unlink()
    (folder / "plan.json").mkdir()
    assert_refused(folder, "does not exist")


def test_a_huge_plan_is_not_read(folder, monkeypatch):
    monkeypatch.setattr("whyprune.structure.file.MAX_PLAN_BYTES", 100)
    assert_refused(folder, "no plan is that large")


values = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 12) | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=2),
    max_leaves=4,
)


def places(value, path=()):
    """Every path in a JSON value."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from places(inner, (*path, key))


@st.composite
def mutated(draw, plan):
    """A plan in which up to three places were replaced, deleted, repeated or swapped for one another."""
    plan = json.loads(json.dumps(plan))
    for _ in range(draw(st.integers(1, 3))):
        paths = sorted((p for p in places(plan) if p), key=str)
        *outer, last = draw(st.sampled_from(paths))
        parent = plan
        for key in outer:
            parent = parent[key]
        action = draw(st.sampled_from(["replace", "delete", "repeat", "small"]))
        if action == "replace":
            parent[last] = draw(values)
        elif action == "small":
            parent[last] = draw(st.integers(0, 9))
        elif action == "delete":
            del parent[last]
        elif isinstance(parent, list):
            parent.append(parent[last])
        if not plan:
            break
    return plan


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fuzzed")
    save(NAME, folder)
    return folder, json.loads((folder / "plan.json").read_text()), build(NAME, seed=9)


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_a_mutated_plan_is_refused_or_fits(stored, data):
    folder, plan, fresh = stored
    mutant = data.draw(mutated(plan))
    (folder / "plan.json").write_text(json.dumps(mutant))
    before = snapshot(fresh)
    try:
        loaded = load(fresh, folder)
    except FormatError:
        pass
    else:
        shapes = {name: list(t.shape) for name, t in fresh.state_dict().items()}
        for entry in mutant["removed"]:
            shapes[entry["parameter"]][entry["axis"]] -= len(entry["indices"])
        assert {name: list(t.shape) for name, t in loaded.state_dict().items()} == shapes
    assert_same_snapshot(before, snapshot(fresh))
