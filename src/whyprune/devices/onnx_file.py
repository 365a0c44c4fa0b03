"""A network as one ONNX file, checked in ONNX Runtime before it takes its place on disk."""

import inspect
import os
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from whyprune.atomic import atomic_file
from whyprune.data.batches import Batch
from whyprune.data.outputs import tensors_of
from whyprune.devices.base import Model
from whyprune.devices.evaluation import call, device_of, evaluating, evaluation_mode
from whyprune.devices.outputs import agreement
from whyprune.devices.quiet import cause, silence
from whyprune.errors import InputError, MissingDependencyError, TraceError, VerificationError

MAX_BYTES = 2**31 - 2**24
"""Protobuf's limit of 2 GiB, less room for the graph."""


def export_onnx(
    model: nn.Module,
    example: Batch,
    path: str | os.PathLike[str],
    *,
    check_against: Model | None = None,
    batch_sizes: Sequence[int] = (1, 2, 5),
    tolerance: float = 1e-3,
    seed: int = 0,
) -> float:
    """Writes the network with a dynamic batch dimension and its weights, and checks it in ONNX Runtime.

    Args:
        model: the network; its outputs become the file's outputs, in order.
        example: inputs, positional and by keyword; values that are not tensors become constants of the file.
        path: the file to write; it appears only when export and comparison succeed.
        check_against: the network to compare with, by default `model`.
        batch_sizes: sizes of the random batches compared, drawn around the example's values.
        tolerance: largest difference allowed, as a share of the largest output, or of 1 if that is larger.
        seed: of the random batches.

    Returns:
        The largest absolute difference over all outputs and batches.

    Raises:
        MissingDependencyError: the extra `onnx` is not installed.
        InputError: the inputs do not fit the model, the weights pass 2 GiB, or the path cannot be written.
        TraceError: the model cannot be exported, for instance because it fixes its batch size.
        VerificationError: ONNX Runtime fails on the file or disagrees with PyTorch.
    """
    _require_extra()
    _check(model, batch_sizes)
    example = example.to(device_of(model))
    reference = model if check_against is None else check_against
    generator = torch.Generator().manual_seed(seed)
    batches = [_drawn(example, size, generator) for size in batch_sizes]
    _check_sizes(model, example, batches)
    with evaluation_mode([model]), silence():
        program = _export(model, example)
    with atomic_file(path) as temporary:
        with silence():
            program.save(temporary, external_data=False)
        return _compare(temporary, reference, batches, tolerance)


def _require_extra() -> None:
    for name in ("onnx", "onnxscript", "onnxruntime"):
        try:
            import_module(name)
        except ImportError as error:
            raise MissingDependencyError(f"writing ONNX files needs {name}: pip install 'whyprune[onnx]'") from error


def _check(model: nn.Module, batch_sizes: Sequence[int]) -> None:
    if not batch_sizes or min(batch_sizes) < 1:
        raise InputError(f"batch_sizes is {tuple(batch_sizes)}: give one or more sizes of at least 1")
    weights = sum(t.numel() * t.element_size() for t in (*model.parameters(), *model.buffers()))
    if weights > MAX_BYTES:
        raise InputError(f"the weights take {weights:,} bytes: one ONNX file holds less than 2 GiB")


def _check_sizes(model: nn.Module, example: Batch, batches: Sequence[Batch]) -> None:
    """The exporter accepts some models that fix their batch size: PyTorch itself tells."""
    with evaluating([model]):
        call(model, example)
        for batch in batches:
            try:
                call(model, batch)
            except InputError as error:
                raise TraceError(
                    f"{type(model).__name__} cannot be written as ONNX with a dynamic batch: it runs on "
                    f"{len(example)} inputs but not on {len(batch)}: {error}"
                ) from error


def _export(model: nn.Module, example: Batch) -> torch.onnx.ONNXProgram:
    two = _drawn(example, 2, torch.Generator().manual_seed(0))  # export specialises on a batch of one
    try:
        # A fused kernel lays its result out in memory otherwise than the operations that stand for it in the file.
        with sdpa_kernel(SDPBackend.MATH):
            program = torch.onnx.export(
                model,
                two.args,
                kwargs=two.kwargs,
                dynamo=True,
                verbose=False,
                dynamic_shapes=_dynamic_shapes(model, two),
            )
    except (RuntimeError, TypeError, ValueError, AttributeError, NotImplementedError) as error:
        raise TraceError(
            f"{type(model).__name__} cannot be written as ONNX with a dynamic batch: {cause(error)}"
        ) from error
    if program is None:
        raise TraceError(f"{type(model).__name__} cannot be written as ONNX: the exporter gave no program")
    return program


def _dynamic_shapes(model: nn.Module, batch: Batch) -> dict[str, Any]:
    """One entry per parameter of `forward`: the first dimension of every tensor is the batch."""
    size = torch.export.Dim("batch")

    def shape(value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(shape(v) for v in value)
        if isinstance(value, dict):
            return {k: shape(v) for k, v in value.items()}
        return {0: size} if isinstance(value, Tensor) else None

    bound = inspect.signature(model.forward).bind(*batch.args, **batch.kwargs)
    return {name: shape(value) for name, value in bound.arguments.items()}


def _compare(path: Path, reference: Model, batches: Sequence[Batch], tolerance: float) -> float:
    worst = 0.0
    with evaluating([reference]):
        for batch in batches:
            expected = [t.cpu() for t in tensors_of(call(reference, batch))]
            worst = max(worst, agreement(expected, _run(path, batch), tolerance, "the ONNX file"))
    return worst


def _run(path: Path, batch: Batch) -> list[Tensor]:
    runtime = import_module("onnxruntime")
    options = runtime.SessionOptions()
    options.log_severity_level = 3
    try:
        session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        names = [i.name for i in session.get_inputs()]
        feeds = {n: t.cpu().numpy() for n, t in zip(names, batch.tensors(), strict=True)}
        return [torch.from_numpy(o) for o in session.run(None, feeds)]
    except _runtime_errors() as error:
        raise VerificationError(
            f"ONNX Runtime cannot run the exported file on {len(batch)} inputs: {cause(error)}"
        ) from error


def _runtime_errors() -> tuple[type[Exception], ...]:
    state = import_module("onnxruntime.capi.onnxruntime_pybind11_state")
    own = [v for v in vars(state).values() if isinstance(v, type) and issubclass(v, Exception)]
    return (RuntimeError, ValueError, TypeError, *own)


def _drawn(example: Batch, size: int, generator: torch.Generator) -> Batch:
    """Random inputs like the example's: rows drawn anew, floats with noise of the example's spread added."""

    def draw(value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        rows = value[torch.randint(len(value), (size,), generator=generator)]
        if not value.is_floating_point():
            return rows
        spread = value.float().std(correction=0)
        noise = torch.randn(rows.shape, generator=generator).to(value.device)
        return rows + (noise * spread).to(value.dtype)

    return Batch(tuple(draw(a) for a in example.args), {k: draw(v) for k, v in example.kwargs.items()})
