"""What the coverage table says of files: a plan replayed on a fresh network, and the pruned network as ONNX."""

import tempfile
from pathlib import Path
from typing import Any

from torch import nn

import whyprune as wp
from benchmarks.common import Stopwatch
from benchmarks.coverage_check import outputs, relative_difference, said
from benchmarks.coverage_models import Subject
from whyprune.data.batches import Batch
from whyprune.devices import export_onnx
from whyprune.structure.file import save_plan, save_weights
from whyprune.structure.plan import make_plan
from whyprune.structure.units import Unit

BATCHES = (1, 3)


def reloaded(subject: Subject, network: wp.Network, units: list[Unit], inputs: Batch) -> dict[str, Any]:
    """Whether plan and weights, loaded into a fresh instance with other weights, give the same outputs bit for bit."""
    pruned = wp.remove(network, units)
    try:
        with tempfile.TemporaryDirectory() as folder:
            save_plan(make_plan(network, units), Path(folder))
            save_weights(pruned, Path(folder))
            loaded = wp.load(subject.model(1), folder)
        difference = relative_difference(outputs(loaded, inputs), outputs(pruned, inputs))
    except Exception as error:  # noqa: BLE001 - any error is an outcome of the table
        return {"outcome": "failed", "error": said(error)}
    equal = difference == 0
    return {"outcome": "equal" if equal else "differs", "error": None if equal else f"outputs differ by {difference}"}


def exported(network: wp.Network, units: list[Unit], inputs: Batch) -> dict[str, Any]:
    """How far ONNX Runtime is from PyTorch on the pruned network, as a share of the largest output.

    Where that fails, the network before pruning is exported too: it tells whether pruning is to blame.
    """
    pruned, watch = wp.remove(network, units), Stopwatch()
    try:
        difference = _export(pruned, network.example)
    except Exception as error:  # noqa: BLE001 - any error is an outcome of the table
        return {"outcome": "failed", "error": said(error), "dense": _before_pruning(network)}
    scale = max(float(t.abs().max()) for t in outputs(pruned, inputs))
    return {"outcome": "ok", "error": None, "difference": difference / max(scale, 1e-12), "seconds": watch.seconds}


def _before_pruning(network: wp.Network) -> str:
    try:
        _export(network.model, network.example)
    except Exception as error:  # noqa: BLE001 - any error is an answer
        return f"fails too: {said(error)}"
    return "works"


def _export(model: nn.Module, example: Batch) -> float:
    with tempfile.TemporaryDirectory() as folder:
        return export_onnx(model, example, Path(folder) / "network.onnx", batch_sizes=BATCHES)
