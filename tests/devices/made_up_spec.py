"""Specifications, and files for them, as small as can be: y = factor * x in a few hundred bytes."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from whyprune.devices import runner

RUNNER = [sys.executable, runner.__file__]


def onnx_file(path, factor=2.0, *, opset=17, divide=False, external=None, copies=1):
    """y = factor * x, or factor / x."""
    onnx = pytest.importorskip("onnx")
    helper, floats = onnx.helper, onnx.TensorProto.FLOAT
    constant = helper.make_tensor("c", floats, [1], [factor])
    if external is not None:
        constant.ClearField("float_data")
        constant.data_location = onnx.TensorProto.EXTERNAL
        entry = constant.external_data.add()
        entry.key, entry.value = "location", str(external)
    nodes = [helper.make_node("Div" if divide else "Mul", ["c", "x"] if divide else ["x", "c"], ["y"])]
    if copies > 1:  # a large value in between: x stretched, then cut back
        repeats = helper.make_tensor("r", onnx.TensorProto.INT64, [2], [1, copies])
        ends = [helper.make_tensor(n, onnx.TensorProto.INT64, [1], [v]) for n, v in (("b", 0), ("e", 3), ("a", 1))]
        nodes[0].output[0] = "m"
        nodes += [helper.make_node("Tile", ["m", "r"], ["t"]), helper.make_node("Slice", ["t", "b", "e", "a"], ["y"])]
    shape = ["batch", 3]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", floats, shape)],
        [helper.make_tensor_value_info("y", floats, shape)],
        [constant, *([repeats, *ends] if copies > 1 else [])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    model.opset_import[0].version = opset
    path.write_bytes(model.SerializeToString())
    return path


def specification(folder: Path, networks, inputs=None, /, **changes) -> Path:
    """`spec.json` for files that lie in the folder."""
    inputs = [np.arange(6, dtype=np.float32).reshape(2, 3) + 1] if inputs is None else inputs
    np.savez(folder / "inputs.npz", **{str(i): a for i, a in enumerate(inputs)})

    def described(name):
        return {"path": name, "sha256": runner.sha256(folder / name)}

    spec = {
        "schema_version": 1,
        "runtime": "ort",
        "threads": 1,
        "batch_size": len(inputs[0]),
        "cores": None,
        "memory_bytes": None,
        "networks": {name: described(file) for name, file in networks.items()},
        "inputs": described("inputs.npz"),
        "min_warmup": 5,
        "repeats": 4,
        "seconds": 1.0,
        "each_alone": False,
        **changes,
    }
    path = folder / "spec.json"
    path.write_text(json.dumps({k: v for k, v in spec.items() if v is not ...}), encoding="utf-8")
    return path


def ran(path, command=RUNNER, **options):
    """The finished process of the runner."""
    return subprocess.run([*command, path], capture_output=True, text=True, check=False, timeout=120, **options)
