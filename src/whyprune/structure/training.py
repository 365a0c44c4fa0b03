"""Whether a network runs in training mode: what only training runs is no part of the trace."""

import torch
from torch import nn

from whyprune.data.batches import Batch
from whyprune.errors import VerificationError
from whyprune.structure.capture import error_place, first_line
from whyprune.structure.copies import duplicate
from whyprune.structure.state import State


def training_error(model: nn.Module, example: Batch) -> str:
    """Why a copy of a model does not run in training mode, and where; empty if it does."""
    try:
        with torch.no_grad():
            example.call(duplicate(model).train())
    except Exception as error:  # noqa: BLE001 - whatever the user's code raises, the answer is the same
        return f"{first_line(error)}{error_place(error)}"
    return ""


def check_training(state: State) -> None:
    """Refuses a pruned network that does not run in training mode although the original does.

    Raises:
        VerificationError: it does not; the message says where.
    """
    network = state.network
    error = training_error(state.model, network.example)
    if error and not training_error(network.model, network.example):
        raise VerificationError(
            f"the pruned network does not run in training mode, which recovery needs, and the original does: {error}; "
            "what only training runs could not be traced: keep the channels that it reads (ignore=…)"
        )
