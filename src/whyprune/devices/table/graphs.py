"""Tiny networks that time one row: some of its operations side by side, behind a narrow stem.

A runtime's fixed price for a call, the stem and the last output cancel between two such networks of different
length. Every copy has its own weights and is added to what the copies before gave, under a ReLU, as in a residual
network: no runtime may leave one out, and those that fuse do so here as they do there.
"""

from importlib import import_module
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from whyprune.devices.table.rows import Pair, Row
from whyprune.errors import MissingDependencyError

STEM = 16
"""Channels of the inputs of all these networks, so that many rows share one input."""


class Copies(nn.Module):
    """(B, 16, rows, columns) to the output of `copies` of a row's operation; (B, tokens, 16) for a linear layer."""

    def __init__(self, row: Row, copies: int) -> None:
        super().__init__()
        conv = row.operation == "conv"
        self.stem = nn.Conv2d(STEM, row.inputs, 1) if conv else nn.Linear(STEM, row.inputs)
        self.parts = nn.ModuleList(
            nn.Conv2d(row.inputs, row.outputs, row.kernel, row.stride, row.padding, row.dilation, row.groups)
            if conv
            else nn.Linear(row.inputs, row.outputs)
            for _ in range(copies)
        )

    def forward(self, x: Tensor) -> Tensor:
        """The sum of all copies, rectified after each addition."""
        x = torch.relu(self.stem(x))
        total = torch.relu(self.parts[0](x))
        for part in self.parts[1:]:
            total = torch.relu(part(x) + total)
        return total


def input_shape(row: Row) -> tuple[int, ...]:
    """The shape that `Copies` takes; rows with equal ones can share a measurement."""
    return (row.batch, STEM, *row.size) if row.operation == "conv" else (row.batch, row.size[0], STEM)


def write_onnx(row: Row, copies: int, path: Path, seed: int = 0) -> None:
    """Writes what `Copies` computes as an ONNX file, without an export.

    Raises:
        MissingDependencyError: the extra `onnx` is not installed.
    """
    try:
        helper = import_module("onnx.helper")
        numpy_helper = import_module("onnx.numpy_helper")
    except ImportError as error:
        raise MissingDependencyError("tables for ONNX files need onnx: pip install 'whyprune[onnx]'") from error
    rng = np.random.default_rng(seed)
    weights: list[Any] = []
    nodes: list[Any] = []

    def layer(name: str, source: str, inputs: int, outputs: int, like: Row | None) -> str:
        kernel: Pair = (1, 1) if like is None else like.kernel
        conv = row.operation == "conv"
        shape = (outputs, inputs // (1 if like is None else like.groups), *kernel) if conv else (inputs, outputs)
        fan = max(prod(shape) // outputs, 1)
        for part, values in (("weight", rng.normal(0, fan**-0.5, shape)), ("bias", rng.normal(0, 0.1, outputs))):
            weights.append(numpy_helper.from_array(values.astype(np.float32), f"{name}.{part}"))
        if conv:
            about = {} if like is None else _attributes(like)
            nodes.append(helper.make_node("Conv", [source, f"{name}.weight", f"{name}.bias"], [name], **about))
            return name
        nodes.append(helper.make_node("MatMul", [source, f"{name}.weight"], [f"{name}.product"]))
        nodes.append(helper.make_node("Add", [f"{name}.product", f"{name}.bias"], [name]))
        return name

    def then(kind: str, *sources: str) -> str:
        nodes.append(helper.make_node(kind, list(sources), [f"{sources[0]}.{kind}"]))
        return f"{sources[0]}.{kind}"

    x = then("Relu", layer("stem", "input", STEM, row.inputs, None))
    total = ""
    for copy in range(copies):
        part = layer(f"copy{copy}", x, row.inputs, row.outputs, row)
        total = then("Relu", then("Add", part, total) if total else part)
    tensor = helper.make_tensor_value_info
    shape_in, shape_out = _shapes(row)
    graph = helper.make_graph(nodes, "row", [tensor("input", 1, shape_in)], [tensor(total, 1, shape_out)], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.write_bytes(model.SerializeToString())


def _attributes(row: Row) -> dict[str, Any]:
    return {
        "kernel_shape": row.kernel,
        "strides": row.stride,
        "pads": (*row.padding, *row.padding),
        "dilations": row.dilation,
        "group": row.groups,
    }


def _shapes(row: Row) -> tuple[tuple[int, ...], tuple[int, ...]]:
    before = input_shape(row)
    after = (row.batch, row.outputs, *row.result) if row.operation == "conv" else (*before[:2], row.outputs)
    return before, after
