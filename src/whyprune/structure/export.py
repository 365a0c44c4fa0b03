"""Run `torch.export` with a free batch size where the model allows it."""

import contextlib
import inspect
import io
import logging
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.export import Dim, ExportedProgram
from torch.utils import _pytree as pytree

from whyprune.data.batches import Batch
from whyprune.structure.copies import unused
from whyprune.structure.regions import inlined

ANY_SIZE = 2**31


def export(model: nn.Module, example: Batch) -> tuple[ExportedProgram, bool]:
    """The exported program, and whether it runs on any batch size.

    A free batch size is tried first: the exporter then proves for every operation that it holds for any size. Where
    it cannot, the program holds for the example's size.

    Raises:
        Exception: of many kinds, from the exporter, where it cannot follow the model's code.
    """

    def free(value: Any) -> Any:
        return {0: Dim.AUTO} if isinstance(value, Tensor) and value.dim() else None

    dynamic = {"args": pytree.tree_map(free, example.args), "kwargs": pytree.tree_map(free, example.kwargs)}
    with quiet():
        try:
            program = torch.export.export(
                unused(model),
                example.args,
                example.kwargs,
                dynamic_shapes=_by_name(model, example, dynamic),
                strict=False,
            )
            return _without_partial_writes(inlined(program)), _batch_is_free(program)
        except Exception:  # noqa: BLE001 - the exporter raises many kinds; the next line raises its own
            return export_fixed(model, example), False


def export_fixed(model: nn.Module, example: Batch) -> ExportedProgram:
    """The exported program for the example's batch size.

    Raises:
        Exception: of many kinds, from the exporter, where it cannot follow the model's code.
    """
    with quiet():
        program = torch.export.export(unused(model), example.args, example.kwargs, strict=False)
        return _without_partial_writes(inlined(program))


def _without_partial_writes(program: ExportedProgram) -> ExportedProgram:
    """The program with writes to parts of tensors as operations that return the whole; others stay as they are."""
    nodes = [n for n in program.graph.nodes if n.op == "call_function" and n.args]
    if any(_alias(n, is_write=True) and _alias(n.args[0], is_write=False) for n in nodes):
        whole: ExportedProgram = program.run_decompositions({})
        _with_batch_norm(whole.graph)
        return whole
    return program


def _with_batch_norm(graph: fx.Graph) -> None:
    """Batch normalisation as one value again: decomposed, it also returns statistics, old ones or in training new ones.

    New statistics have the channels of the old ones, which stand in their place: nothing here computes with them.
    """
    aten = torch.ops.aten
    for node in graph.nodes:
        if node.target is aten._native_batch_norm_legit_no_training.default:
            *tensors, momentum, eps = node.args
            arguments, statistics = (*tensors, False, momentum, eps, True), ()
        elif node.target is aten._native_batch_norm_legit_functional.default:
            arguments, statistics = (*node.args, True), (None, None, *node.args[3:5])
        else:
            continue
        with graph.inserting_before(node):
            norm = graph.call_function(aten.batch_norm.default, arguments)
        norm.meta = {**node.meta, "val": node.meta["val"][0]}
        places: dict[int, Any] = dict(enumerate((norm, *statistics)))
        for part in list(node.users):
            if (found := places.get(part.args[1])) is not None:
                part.replace_all_uses_with(found)
                graph.erase_node(part)
        if not node.users:
            graph.erase_node(node)


def _alias(node: Any, *, is_write: bool) -> bool:
    schema = getattr(getattr(node, "target", None), "_schema", None)
    alias = schema.returns[0].alias_info if schema is not None and schema.returns else None
    return isinstance(node, fx.Node) and alias is not None and alias.is_write == is_write


def _by_name(model: nn.Module, example: Batch, free: Mapping[str, Any]) -> Any:
    """`dynamic_shapes` by the names of the signature, `*inputs` and `**options` among them."""
    bound = inspect.signature(model.forward).bind(*free["args"], **free["kwargs"]).arguments
    order = list(inspect.signature(model.forward).bind(*example.args, **example.kwargs).arguments)
    return {name: bound[name] for name in order}


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


@contextlib.contextmanager
def quiet() -> Iterator[None]:
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
