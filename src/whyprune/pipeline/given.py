"""The data that a run is given for training and for testing, and whether the network can take it, before any work."""

from contextlib import suppress
from typing import Any

from torch.utils.data import Dataset, IterableDataset

from whyprune.data.batches import Batch
from whyprune.data.expected import expected_batch
from whyprune.data.opened import BATCH_SIZE, first_of, length_of, opened, rereadable
from whyprune.data.outputs import logits_of
from whyprune.devices import LabelsError, accuracy
from whyprune.errors import InputError
from whyprune.recovery import Recovery
from whyprune.recovery.sources import checked_labels
from whyprune.structure.entry import Entered, entered
from whyprune.structure.network import Network
from whyprune.structure.training import training_error

RECOVERY, TEST = "the recovery data", "the test data"


def training_data(data: Any, example: Batch, recovery: Recovery | None) -> Any:
    """Labelled data to train on, as `recover` takes it; its first batch has to be what the network takes.

    Raises:
        InputError: it is not.
    """
    size = BATCH_SIZE if recovery is None else recovery.batch_size
    kept = rereadable(data, RECOVERY)
    batches, _ = opened(kept, example, RECOVERY, size)
    if (first := first_of(batches, RECOVERY)) is None and not length_of(batches):
        raise InputError(f"{RECOVERY} is empty: give labelled batches")
    expected_batch(first, example, RECOVERY)
    return kept if isinstance(kept, Dataset) and not isinstance(kept, IterableDataset) else batches


def test_data(data: Any, network: Network) -> Entered:
    """Labelled batches to measure on; the first has to be what the network takes.

    Raises:
        InputError: it is not.
    """
    found = entered(data, network, TEST, replayed=False)
    if (first := first_of(found, TEST)) is None:
        raise InputError(f"{TEST} is empty: give labelled batches, or leave test out")
    if network.outputs.is_logits:  # what the last step would refuse, before any work
        read = network.outputs.logits if network.outputs.asked else logits_of
        with suppress(LabelsError):
            accuracy(network.model, [first], progress=False, logits=read)
    return found


def check_recovery(network: Network, data: Any, recovery: Recovery | None) -> None:
    """Refuses a recovery that this network or its training data do not allow, before any work.

    Args:
        network: the traced model.
        data: what it would be trained on; its first batch is read.
        recovery: how; None for not at all.

    Raises:
        InputError: outputs that are no logits, a model that does not run in training mode, or other sizes or labels.
    """
    if recovery is None:
        return
    if not network.outputs.is_logits:
        raise InputError(
            f"recovery trains towards classes: {network.outputs.no_logits()}; leave recovery out and fine-tune "
            "result.model with your own loss"
        )
    if error := training_error(network.model, network.example):
        raise InputError(
            f"the model does not run in training mode on example_inputs, which recovery needs: {error}; where training "
            "takes more inputs, such as labels, fine-tune result.model with your own loss"
        )
    first = first_of(entered(data, network, RECOVERY, replayed=False), RECOVERY)
    if first is not None:
        checked_labels(first, network.outputs.counting[0].shape[1], needed=recovery.distill < 1)
