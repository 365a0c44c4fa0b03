"""Capture a model's computation as a graph of ATen operations, without changing or copying the model."""

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.export import Dim, ExportedProgram
from torch.utils import _pytree as pytree

from whyprune.data.batches import Batch, checked
from whyprune.errors import InputError, TraceError

ANY_SIZE = 2**31


@dataclass(frozen=True)
class Graph:
    """The captured computation.

    Attributes:
        nodes: operations, inputs and the output, in execution order.
        state_names: placeholder name -> name of the parameter or buffer it stands for.
        constants: placeholder name -> tensor that the model's code holds outside its state.
        inputs: placeholder names of the user's tensors, in flattened order.
        out_spec: how the flat outputs fold back into what the model returns.
        batch_size: None when any batch size runs, else the only one that does.
    """

    nodes: tuple[fx.Node, ...]
    state_names: dict[str, str]
    constants: dict[str, Tensor]
    inputs: tuple[str, ...]
    out_spec: Any
    batch_size: int | None

    @property
    def operations(self) -> list[fx.Node]:
        """The nodes that compute something."""
        return [n for n in self.nodes if n.op == "call_function"]

    @property
    def output(self) -> fx.Node:
        """The node that gathers the outputs."""
        return self.nodes[-1]


def as_example(example_inputs: Any) -> Batch:
    """Reads `example_inputs` as a batch of two or more.

    A batch of one is doubled: a batch dimension of 1 could not be told from a dimension that is always 1.

    Args:
        example_inputs: a tensor, a tuple of positional or a dict of keyword inputs, batch first.

    Raises:
        InputError: there is no tensor in it, their lengths differ or are 0, or they hold NaN.
    """
    if isinstance(example_inputs, Batch):
        batch = example_inputs
    elif isinstance(example_inputs, Tensor):
        batch = Batch((example_inputs,), {})
    elif isinstance(example_inputs, Mapping):
        batch = Batch((), dict(example_inputs))
    elif isinstance(example_inputs, Sequence) and not isinstance(example_inputs, str):
        batch = Batch(tuple(example_inputs), {})
    else:
        raise InputError(f"example_inputs is a {type(example_inputs).__name__}: give a tensor, a tuple or a dict")
    batch = checked(Batch(batch.args, batch.kwargs))
    return batch[torch.tensor([0, 0])] if len(batch) == 1 else batch


def capture(model: nn.Module, example: Batch) -> Graph:
    """Captures `model` on `example` with torch.export; the batch size stays free where the model allows it.

    Raises:
        InputError: the model, or a part of it, is in training mode, or does not run on the example.
        TraceError: the model runs but cannot be captured; the message says where and why.
    """
    training = next((name for name, module in model.named_modules() if module.training), None)
    if training is not None:
        who = f"the model's part {training!r}" if training else "the model"
        raise InputError(f"{who} is in training mode: call model.eval() first, so that it computes one function")
    try:
        with torch.no_grad():
            example.call(model)
    except Exception as error:
        shapes = [tuple(t.shape) for t in example.tensors()]
        raise InputError(f"the model does not run on example inputs of shape {shapes}: {first_line(error)}") from error
    try:
        program, free = _export(model, example)
    except Exception as error:
        raise TraceError(
            f"the model cannot be traced{_user_frame(error)}: {first_line(error)}; "
            "make that line depend on shapes only, not on values of tensors"
        ) from error
    return _graph(program, model, None if free else len(example))


def _export(model: nn.Module, example: Batch) -> tuple[ExportedProgram, bool]:
    def free(value: Any) -> Any:
        return {0: Dim.AUTO} if isinstance(value, Tensor) and value.dim() else None

    dynamic = {"args": pytree.tree_map(free, example.args), "kwargs": pytree.tree_map(free, example.kwargs)}
    shapes = (*dynamic["args"], *dynamic["kwargs"].values())
    with _quiet():
        try:
            program = torch.export.export(
                model,
                example.args,
                example.kwargs,
                dynamic_shapes=_by_name(model, example, shapes),
                strict=False,
            )
            return program, _batch_is_free(program)
        except Exception:  # noqa: BLE001 - the exporter raises many kinds; the next line raises its own
            return torch.export.export(model, example.args, example.kwargs, strict=False), False


