"""What is captured computes what the model computes, also where Python code decides by values of tensors."""

import inspect
from collections import namedtuple
from functools import cache

import networks
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from networks import CASES, Middle, Residual, TwoInputs, build, image, randomised, traced, vector
from removal_property import assert_close, assert_same_snapshot, snapshot
from torch import nn
from torch.utils import _pytree as pytree
from transformers import ResNetConfig, ResNetForImageClassification

from whyprune.data.batches import Batch
from whyprune.errors import InputError, TraceError
from whyprune.structure.capture import as_example, capture, module_path, user_frame
from whyprune.structure.remove import masked, remove
from whyprune.structure.replay import Replay
from whyprune.structure.trace import trace

Pair = namedtuple("Pair", ["logits", "hidden"])
OFFSET = torch.linspace(-1, 1, 6)


def by_mean(x):
    if x.mean() > -100:  # the line that looks at values
        return F.relu(x)
    return x.cumsum(1)


def by_item(x):
    return torch.tanh(x) if x.abs().sum().item() > 0 else x


def by_numpy(x):
    return F.relu(x) if np.isfinite(x.detach().numpy()).all() else x


def by_any(x):
    return x * 2 if (x < -1e6).any() else F.gelu(x)


def counted(x):
    for _ in range(int(torch.tensor(2.0) + (x.abs().max() > 0))):
        x = torch.sin(x)
    return x


def until(x):
    steps = torch.zeros((), dtype=torch.long)
    while steps < 2:
        steps += 1
        x = x + 0.5 * F.relu(x) if bool(x.isfinite().all()) else x
    return x


def constants(x):
    return by_mean(x) * torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0, 6.0]) + OFFSET


def through_views(x):
    x = by_mean(x)
    return x.view(x.shape[0] * 2, 3).flip(1).reshape(x.shape[0], 6) + x.new_ones(x.shape[0], 1)


def without_gradient(x):
    with torch.no_grad():
        return by_mean(x)


class Nested(nn.Module):
    """Modules within modules; one of them branches and runs twice."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(5, 6), networks.Closure(by_mean))
        self.twice = nn.Sequential(nn.Linear(6, 6), networks.Closure(by_item))
        self.head = nn.Linear(6, 4)

    def forward(self, x):
        return self.head(self.twice(self.twice(self.body(x))))


class Returns(Nested):
    """The logits inside whatever `fold` makes of them."""

    def __init__(self, fold):
        super().__init__()
        self.fold = fold

    def forward(self, x):
        hidden = self.body(x)
        return self.fold(self.head(hidden), hidden)


class TiedByValue(networks.Tied):
    def forward(self, x):
        return super().forward(by_mean(x))


class Named(TwoInputs):
    """Two inputs and a switch that is no tensor."""

    def forward(self, image, vector, double=False):
        return super().forward(by_mean(image) * (2 if double else 1), vector)


def middle(operation):
    return lambda: Middle(operation)


BY_VALUE = {
    "branch": (middle(by_mean), lambda: vector(5)),
    "item": (middle(by_item), lambda: vector(5)),
    "numpy": (middle(by_numpy), lambda: vector(5)),
    "any": (middle(by_any), lambda: vector(5)),
    "counted loop": (middle(counted), lambda: vector(5)),
    "while loop": (middle(until), lambda: vector(5)),
    "constants": (middle(constants), lambda: vector(5)),
    "views": (middle(through_views), lambda: vector(5)),
    "no grad": (middle(without_gradient), lambda: vector(5)),
    "convolutions": (lambda: Residual(6, shortcut=networks.Closure(by_mean)), image),
    "nested": (Nested, lambda: vector(5)),
    "tied": (TiedByValue, lambda: vector(5)),
    "tuple": (lambda: Returns(lambda y, h: (y, [h, h + 1])), lambda: vector(5)),
    "dict": (lambda: Returns(lambda y, h: {"hidden": h, "logits": y, "width": 6}), lambda: vector(5)),
    "named tuple": (lambda: Returns(Pair), lambda: vector(5)),
    "two inputs": (Named, lambda: (image(), vector(5))),
    "by name": (lambda: Named(names=True), lambda: {"vector": vector(5), "image": image(), "double": True}),
}


def by_value(name):
    model, inputs = BY_VALUE[name]
    return randomised(model()), as_example(inputs())


@cache
def fixed(name):
    """Each network is traced once for all tests."""
    return trace(*by_value(name))


def repeated(example, count):
    """The example's inputs again, `count` in all: the branches stay as they are."""
    return example[torch.arange(count) % len(example)]


def assert_same_output(found, expected, tolerance=1e-5):
    left, left_spec = pytree.tree_flatten(found)
    right, right_spec = pytree.tree_flatten(expected)
    assert left_spec == right_spec
    for a, b in zip(left, right, strict=True):
        if isinstance(b, torch.Tensor):
            assert_close(a, b, tolerance)
        else:
            assert a == b


