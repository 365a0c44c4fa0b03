"""Capture a model's computation as a graph of ATen operations, without changing or copying the model."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, is_dataclass, replace
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.export import ExportedProgram
from torch.export.graph_signature import OutputKind
from torch.utils import _pytree as pytree

from whyprune.data.batches import Batch, checked, without_arrays
from whyprune.errors import InputError, TraceError
from whyprune.structure.concrete import RecordingError, recorded_module
from whyprune.structure.export import export, export_fixed, quiet
from whyprune.structure.hints import capturing
from whyprune.structure.recording import RecordedModule


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
        fixed_branches: True where branches on values of tensors are fixed as the example inputs took them.
        returned: what the model returned for the example inputs.
        precision: the least that operations compute in; None for the types that they name.
        sizes_tried: sizes of other inputs -> what is wrong at them, "" where the operations hold (see `entry`).
    """

    nodes: tuple[fx.Node, ...]
    state_names: dict[str, str]
    constants: dict[str, Tensor]
    inputs: tuple[str, ...]
    out_spec: Any
    batch_size: int | None
    fixed_branches: bool = False
    returned: Any = None
    precision: torch.dtype | None = None
    sizes_tried: dict[tuple[Any, bool], str] = field(default_factory=dict, compare=False, repr=False)

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
    example_inputs = without_arrays(example_inputs)
    if isinstance(example_inputs, Batch):
        batch = example_inputs
    elif isinstance(example_inputs, Tensor):
        batch = Batch((example_inputs,), {})
    elif isinstance(example_inputs, Mapping):
        batch = Batch((), dict(example_inputs))
    elif isinstance(example_inputs, Sequence) and not isinstance(example_inputs, str):
        batch = Batch(tuple(example_inputs), {})
    else:
        kind = type(example_inputs).__name__
        batches = "; of a DataLoader, one batch: next(iter(loader))" if isinstance(example_inputs, Iterable) else ""
        raise InputError(f"example_inputs is a {kind}: give a tensor, a tuple or a dict of tensors{batches}")
    batch = checked(Batch(batch.args, batch.kwargs), "example_inputs")
    if len({id(tensor) for tensor in batch.tensors()}) < len(batch.tensors()):
        batch = batch.mapped(torch.clone)  # one tensor given for two inputs would be captured as one input
    return batch[torch.tensor([0, 0])] if len(batch) == 1 else batch


def capture(model: nn.Module, example: Batch) -> Graph:
    """Captures `model` on `example`; the batch size stays free where the model allows it.

    `torch.export` comes first. Where Python code looks at values of tensors it cannot go on: then the operations are
    recorded in a real run, and the branches are fixed as the example takes them.

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
            returned = _copied(example).call(model)
    except Exception as error:
        shapes = [tuple(t.shape) for t in example.tensors()]
        raise InputError(f"the model does not run on example inputs of shape {shapes}: {first_line(error)}") from error
    _register_dataclasses(returned)
    try:
        program, free = export(model, example)
    except Exception:  # noqa: BLE001 - the exporter raises many kinds; the second capture says what is wrong
        return replace(_recorded(model, example), returned=returned)
    return replace(_graph(program, _first_names(model), {}, None if free else len(example)), returned=returned)


def recapture(model: nn.Module, example: Batch, like: Graph) -> tuple[fx.Node, ...]:
    """The operations of a model cut from one that was captured before, in the same way; none where that fails."""
    try:
        if like.fixed_branches:
            return _recorded(model, example).nodes
        return tuple(export_fixed(model, example).graph.nodes)
    except Exception:  # noqa: BLE001 - as in `capture`
        return ()


def _register_dataclasses(output: Any) -> None:
    """Tells PyTorch how the dataclasses in what a model returns come apart, where it does not know yet."""
    while unknown := {type(v) for v in pytree.tree_leaves(output) if is_dataclass(v) and not isinstance(v, type)}:
        for kind in unknown:
            try:
                torch.export.register_dataclass(kind)
            except ValueError:  # fields that no constructor takes: refused below, as any unknown type
                return


def capture_training(model: nn.Module, example: Batch) -> Graph | None:
    """The operations of a model in training mode, for the example's batch size; None where they are not known.

    Args:
        model: in training mode; it may change.
        example: what it runs on; nothing in it is changed.
    """
    try:
        program = export_fixed(model, _copied(example))
    except Exception:  # noqa: BLE001 - as in `capture`; training may need more inputs, or draw branches
        return None
    output, kinds = program.graph.output_node(), program.graph_signature.output_specs
    given = zip(output.args[0], kinds, strict=True)  # new statistics in buffers come out as well
    output.args = (tuple(value for value, spec in given if spec.kind is OutputKind.USER_OUTPUT),)
    return _graph(program, _first_names(model), {}, len(example))


def _copied(example: Batch) -> Batch:
    """The example for a model that may write to its inputs."""
    return Batch(*pytree.tree_map_only(Tensor, torch.clone, (example.args, example.kwargs)))


def _recorded(model: nn.Module, example: Batch) -> Graph:
    """The second capture: a real run, recorded, then exported as a model without branches."""
    recorded: RecordedModule | None = None
    try:
        with quiet():
            recorded = recorded_module(model, example)
        leaves = pytree.tree_leaves((example.args, example.kwargs))
        tensors = tuple(v for v in leaves if isinstance(v, Tensor))
        program, free = export(recorded, Batch((tensors,), {}))
    except RecordingError as error:
        at = f" at {user_frame(error.node)}" if error.node is not None else ""
        raise TraceError(f"the model cannot be traced{at}: {error}") from error
    except Exception as error:
        at = error_place(error) if recorded is None or recorded.at is None else f" at {user_frame(recorded.at)}"
        raise TraceError(f"the model cannot be traced{at}: {first_line(error)}; {capturing(str(error))}") from error
    size = None if free and recorded.free else len(example)
    graph = _graph(program, recorded.state_names(), dict(recorded.named_buffers()), size)
    names = iter(graph.inputs)
    inputs = tuple(next(names) if isinstance(v, Tensor) else f"no tensor: {v!r}" for v in leaves)
    return replace(graph, inputs=inputs, out_spec=recorded.recording.out_spec, fixed_branches=True)


def _graph(
    program: ExportedProgram, names: Mapping[str, str], tensors: Mapping[str, Tensor], batch_size: int | None
) -> Graph:
    """The contract's view of a program.

    Args:
        program: what was exported.
        names: name of a parameter or buffer in the exported module -> its name in the model.
        tensors: further buffers of the exported module, which are no state of the model but constants.
        batch_size: as in `Graph`.
    """
    signature = program.graph_signature
    state = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    constants = {
        key: program.constants[name]
        for key, name in signature.inputs_to_lifted_tensor_constants.items()
        if isinstance(program.constants[name], Tensor)
    }
    return Graph(
        nodes=tuple(program.graph.nodes),
        state_names={placeholder: names[name] for placeholder, name in state.items() if name in names},
        constants=constants | {key: tensors[name] for key, name in state.items() if name not in names},
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


def error_place(error: BaseException) -> str:
    """` at file:line` of the innermost line of user code behind an error; empty where there is none."""
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
