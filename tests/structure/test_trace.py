"""What `trace` finds removable, what it refuses and why, and what it cannot trace at all."""

import inspect

import networks
import pytest
import torch
import torch.nn.functional as F
from networks import CASES, Middle, Residual, build, image, randomised, traced, vector
from removal_property import assert_same_snapshot, snapshot
from torch import nn

from whyprune.errors import InputError, TraceError
from whyprune.models import BUILT_INS
from whyprune.structure.remove import remove
from whyprune.structure.trace import trace

CALL = "self.operation(self.two"  # the line of `forward` that leads to the operation


def line_of(text):
    """The line of networks.py that holds `text`, as refusals name it."""
    lines = inspect.getsource(networks).splitlines()
    return f"networks.py:{next(i for i, line in enumerate(lines, 1) if text in line)}"


@pytest.mark.parametrize("name", CASES)
def test_what_can_be_removed_is_what_a_person_would_say(name):
    assert {g.name: len(g.units) for g in traced(name).groups} == CASES[name].removable


@pytest.mark.parametrize("name", [*CASES, *BUILT_INS])
def test_units_tell_where_they_are(name):
    network = traced(name)
    shapes = {n: t.shape for n, t in network.model.state_dict().items()}
    names = [u.name for u in network.units]
    assert len(set(names)) == len(names)
    held = [(s.parameter, s.axis, i) for u in network.units for s in u.slices for i in s.indices]
    assert len(set(held)) == len(held)  # no index goes with two units
    assert all(i < shapes[parameter][axis] for parameter, axis, i in held)
    for group in network.groups:
        for unit in group.units:
            assert unit.name == f"{group.name}:{unit.index}"
            assert tuple((s.parameter, s.axis, len(s.indices)) for s in unit.slices) == group.axes


@pytest.mark.parametrize(
    ("name", "width", "expected"),
    [
        # stem and every conv2 of stage 1, then padded into stages 2 and 3
        ("resnet20", 16, {"conv1"} | {f"layer1.{b}.conv1" for b in range(3)}),
        ("resnet56", 16, {"conv1"} | {f"layer1.{b}.conv1" for b in range(9)}),
    ],
)
def test_the_residual_stream_is_one_group(name, width, expected):
    network = traced(name)
    assert {g.name for g in network.groups if len(g.units) == width and "layer2" not in g.name} == expected
    axes = {parameter for parameter, _, _ in network.group("conv1").axes}
    assert {"conv1.weight", "layer1.0.conv2.weight", "layer2.0.conv2.weight", "linear.weight"} <= axes
    assert len(network.group("layer3.0.conv2").units) == 32  # the channels that the last shortcut pads


@pytest.mark.parametrize(
    ("name", "line", "reason", "channels"),
    [
        ("view constant", "the line that names the width", "view there names a width as the constant 96", 6),
        ("pad closure", "return self.function(x)", "pad there names a width as the constant 2", 4),  # 2 at each end
        ("constant depthwise", "groups=6 if", "conv2d there names a width as the constant 6", 6),
        ("operation: fft", CALL, "no rule for aten.fft_fft", 6),
        ("operation: cumsum", CALL, "cumsum runs over these channels", 6),
        ("operation: pooling", CALL, "avg_pool1d runs over these channels", 6),
    ],
)
def test_refusals_say_where_and_why(name, line, reason, channels):
    found = [r for r in traced(name).refusals if reason in r.reason and line_of(line) in r.where]
    assert found, [str(r) for r in traced(name).refusals]
    assert max(r.channels for r in found) == channels


def test_attributes_follow_the_channels_they_count():
    network = traced("pad shortcut")
    assert {(r.module, r.attribute, r.value) for r in network.attributes} == {
        ("shortcut", "before", 2),
        ("shortcut", "after", 2),
    }
    before = [u for u in network.group("second.0").units if u.index < 2]
    pruned = remove(network, before[:1])
    assert (pruned.shortcut.before, pruned.shortcut.after) == (1, 2)
    assert (network.model.shortcut.before, network.model.shortcut.after) == (2, 2)


