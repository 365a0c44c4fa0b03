"""Where a network's time goes in ONNX Runtime: per operator, and what is no operator's."""

import importlib
import json
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from whyprune.data.batches import Batch
from whyprune.devices.artifacts import write_artifact

RUNS = 60
PRUNABLE = ("Conv", "FusedConv", "Gemm", "MatMul", "FusedMatMul", "FusedGemm")
"""Operators whose time shrinks with the products of widths; all others at best shrink with one width."""


def operator_times(model: nn.Module, inputs: Batch, threads: int) -> dict[str, Any]:
    """Median microseconds per operator of one call, by kind and one by one, from ONNX Runtime's own profile.

    Args:
        model: the network.
        inputs: of one call.
        threads: of ONNX Runtime.
    """
    runtime = importlib.import_module("onnxruntime")
    with tempfile.TemporaryDirectory() as folder:
        artifact = write_artifact("onnx", model, inputs, Path(folder, "network.onnx"))
        options = runtime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.log_severity_level = 4
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(folder, "profile"))
        session = runtime.InferenceSession(str(artifact.path), options, providers=["CPUExecutionProvider"])
        feeds = dict(zip((i.name for i in session.get_inputs()), (t.numpy() for t in inputs.tensors()), strict=True))
        for _ in range(RUNS):
            session.run(None, feeds)
        events = json.loads(Path(session.end_profiling()).read_text())
    return _summary(events)


def _summary(events: list[dict[str, Any]]) -> dict[str, Any]:
    times: dict[tuple[str, str], list[float]] = defaultdict(list)
    for event in events:
        name = event["name"]
        if event.get("cat") == "Node" and name.endswith("_kernel_time"):
            times[name.removesuffix("_kernel_time"), event["args"]["op_name"]].append(event["dur"])
    runs = [event["dur"] for event in events if event["name"] == "model_run"]
    operators = [{"name": n, "kind": k, "us": float(np.median(t[len(t) // 3 :]))} for (n, k), t in times.items()]
    by_kind: dict[str, float] = defaultdict(float)
    for operator in operators:
        by_kind[operator["kind"]] += operator["us"]
    total, call = sum(by_kind.values()), float(np.median(runs[len(runs) // 3 :]))
    return {
        "call_us": call,
        "operators": len(operators),
        "outside_operators_us": call - total,
        "other_operators_us": total - sum(by_kind.get(kind, 0.0) for kind in PRUNABLE),
        "by_kind_us": dict(sorted(by_kind.items(), key=lambda item: -item[1])),
        "slowest": sorted(operators, key=lambda o: -o["us"])[:12],
    }