@pytest.mark.parametrize("name", BY_VALUE)
def test_branches_on_values_are_fixed_and_replayed(name):
    network = fixed(name)
    model, example = network.model, network.example
    assert network.graph.fixed_branches
    assert network.graph.batch_size is None
    replay = Replay(network)
    for batch in (example, repeated(example, 1), repeated(example, 8)):
        with torch.no_grad():
            assert_same_output(replay.output(replay.run(batch)), batch.call(model))


@pytest.mark.parametrize("name", ["branch", "counted loop", "convolutions", "tied", "by name"])
def test_a_network_with_fixed_branches_is_pruned_right(name):
    network = fixed(name)
    example = network.example
    for unit in network.units[::2]:
        pruned, reference = remove(network, [unit]), masked(network, [unit])
        with torch.no_grad():
            assert_same_output(example.call(pruned), example.call(reference))
            replay = Replay(network, pruned, [unit])
            assert_same_output(replay.output(replay.run(example)), example.call(pruned))


@pytest.mark.parametrize(
    ("without", "operation"),
    [(F.relu, by_mean), (torch.tanh, by_item), (F.relu, by_numpy), (F.gelu, by_any), (F.relu, without_gradient)],
)
def test_what_only_decides_a_branch_leaves_no_trace(without, operation):
    example = as_example(vector(5))
    plain = capture(randomised(Middle(without)), example)
    decided = capture(randomised(Middle(operation)), example)
    assert (plain.fixed_branches, decided.fixed_branches) == (False, True)
    assert [n.target for n in decided.operations] == [n.target for n in plain.operations]
    assert [str(n.meta["val"].shape[1:]) for n in decided.operations] == [
        str(n.meta["val"].shape[1:]) for n in plain.operations
    ]


@pytest.mark.parametrize("name", ["residual", "squeeze excite", "layer scale"])
def test_both_captures_see_the_same_operations(name, monkeypatch):
    """A branch on values in front of a network changes nothing of what is behind it."""
    model, example = build(name), as_example(CASES[name].inputs())
    forward = type(model).forward

    def looking(self, x):
        return forward(self, x) if x.isfinite().all().item() else x

    plain = capture(model, example)
    monkeypatch.setattr(type(model), "forward", looking)
    decided = capture(model, example)
    assert (plain.fixed_branches, decided.fixed_branches) == (False, True)

    def told(graph):
        def argument(value):
            return graph.state_names.get(value.name, value.op) if isinstance(value, torch.fx.Node) else value

        return [(n.target, pytree.tree_map(argument, [*n.args]), module_path(n)) for n in graph.operations]

    assert told(decided) == told(plain)
    assert [user_frame(n) for n in decided.operations] == [user_frame(n) for n in plain.operations]


def written(x):
    x, counter = by_mean(x) + 0, torch.zeros(())
    x[:, :2].mul_(3)
    while counter < 2:
        counter += 1
    return x


def test_writes_are_kept_where_they_count():
    network = trace(randomised(Middle(written)), vector(5))
    names = [str(n.target) for n in network.graph.operations]
    assert network.graph.fixed_branches
    assert names.count("aten.mul.Tensor") == 1
    assert not [n for n in names if "add_." in n or "zeros" in n or "item" in n]
    with torch.no_grad():
        replay = Replay(network)
        assert_same_output(replay.output(replay.run(network.example)), network.example.call(network.model))
        for unit in network.units:
            found = network.example.call(remove(network, [unit]))
            assert_same_output(found, network.example.call(masked(network, [unit])))


def test_state_and_constants_are_told_apart():
    model, graph = fixed("constants").model, fixed("constants").graph
    assert set(graph.state_names.values()) == {name for name, _ in model.named_parameters()}
    found = sorted(tuple(t.tolist()) for t in graph.constants.values())
    assert found == sorted([tuple(OFFSET.tolist()), (1.0, 2.0, 3.0, 4.0, 5.0, 6.0)])


def test_shared_parameters_have_their_first_name():
    graph = fixed("tied").graph
    assert "other.weight" not in graph.state_names.values()
    assert sum(n.target is torch.ops.aten.linear.default for n in graph.operations) == 4
    by_name = {graph.state_names[n.args[1].name] for n in graph.operations if n.name.startswith("linear")}
    assert by_name == {"inner.weight", "one.weight", "head.weight"}


def test_nodes_say_where_they_come_from():
    graph = fixed("nested").graph
    places = [(str(n.target).split(".")[1], module_path(n)) for n in graph.operations]
    assert places == [
        ("linear", "body.0"),
        ("relu", "body.1"),
        *2 * [("linear", "twice.0"), ("tanh", "twice.1")],
        ("linear", "head"),
    ]
    relu = graph.operations[1]
    assert user_frame(relu) == f"test_capture.py:{by_mean.__code__.co_firstlineno + 2}"


