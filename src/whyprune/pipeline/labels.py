"""Whether a run needs labels and has them, said before any work."""

from typing import Any

from whyprune.data.batches import Batch
from whyprune.data.expected import expected_batch
from whyprune.data.opened import first_of, opened
from whyprune.effects.outcomes import Outcome, OutcomeFunction, as_outcome
from whyprune.errors import InputError
from whyprune.methods import Method
from whyprune.pipeline.evaluators import check_labels, needs_labels


def check_labelled(
    method: Method, outcome: Outcome | OutcomeFunction | str | None, data: Any, example: Batch, what: str = "the data"
) -> None:
    """Refuses data without labels where the outcome or the method cannot do without.

    Args:
        method: whose facts and fitness say what it needs.
        outcome: what harm is.
        data: calibration data, of which the first batch is read.
        example: what the network is traced on.
        what: whose data it is, for messages.

    Raises:
        InputError: labels are needed, and there are none; or an unknown outcome.
    """
    asked = as_outcome(outcome)
    always = method.scorer_facts.labels == "yes"
    if not (always or asked.needs_labels or needs_labels(method)):
        return
    batches, _ = opened(data, example, what)
    if (first := first_of(batches, what)) is None or (found := expected_batch(first, example, what)).labels is not None:
        return
    check_labels(method, found)
    who, instead = f"outcome {asked.name}", ", or outcome='logit-shift'"
    if always:
        who, instead = f"scorer {method.scorer_name!r}", ", or choose another scorer"
    raise InputError(f"{who} needs labels: give (inputs, labels) batches{instead}")
