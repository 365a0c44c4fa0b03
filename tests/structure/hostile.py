"""Hostile plans and weights, and what loading them may do."""

import json
import sys
import tempfile
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import torch
from hypothesis import strategies as st
from networks import CLASSES, build, traced, vector
from removal_property import assert_same_snapshot, fresh_batch, output, removals, snapshot
from safetensors.torch import load as parsed
from safetensors.torch import save
from torch import nn
from wide_models import WIDE_MODELS

from whyprune.errors import FormatError
from whyprune.structure.file import load, read_plan, save_weights
from whyprune.structure.network import Network
from whyprune.structure.plan import check_plan, make_plan
from whyprune.structure.remove import attribute_values, remove, removed_indices
from whyprune.structure.trace import trace

FORBIDDEN = (
    *("exec", "compile", "import", "pickle", "subprocess", "os.system", "os.exec", "os.posix_spawn", "os.fork"),
    *("os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.chmod", "os.chdir", "os.truncate"),
    *("shutil", "tempfile", "socket", "urllib", "ctypes.dlopen", "marshal"),
)
watching: list[str] = []
seen: list[str] = []


def _audit(event: str, arguments: tuple) -> None:
    writes = event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+")
    if watching and (writes or event.startswith(FORBIDDEN)):
        seen.append(f"{event} {arguments[:1]!r}")


sys.addaudithook(_audit)


@contextmanager
def nothing_happens():
    """Fails if code is compiled, run or imported, a process or connection opened, or a file written, meanwhile."""
    seen.clear()
    watching.append("now")
    try:
        yield
    finally:
        watching.pop()
    assert not seen


