"""ONNX the quick way, for measuring, and what must hold of an ONNX file of somebody else.

Tracing once takes a tenth of the time of `export_onnx`, which proves that a graph holds for any batch size; its graph
is the same but for shapes. What tracing cannot follow, `export_onnx` writes.
"""

from importlib import import_module
from pathlib import Path

import torch
from torch import nn

from whyprune.data.batches import Batch
from whyprune.devices.artifacts.positional import positional
from whyprune.devices.onnx_file import export_onnx
from whyprune.devices.quiet import cause
from whyprune.errors import FormatError, MissingDependencyError


def write(model: nn.Module, example: Batch, path: Path) -> None:
    """Writes the traced network, its first dimension free."""
    module, tensors = positional(model, example)
    names = [f"input{i}" for i in range(len(tensors))]
    try:
        torch.onnx.export(
            module,
            tensors,
            path,
            dynamo=False,
            input_names=names,
            dynamic_axes={name: {0: "batch"} for name in names},
        )
    except Exception:  # noqa: BLE001 - of many kinds; the other exporter raises its own
        path.unlink(missing_ok=True)
        export_onnx(model, example, path, batch_sizes=(len(example),))


def check_onnx(path: Path) -> None:
    """Whether a file is safe and readable here.

    Raises:
        FormatError: it is no ONNX file, its weights lie outside its folder, or it needs a later opset.
        MissingDependencyError: the extra `onnx` is not installed.
    """
    try:
        onnx, helper = import_module("onnx"), import_module("onnx.external_data_helper")
    except ImportError as error:
        raise MissingDependencyError("reading ONNX files needs onnx: pip install 'whyprune[onnx]'") from error
    try:
        model = onnx.load(path, load_external_data=False)
    except Exception as error:
        raise FormatError(f"{path} is no whole ONNX file ({cause(error)}): export it again") from error
    folder = path.resolve().parent
    for tensor in helper._get_all_tensors(model):
        if helper.uses_external_data(tensor):
            location = helper.ExternalDataInfo(tensor).location
            if folder not in (folder / location).resolve().parents:
                raise FormatError(f"{path} keeps the weight {tensor.name!r} in {location!r}, outside its folder")
    newest = onnx.defs.onnx_opset_version()
    opset = max((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), default=0)
    if not 0 < opset <= newest:
        raise FormatError(f"{path} is of opset {opset}; onnx {onnx.__version__} reads 1 to {newest}: export it anew")