class Unknown:
    def __init__(self, logits):
        self.logits = logits


def carried(x):
    by_mean(x)
    return x * float(x.mean())  # the line that carries a number


def carried_by_numpy(x):
    by_mean(x)
    return x + torch.from_numpy(np.tanh(x.detach().numpy()))  # the line that carries a tensor


def cast(x):
    by_mean(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        x = x @ torch.eye(6)
    return x.float()


def knife_edge(x):
    for _ in range(1 + int(abs(x.double().sum().item()) * 1e12) % 99):
        x = torch.sin(x)
    return x


class WithScale(Nested):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor([1.5]))

    def forward(self, x):
        return super().forward(x) * self.scale.item()  # the line that carries a parameter


def line_with(text):
    import sys

    lines = inspect.getsource(sys.modules[__name__]).splitlines()
    return next(i for i, line in enumerate(lines, 1) if line.rstrip().endswith(text))


@pytest.mark.parametrize(
    ("model", "line", "message"),
    [
        (middle(carried), "# the line that carries a number", "mul gets the number .*keep it a tensor"),
        (WithScale, "# the line that carries a parameter", "mul gets the number .*keep it a tensor"),
        (middle(carried_by_numpy), "# the line that carries a tensor", "made outside PyTorch"),
        (middle(cast), None, "_enter_autocast cannot be recorded"),
        (middle(knife_edge), None, "last digits"),
        (lambda: Returns(lambda y, h: Unknown(y)), None, "returns a Unknown: return tensors in tuples, lists or dicts"),
    ],
)
def test_what_neither_capture_can_take_is_refused_with_its_line(model, line, message):
    place = rf"test_capture\.py:{line_with(line)}: " if line else ""
    with pytest.raises(TraceError, match=f"cannot be traced.*{place}.*{message}"):
        capture(randomised(model()), as_example(vector(5)))


def test_what_follows_the_batch_otherwise_than_in_proportion_fixes_it():
    def all_but_one(x):
        x = by_mean(x)
        return torch.cat([x[: x.shape[0] - 1], x[-1:] * 2])

    def only_three(x):
        return by_mean(x) * torch.arange(1.0, 4.0)[:, None]

    for operation in (all_but_one, only_three):
        model, example = randomised(Middle(operation)), as_example(vector(5))
        graph = capture(model, example)
        assert (graph.fixed_branches, graph.batch_size) == (True, 3)
    with pytest.raises(InputError, match="only runs on batches of 3, not of 4"):
        Replay(trace(randomised(Middle(all_but_one)), vector(5))).logits(Batch((torch.zeros(4, 5),), {}))


class Counting(Nested):
    """Counts its calls and writes to its input."""

    def __init__(self):
        super().__init__()
        self.register_buffer("calls", torch.zeros((), dtype=torch.long))

    def forward(self, x):
        self.calls += 1
        return super().forward(x.mul_(2))


@pytest.mark.parametrize("name", ["nested", "tied", "constants"])
def test_capturing_changes_nothing(name):
    model, example = by_value(name)
    before = snapshot(model)
    capture(model, example)
    assert_same_snapshot(before, snapshot(model))
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_inputs_and_counters_are_left_alone():
    model, example = randomised(Counting()), as_example(vector(5))
    graph = capture(model, example)
    assert torch.equal(example.args[0], vector(5))
    assert int(model.calls) == 1  # the one real run, not those recorded
    with torch.no_grad():
        assert_close(graph.returned, model(vector(5)))


@pytest.mark.parametrize("name", ["residual", "dicts", "two outputs"])
def test_what_the_model_returned_is_kept(name):
    network = traced(name)
    with torch.no_grad():
        assert_same_output(network.graph.returned, network.example.call(network.model), 1e-6)


def test_a_library_model_with_a_branch_in_front(monkeypatch):
    config = ResNetConfig(embedding_size=8, hidden_sizes=[8, 12], depths=[1, 1], layer_type="basic", num_labels=3)
    model, example = randomised(ResNetForImageClassification(config)), Batch((), {"pixel_values": image()})
    plain = trace(model, example)
    forward = type(model).forward

    def looking(self, pixel_values):
        if pixel_values.max().item() > 1e6:
            raise ValueError("images are not normalised")
        return forward(self, pixel_values)

    monkeypatch.setattr(type(model), "forward", looking)
    network = trace(model, example)
    assert network.graph.fixed_branches
    assert [(g.name, g.axes, len(g.units)) for g in network.groups] == [
        (g.name, g.axes, len(g.units)) for g in plain.groups
    ]
    replay = Replay(network)
    with torch.no_grad():
        assert_same_output(dict(replay.output(replay.run(example))), dict(example.call(model)))