class Attributes(nn.Module):
    """Numbers that count channels, and numbers of the same kind that do not."""

    def __init__(self) -> None:
        super().__init__()
        self.width, self.steps, self.parts, self._secret = 6, 6, [6, 4], 6
        self.one, self.two = nn.Linear(5, 6), nn.Linear(6, 8)
        self.norm, self.head = nn.LayerNorm(8), nn.Linear(8, CLASSES)
        self.register_buffer("order", torch.tensor([2, 0, 1, 3, 5, 4]), persistent=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.one(x).view(-1, self.width)
        return self.head(self.norm(torch.relu(self.two(torch.relu(x * self.steps)))))


NETWORKS = {
    "attributes": lambda: (Attributes().eval(), vector(5)),
    "pad shortcut": lambda: (build("pad shortcut"), traced("pad shortcut").example.args[0]),
    "grouped": lambda: (build("grouped"), traced("grouped").example.args[0]),
    "weight norm": lambda: (WIDE_MODELS["weight norm"].model(), WIDE_MODELS["weight norm"].draw(3)),
}


@cache
def subject(name: str) -> tuple[Network, dict, bytes, nn.Module]:
    """A traced network, a plan and weights for it as files hold them, and a fresh instance."""
    model, example = NETWORKS[name]()
    network = trace(model, example)
    units = removals(network, singles=0)[0]
    plan = make_plan(network, units, method="random", budget={"macs": 0.5})
    return network, json.loads(plan.model_dump_json()), weights_of(remove(network, units)), NETWORKS[name]()[0]


def weights_of(model: nn.Module) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        save_weights(model, Path(folder))
        return Path(folder, "model.safetensors").read_bytes()


# What a hostile plan may hold

numbers = st.integers(-3, 12) | st.sampled_from((2**31, 2**31 + 1, 2**63, -(2**63), 10**40, 1.5, True, None))
words = st.sampled_from(
    (
        *(
            "",
            ".",
            "..",
            "../../etc/passwd",
            "/tmp/x",
            "~",
            "\0",
            "\x1b[31m",
            "one..weight",
            "one.weight",
            "one",
            "head",
        ),
        *("__class__", "__dict__", "__init__", "forward", "eval", "_parameters", "_buffers", "training", "state_dict"),
        *("width", "steps", "parts", "_secret", "order", "normalized_shape", "in_features", "out_features", "groups"),
        *("stride", "padding", "dilation", "kernel_size", "num_features", "eps", "momentum", "before", "after"),
        *("stem.0.weight", "stem.1.running_var", "0.weight", "0.bias", "3.weight", "norm.weight", "two.weight"),
        *("parametrizations.weight.original0", "0.parametrizations.weight.original1", "0", "1", "2", "3", "stem.0"),
        *("!!python/object/apply:os.system ['id']", "${jndi:x}", "{0.__class__}", "%n%s", "A" * 5000),
    )
) | st.text(max_size=6)
values = st.recursive(
    numbers | words,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(words, inner, max_size=3),
    max_leaves=6,
)
entries = st.fixed_dictionaries(
    {"parameter": words, "axis": st.integers(0, 4), "indices": st.lists(numbers, max_size=4)}
)
changes = st.fixed_dictionaries(
    {"module": words, "attribute": words, "place": st.integers(0, 3), "value": st.integers(0, 9)}
)


def places(value, path=()):
    """Every path in a JSON value but the whole."""
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield (*path, key)
        yield from places(inner, (*path, key))


@st.composite
def hostile(draw, plan):
    """A valid plan in which some places were replaced, deleted, repeated, moved or added to."""
    plan = json.loads(json.dumps(plan))
    for _ in range(draw(st.integers(1, 3))):
        action = draw(st.sampled_from(("cut", "set", "number", "number", "word", "value", "delete", "repeat", "key")))
        held = [p for p in places(plan) if len(p) > 1] or [("units",)]
        *outer, last = draw(st.sampled_from(sorted(held, key=str)))
        parent = plan
        for key in outer:
            parent = parent[key]
        if action in ("cut", "set"):
            name, made = ("removed", entries) if action == "cut" else ("attributes", changes)
            plan[name] = [*plan[name], draw(made)] if isinstance(plan.get(name), list) else [draw(made)]
        elif action == "delete":
            parent.pop(last, None) if isinstance(parent, dict) else parent.pop(last)
        elif action == "repeat" and isinstance(parent, list):
            parent.insert(draw(st.integers(0, len(parent))), parent[last])
        elif action == "key" and isinstance(parent, dict):
            parent[draw(words)] = draw(values)
        else:
            parent[last] = draw({"number": numbers, "word": words}.get(action, values))
    return plan


def assert_refused_or_as_written(name, folder):
    """Refused by our own error; or the plan's shapes, the file's values, and no attribute but the plan's changed."""
    network, _, _, fresh = subject(name)
    before = snapshot(fresh)
    files = {p.name: p.read_bytes() for p in folder.iterdir()}
    try:
        with nothing_happens():
            loaded = load(fresh, folder)
    except FormatError:
        loaded = None
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == files
    assert_same_snapshot(before, snapshot(fresh))
    if loaded is None:
        return
    plan = read_plan(folder)
    shapes = {n: list(t.shape) for n, t in fresh.state_dict().items()}
    for entry in plan.removed:
        if entry.parameter in shapes:
            shapes[entry.parameter][entry.axis] -= len(entry.indices)
    assert {n: list(t.shape) for n, t in loaded.state_dict().items()} == shapes
    for key, tensor in parsed(files["model.safetensors"]).items():
        own = loaded.state_dict()[key]
        assert torch.equal(own, tensor.to(own.dtype))  # a wider float is rounded
    assert [type(m) for m in loaded.modules()] == [type(m) for m in fresh.modules()]
    assert_is_removal_or_told(network, fresh, plan, loaded)


def assert_is_removal_or_told(network, fresh, plan, loaded):
    """With a trace at hand, what is accepted is a removal of whole units, down to each attribute."""
    try:
        check_plan(network, plan)
    except FormatError:
        return
    gone = {(entry.parameter, entry.axis): set(entry.indices) for entry in plan.removed}
    units = [u for u in network.units if all(set(s.indices) <= gone.get(s[:2], set()) for s in u.slices)]
    assert {key: set(indices.tolist()) for key, indices in removed_indices(units).items()} == gone
    assert {(c.module, c.attribute, c.place, c.value) for c in plan.attributes} == set(attribute_values(network, units))
    honest = remove(network, units)
    honest.load_state_dict(loaded.state_dict())
    assert_same_snapshot(snapshot(honest), snapshot(loaded))
    batch = fresh_batch(network)
    torch.testing.assert_close(output(honest, batch), output(loaded, batch), rtol=0, atol=0, equal_nan=True)


def packed(tensors) -> bytes:
    return save({k: t.clone().contiguous() for k, t in tensors.items()})


@st.composite
def damaged(draw, content: bytes) -> bytes:
    """Bytes flipped, cut off, doubled or put in."""
    content = bytearray(content)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(len(content) - 1, 0)))
        kind = draw(st.sampled_from(("flip", "flip", "cut", "insert", "drop", "double")))
        if kind == "flip" and content:
            content[at] ^= 1 << draw(st.integers(0, 7))
        elif kind == "cut":
            del content[at:]
        elif kind == "insert":
            content[at:at] = draw(st.binary(max_size=9))
        elif kind == "drop":
            del content[at : at + draw(st.integers(1, 40))]
        else:
            content += content[at:]
    return bytes(content)


DTYPES = (
    *("F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2", "F4", "I64", "I32", "I16", "I8", "U8", "U64", "BOOL"),
    *("C64", "F8_E8M0", "U16", "U32"),
)
