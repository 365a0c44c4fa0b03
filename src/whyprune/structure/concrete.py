"""Record what a model computes on its example inputs, as a straight line of operations without branches.

`torch.export` follows shapes, not values: Python code that looks into tensors (`if x.mean() > 0`, `.item()`, a
detour through NumPy) stops it. Here the model really runs, each branch is taken as the example takes it, and the
operations on that way make a module that `torch.export` can take. A number that reaches an operation around the
graph, because Python code read it from a tensor, would be frozen: moving all values a little finds it.
"""

import inspect
import operator
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import FrameType
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch._ops import OpOverload
from torch.fx import traceback
from torch.fx.experimental.proxy_tensor import make_fx
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from whyprune.data.batches import Batch
from whyprune.structure.copies import duplicate
from whyprune.structure.recording import RecordedModule, Recording, drop_dead, with_batch_size

PLAIN = (Tensor, int, float, bool, str, type(None))


class RecordingError(Exception):
    """Why operations on the way cannot stand for the model, and the node at which that shows, if there is one."""

    def __init__(self, reason: str, node: fx.Node | None = None) -> None:
        super().__init__(reason)
        self.node = node


def recorded_module(model: nn.Module, example: Batch) -> RecordedModule:
    """Records `model` on `example`; the model itself is not run and not changed.

    Numbers that grow with the batch become multiples of the batch size, where runs at two further sizes agree.

    Args:
        model: in evaluation mode.
        example: what it runs on; nothing in it is changed.

    Raises:
        RecordingError: a number computed from values of tensors reaches an operation, the branches hang on the
            last digits of the inputs, or the model leaves PyTorch's operations.
    """
    recording = _record(model, example)
    _refuse_carried_values(recording, model, example)
    free = _free_the_batch(recording, model, example)
    return RecordedModule(recording, free)


def _record(model: nn.Module, example: Batch) -> Recording:
    model = duplicate(model)
    _note_modules(model)
    state = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    leaves, spec = pytree.tree_flatten((example.args, example.kwargs))
    inputs = [v.clone() for v in leaves if isinstance(v, Tensor)]
    specs: list[Any] = []

    def run(_state: list[Tensor], inputs: list[Tensor]) -> list[Any]:
        given = iter(inputs)
        args, kwargs = pytree.tree_unflatten([next(given) if isinstance(v, Tensor) else v for v in leaves], spec)
        with _Places():
            returned, out_spec = pytree.tree_flatten(model(*args, **kwargs))
        specs.append(out_spec)
        unknown = next((v for v in returned if not isinstance(v, PLAIN)), None)
        if unknown is not None:
            raise RecordingError(f"it returns a {type(unknown).__name__}: return tensors in tuples, lists or dicts")
        return returned

    # The exporter records batch norm without cuDNN: so does this.
    with torch.no_grad(), traceback.preserve_node_meta(), torch.backends.cudnn.flags(enabled=False):
        traced = make_fx(run, pre_dispatch=True, _error_on_data_dependent_ops=False)(list(state.values()), inputs)
    _refuse_foreign(traced.graph)
    constants = {n.target: _constant(traced, n.target) for n in traced.graph.nodes if n.op == "get_attr"}
    placeholders = [n for n in traced.graph.nodes if n.op == "placeholder"]
    for name, node in zip(state, placeholders, strict=False):
        with traced.graph.inserting_after(placeholders[-1]):
            node.replace_all_uses_with(traced.graph.create_node("get_attr", name))
        traced.graph.erase_node(node)
    drop_dead(traced.graph)
    return Recording(traced.graph, state, constants, specs[-1])


def _constant(module: nn.Module, name: str) -> Tensor:
    value: Tensor = getattr(module, name)
    return value.detach()


def _refuse_foreign(graph: fx.Graph) -> None:
    """Raises where something ran that is no ATen operation, such as autocast or vmap."""
    for node in graph.nodes:
        known = isinstance(node.target, OpOverload) or node.target in (operator.getitem, torch._C._set_grad_enabled)
        if node.op == "call_function" and not known:
            raise RecordingError(f"{getattr(node.target, '__name__', node.target)} cannot be recorded", node)


class _Places(TorchFunctionMode):
    """Notes for each operation the lines of code that lead to it."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        meta, frame = traceback.get_current_meta(), inspect.currentframe()
        meta["stack_trace"] = "\n".join(reversed(list(_lines(frame.f_back if frame else None))))
        try:
            return func(*args, **(kwargs or {}))
        finally:
            meta.pop("stack_trace", None)


def _lines(frame: FrameType | None) -> Iterator[str]:
    """The frames of the model's own run, innermost first, as a traceback writes them."""
    while frame is not None and frame.f_code.co_filename != __file__:
        yield f'  File "{frame.f_code.co_filename}", line {frame.f_lineno}, in {frame.f_code.co_name}'
        frame = frame.f_back