@pytest.mark.parametrize("name", ["residual", "view constant", "pad shortcut", "shared conv", "tied"])
def test_tracing_changes_nothing(name):
    model = build(name)
    before = snapshot(model)
    trace(model, CASES[name].inputs())
    assert_same_snapshot(before, snapshot(model))


def test_one_example_is_enough_and_any_batch_size_runs():
    network = trace(build("residual"), image()[:1])
    assert network.graph.batch_size is None
    assert [u.name for u in network.units] == [u.name for u in traced("residual").units]


class FixedBatch(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.head = nn.Linear(5, 6), nn.Linear(6, 4)

    def forward(self, x):
        return self.head(F.relu(self.one(x)).view(2, -1))


class TwoPaths(FixedBatch):
    def forward(self, x):
        return self.head(F.relu(self.one(x))) * (2 if x.shape[0] > 3 else 1)


@pytest.mark.parametrize("model", [FixedBatch, TwoPaths])
def test_a_model_with_a_fixed_batch_size_says_so(model):
    network = trace(randomised(model()), vector(5)[:2])
    assert network.graph.batch_size == 2
    assert {g.name: len(g.units) for g in network.groups} == {"one": 6}


def test_training_mode_is_refused():
    with pytest.raises(InputError, match=r"the model is in training mode: call model.eval\(\)"):
        trace(build("mlp").train(), vector(5))
    model = build("residual")
    model.first[1].train()
    with pytest.raises(InputError, match=r"part 'first\.1' is in training mode"):
        trace(model, image())


@pytest.mark.parametrize(
    ("example", "message"),
    [
        (lambda: torch.zeros(2, 7), r"does not run on example inputs of shape \[\(2, 7\)\]"),
        (lambda: (torch.zeros(2, 5), torch.zeros(2, 5)), "does not run on example inputs"),
        (lambda: {"x": torch.zeros(2, 5)}, "does not run on example inputs"),
        (lambda: torch.zeros(0, 5), "not be 0"),
        (lambda: torch.tensor(1.0), "not be 0"),
        (lambda: torch.full((2, 5), torch.nan), "NaN"),
        (lambda: (), "no input tensor"),
        (lambda: "images", "example_inputs is a str"),
        (lambda: 3, "example_inputs is a int"),
    ],
)
def test_example_inputs_that_cannot_be_used(example, message):
    with pytest.raises(InputError, match=message):
        trace(build("mlp"), example())


class PartlyInPlace(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.head = nn.Linear(5, 6), nn.Linear(6, 4)

    def forward(self, x):
        x = self.one(x)
        x[:, :2].mul_(3)
        return self.head(x)


def test_a_tensor_that_is_written_in_parts_is_kept_with_its_line():
    line = PartlyInPlace.forward.__code__.co_firstlineno + 2
    network = trace(randomised(PartlyInPlace()), vector(5))
    found = [r for r in network.refusals if f"test_trace.py:{line}" in r.where]
    assert not network.units
    assert found


def test_randomness_is_refused():
    with pytest.raises(TraceError, match="random"):
        trace(randomised(Middle(lambda x: x + torch.rand_like(x))), vector(5))


def test_a_padding_attribute_in_the_model_itself_is_only_changed_when_that_helps():
    """`width` happens to equal the constant in the lambda: it must not be taken for its source."""
    model = randomised(Residual(10, shortcut=networks.Closure(networks.pad_four_channels)))
    model.shortcut.width = model.shortcut.other = 2
    network = trace(model, image())
    assert {g.name: len(g.units) for g in network.groups} == CASES["pad closure"].removable
    assert [r for r in network.attributes if set(r.labels) & {u.label for u in network.units}] == []


def test_unknown_group_names_list_the_known():
    with pytest.raises(InputError, match=r"no group named 'x': the groups are \['0', '3'\]"):
        traced("mlp").group("x")
