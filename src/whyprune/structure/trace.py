"""`trace`: from a model and example inputs to a `Network`."""

from collections.abc import Iterable
from typing import Any, Literal

import torch
from torch import Tensor, nn

from whyprune.data.outputs import tensors_of
from whyprune.errors import InputError, TraceError
from whyprune.structure.bypass import with_blocks
from whyprune.structure.capture import as_example, capture
from whyprune.structure.copies import duplicate
from whyprune.structure.labelled import Labelled
from whyprune.structure.network import Network
from whyprune.structure.outputs import Named
from whyprune.structure.precise import in_double
from whyprune.structure.probe import settle, tolerance
from whyprune.structure.replay import Replay
from whyprune.structure.unseen import without_unseen
from whyprune.structure.wrapped import unwrapped


def trace(
    model: nn.Module,
    example_inputs: Any,
    *,
    heads: Literal["whole", "width"] = "whole",
    outputs: Named | Iterable[Named] | None = None,
) -> Network:
    """Finds the removable units of `model`, what each costs, and what must be kept whole.

    Channel indices are carried through every ATen operation of the captured graph and united where they must
    live or die together. A number in user code that names a width (`view(-1, 4096)`, `F.pad(..., 8)`) is
    tried out: units are removed and the model is run; if no attribute of the module makes it right, the channels
    behind the number are refused.

    Args:
        model: in evaluation mode; it is not changed. Of a `DataParallel` or a compiled model the network inside is
            traced.
        example_inputs: a tensor, a tuple of positional inputs or a dict of keyword inputs, batch first.
        heads: whether attention is pruned by "whole" heads or by the "width" that all its heads share.
        outputs: which tensors of what the model returns count, by name or number (`"out"`, `"boxes.1"`, 0). Default:
            `logits`, where the output has them; else all that hold images and numbers. Units that reach none of
            them are kept, since no outcome can see what they do.

    Raises:
        InputError: the model is in training mode, does not run on the inputs, is TorchScript or quantised, or holds
            something that cannot be copied; or an output is unknown.
        TraceError: the computation cannot be captured, or what was captured is not what the model computes.
    """
    if heads not in ("whole", "width"):
        raise InputError(f"heads is {heads!r}: attention goes by 'whole' heads or by their 'width'")
    example, model = as_example(example_inputs), unwrapped(model)
    _check_values(model)
    duplicate(model, sharing=True)  # what cannot be copied is named before any work
    graph = capture(model, example)
    labelled = Labelled(model, example, graph, heads, outputs)
    _check_capture(labelled.network())
    return without_unseen(with_blocks(settle(labelled)))


def _check_values(model: nn.Module) -> None:
    """Refuses a network without values, or whose values are no numbers: nothing can be measured on it."""
    for name, tensor in model.named_parameters():
        if isinstance(tensor, nn.parameter.UninitializedParameter):
            continue
        if tensor.is_meta:
            raise InputError(f"parameter {name} lies on the meta device and has no values: load the weights first")
        if bool(torch.isnan(tensor).any()):
            raise InputError(f"parameter {name} holds NaN: the network was saved broken, or its training diverged")


def _check_capture(network: Network) -> None:
    """The captured operations must give what the model gives: rounding aside, which double precision tells."""
    if not _is_captured(network) and not _is_captured_in_double(network):
        raise TraceError(
            "the captured operations do not give the model's output: do not change inputs or buffers in place, "
            "and draw nothing at random in evaluation mode"
        )


def _is_captured_in_double(network: Network) -> bool:
    try:
        return _is_captured(in_double(network))
    except RuntimeError:  # code that insists on its own precision
        return False


def _is_captured(network: Network) -> bool:
    replay = Replay(network)
    found = tensors_of(replay.output(replay.run(network.example, keep=())))
    expected = tensors_of(network.graph.returned)
    return all(_agree(a, b, tolerance(network)) for a, b in zip(found, expected, strict=True))


def _agree(left: Tensor, right: Tensor, allowed: float) -> bool:
    if not right.is_floating_point() and not right.is_complex():
        return torch.equal(left, right)
    right = right.detach()  # a view of a parameter requires a gradient whatever the mode
    finite = right[torch.isfinite(right)]
    scale = float(finite.abs().max()) if finite.numel() else 0.0
    left, right = (t.to(torch.complex128) if t.is_complex() else t.double() for t in (left, right))
    return torch.allclose(left, right, rtol=0, atol=allowed * max(scale, 1.0), equal_nan=True)