def _note_modules(model: nn.Module) -> None:
    """From now on each module notes for the operations it runs that it is the one."""

    def enter(name: str, kind: type) -> Callable[..., None]:
        def hook(*_: Any) -> None:
            meta = traceback.get_current_meta()
            meta["nn_module_stack"] = {**meta.get("nn_module_stack", {}), name: (name, kind)}

        return hook

    def leave(name: str) -> Callable[..., None]:
        def hook(*_: Any) -> None:
            meta = traceback.get_current_meta()
            meta["nn_module_stack"] = {k: v for k, v in meta.get("nn_module_stack", {}).items() if k != name}

        return hook

    for name, module in model.named_modules():
        module.register_forward_pre_hook(enter(name, type(module)), prepend=True)
        module.register_forward_hook(leave(name), always_call=True)


def _refuse_carried_values(recording: Recording, model: nn.Module, example: Batch) -> None:
    """Raises where a number or tensor in the recorded operations changes when all values move a little."""
    for move in (lambda eps: eps**0.5, lambda eps: 16 * eps):
        difference = _compare(recording, _record(*_moved(model, example, move)))
        if difference.parted is None:
            break
    else:
        raise RecordingError(
            "a branch changes with the last digits of the inputs: decide by something steadier", difference.parted
        )
    for node, value, _ in difference.values.values():
        if isinstance(value, Tensor):
            reason = "a tensor is made outside PyTorch from values of tensors"
            raise RecordingError(f"{reason}: compute it with PyTorch's operations", _placed(node))
        name = getattr(node.target, "__name__", str(node.target)).split(".")[0]
        reason = f"{name} gets the number {value!r}, which Python code computed from values of tensors or drew"
        raise RecordingError(f"{reason}: keep it a tensor", node)


def _placed(node: fx.Node) -> fx.Node:
    """The first operation behind a constant whose place in the code is known."""
    while node.users and "stack_trace" not in node.meta:
        node = next(iter(node.users))
    return node


def _moved(model: nn.Module, example: Batch, move: Callable[[float], float]) -> tuple[nn.Module, Batch]:
    """Copies with every floating-point parameter and input moved by a relative amount, a function of its precision."""
    generator = torch.Generator().manual_seed(0)

    def moved(value: Any) -> Any:
        if not isinstance(value, Tensor) or not value.is_floating_point():
            return value
        noise = torch.randn(value.shape, generator=generator).to(value)
        return value * (1 + move(torch.finfo(value.dtype).eps) * noise)

    model = duplicate(model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(moved(parameter))
    return model, Batch(*pytree.tree_map(moved, (example.args, example.kwargs)))


def _free_the_batch(recording: Recording, model: nn.Module, example: Batch) -> bool:
    """Writes numbers that are multiples of the batch size as such; False where other sizes change anything else."""
    size = len(example)
    found: list[dict[tuple[int, int], int]] = []
    for other in (size + 1, 2 * size + 1):
        try:
            difference = _compare(recording, _record(model, example[torch.arange(other) % size]))
        except Exception:  # noqa: BLE001 - whatever stops it, it does not run at that size
            return False
        numbers = difference.values.items()
        if difference.parted is not None or not all(_grows(a, b, size, other) for _, (_, a, b) in numbers):
            return False
        found.append({place: value // size for place, (_, value, _) in numbers})
    if found[0] != found[1]:
        return False
    with_batch_size(recording, found[0])
    return True


def _grows(value: Any, other: Any, size: int, other_size: int) -> bool:
    return type(value) is int and value % size == 0 and other == value // size * other_size


@dataclass(frozen=True)
class _Difference:
    """Where two recordings differ.

    Attributes:
        values: (position of a node, position among its arguments) -> the node, its value and the other's value.
        parted: the first node from which on they are not the same operations; None if they are.
    """

    values: dict[tuple[int, int], tuple[fx.Node, Any, Any]]
    parted: fx.Node | None


def _compare(one: Recording, other: Recording) -> _Difference:
    values: dict[tuple[int, int], tuple[fx.Node, Any, Any]] = {}
    left, right = list(one.graph.nodes), list(other.graph.nodes)
    positions = {node: i for nodes in (left, right) for i, node in enumerate(nodes)}
    for i, (a, b) in enumerate(zip(left, right, strict=False)):
        pair = one.arguments(a), other.arguments(b)
        if (a.op, a.target) != (b.op, b.target) or len(pair[0]) != len(pair[1]):
            return _Difference(values, a)
        for j, (x, y) in enumerate(zip(*pair, strict=True)):
            if type(x) is not type(y) or (isinstance(x, fx.Node) and positions[x] != positions[y]):
                return _Difference(values, a)
            if not isinstance(x, fx.Node) and not _equal(x, y):
                values[i, j] = (a, x, y)
    return _Difference(values, None if len(left) == len(right) else min(left, right, key=len)[-1])


def _equal(x: Any, y: Any) -> bool:
    if isinstance(x, Tensor):
        return x.dtype == y.dtype and torch.equal(x, y)
    return bool(x == y or (x != x and y != y))  # noqa: PLR0124 - NaN is the same number here