def _by_name(model: nn.Module, example: Batch, shapes: tuple[Any, ...]) -> Any:
    """`dynamic_shapes` in the order of the signature: positional first, then keywords as they were given."""
    if not example.kwargs:
        return shapes
    import inspect

    names = list(inspect.signature(model.forward).bind(*example.args, **example.kwargs).arguments)
    positional = names[: len(example.args)]
    by_keyword = dict(zip(example.kwargs, shapes[len(example.args) :], strict=True))
    return {**dict(zip(positional, shapes, strict=False)), **by_keyword}


def _batch_is_free(program: ExportedProgram) -> bool:
    names = set(program.graph_signature.user_inputs)
    sizes = [n.meta["val"].shape[0] for n in program.graph.nodes if n.name in names and n.meta["val"].dim()]
    return bool(sizes) and all(_is_free(s, program) for s in sizes)


def _is_free(size: Any, program: ExportedProgram) -> bool:
    """Whether a dimension may have any size: the exporter may have found one value, or a range, that it needs."""
    if isinstance(size, int) or size.node.maybe_as_int() is not None:
        return False
    allowed = program.range_constraints.get(size.node.expr)
    return allowed is None or bool(allowed.upper > ANY_SIZE)


def _graph(program: ExportedProgram, model: nn.Module, batch_size: int | None) -> Graph:
    signature = program.graph_signature
    names = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    first_names = _first_names(model)
    constants = {
        key: program.constants[name]
        for key, name in signature.inputs_to_lifted_tensor_constants.items()
        if isinstance(program.constants[name], Tensor)
    }
    return Graph(
        nodes=tuple(program.graph.nodes),
        state_names={placeholder: first_names[name] for placeholder, name in names.items()},
        constants=constants,
        inputs=tuple(str(name) for name in signature.user_inputs),
        out_spec=program.call_spec.out_spec,
        batch_size=batch_size,
    )


def _first_names(model: nn.Module) -> dict[str, str]:
    """Name of a parameter or buffer -> the first of all names it has: tied ones have several."""
    kinds = (model.named_parameters, model.named_buffers)
    first = {id(tensor): name for kind in kinds for name, tensor in kind()}
    return {name: first[id(tensor)] for kind in kinds for name, tensor in kind(remove_duplicate=False)}


def user_frame(node: fx.Node) -> str:
    """`file:line` of the user's code behind a node, as far as it is known; torch's frames are skipped."""
    lines = (node.meta.get("stack_trace") or "").splitlines()
    frames = [line.strip() for line in lines if line.strip().startswith("File ")]
    own = [f for f in frames if "/torch/" not in f] or frames
    if not own:
        return "unknown line"
    parts = own[-1].split('"')
    return f"{parts[1].rsplit('/', 1)[-1]}:{parts[2].split(',')[1].strip().removeprefix('line ')}"


def module_path(node: fx.Node) -> str:
    """Dotted path of the innermost module that ran a node; empty for the model itself."""
    stack = node.meta.get("nn_module_stack") or {}
    path = list(stack.values())[-1][0] if stack else ""
    return "" if path.startswith("_empty") else str(path)


def _user_frame(error: BaseException) -> str:
    traceback, found = error.__traceback__, ""
    while traceback is not None:
        code = traceback.tb_frame.f_code
        if "/torch/" not in code.co_filename and "whyprune/structure" not in code.co_filename:
            found = f" at {code.co_filename.rsplit('/', 1)[-1]}:{traceback.tb_lineno}"
        traceback = traceback.tb_next
    return found


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or its kind where it has none."""
    text = str(error).strip().splitlines()
    return text[0] if text else type(error).__name__


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hides the exporter's warnings, logs and prints: what matters to the user is raised as an error."""
    logger = logging.getLogger("torch")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
