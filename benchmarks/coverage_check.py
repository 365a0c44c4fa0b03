"""What both pruners of the coverage table are judged by: the pruned network beside the masked original."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils import _pytree as pytree
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.coverage_models import Subject
from whyprune.data.batches import Batch
from whyprune.structure.capture import as_example

TOLERANCE = 1e-4
"""Largest difference allowed, as a share of the largest value of the output; what `verify` asks for."""
RIGHT, WRONG, FORWARD = "right", "wrong", "crash in forward"


def said(error: BaseException) -> str:
    """An error as one short line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {' '.join(lines)[:300]}" if lines else type(error).__name__


def fresh_inputs(subject: Subject, model: nn.Module, seed: int = 7) -> Batch:
    """Inputs of another batch size than the traced ones, or of the same where the network fixes it."""
    other = as_example(subject.draw(3, seed))
    try:
        with torch.no_grad():
            other.call(model)
    except RuntimeError:
        return as_example(subject.draw(2, seed))
    return other


def outputs(model: nn.Module, inputs: Batch) -> list[Tensor]:
    """All tensors of a network's output, in order."""
    with torch.no_grad():
        return [leaf for leaf in pytree.tree_leaves(inputs.call(model)) if isinstance(leaf, Tensor)]


def relative_difference(found: list[Tensor], expected: list[Tensor]) -> float:
    """The largest difference of any output, as a share of that output's largest value; infinite for other shapes."""
    if [t.shape for t in found] != [t.shape for t in expected]:
        return math.inf
    pairs = [(f.double(), e.double()) for f, e in zip(found, expected, strict=True) if e.numel()]
    worst = max((float((f - e).abs().max() / e.abs().max().clamp_min(1e-12)) for f, e in pairs), default=0.0)
    return worst if math.isfinite(worst) else math.inf


Outputs = list[Tensor]


def judged(
    pruned: nn.Module, expected: Outputs, inputs: Batch, precisely: Callable[[], tuple[Outputs, Outputs]]
) -> dict[str, Any]:
    """Outcome, error and difference of a pruned network on `inputs`.

    A network with random weights may amplify rounding beyond the tolerance; then `precisely` gives what is found and
    what is expected in double precision, and that is judged.
    """
    try:
        found = outputs(pruned, inputs)
    except Exception as error:  # noqa: BLE001 - the user's code runs here, and any error is an outcome
        return {"outcome": FORWARD, "error": said(error), "difference": None}
    difference, in_double = relative_difference(found, expected), False
    if math.isfinite(difference) and difference > TOLERANCE:
        difference, in_double = relative_difference(*precisely()), True
    return {
        "outcome": RIGHT if difference <= TOLERANCE else WRONG,
        "error": None if math.isfinite(difference) else "outputs of other shapes, or not finite",
        "difference": difference if math.isfinite(difference) else None,
        **({"in_double": True} if in_double else {}),
    }


def size(model: nn.Module, inputs: Batch) -> tuple[int, int]:
    """(MACs per sample as PyTorch's own counter sees them, parameters)."""
    frozen = {name: tensor.detach() for name, tensor in model.named_parameters()}  # the counter stumbles over gradients
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        inputs.call(lambda *args, **kwargs: functional_call(model, frozen, args, kwargs))
    return counter.get_total_flops() // (2 * len(inputs)), sum(p.numel() for p in model.parameters())


def left(pruned: nn.Module, dense: tuple[int, int], inputs: Batch) -> dict[str, float]:
    """Which shares of the dense network's MACs and parameters are left."""
    macs, params = size(pruned, inputs)
    return {"macs_ratio": macs / max(dense[0], 1), "params_ratio": params / max(dense[1], 1)}
