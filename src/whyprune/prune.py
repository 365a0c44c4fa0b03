"""`prune`: trace, estimate, allocate, remove, repair, verify, recover, measure, explain; top to bottom."""

import os
from collections.abc import Iterable
from typing import Any

from torch import nn

from whyprune.allocation import Budget, Constraints
from whyprune.data.calibration import Augment
from whyprune.devices import Device
from whyprune.effects.outcomes import Outcome, OutcomeFunction
from whyprune.methods import Method
from whyprune.pipeline.measure import measured_run
from whyprune.pipeline.result import Result
from whyprune.pipeline.settings import Settings
from whyprune.pipeline.start import start_run
from whyprune.pipeline.steps import choose, proven, recovered, removed, repaired, resumed, staged
from whyprune.recovery import Recovery
from whyprune.structure.outputs import Named


def prune(
    model: nn.Module,
    data: Iterable[Any],
    *,
    budget: Budget,
    example_inputs: Any,
    method: str | Method = "causal",
    outcome: Outcome | OutcomeFunction | str | None = None,
    outputs: Named | Iterable[Named] | None = None,
    constraints: Constraints | None = None,
    training: Recovery | None = None,
    recovery: Recovery | None = None,
    recovery_data: Any = None,
    test: Iterable[Any] | None = None,
    augment: Augment | None = None,
    settings: Settings | None = None,
    workspace: str | os.PathLike[str] | None = None,
    resume: bool = False,
    asked: dict[str, Any] | None = None,
    device: Device | str | None = None,
    seed: int = 0,
    progress: bool = True,
) -> Result:
    """Prunes a trained network to a budget, proves the removal right, repairs it, measures it, and says why.

    Args:
        model: a trained network in evaluation mode; it is never changed.
        data: calibration batches: tensors, tuples or dicts; about 1,024 images. Labels only if the outcome needs them.
        budget: what the result may cost.
        example_inputs: a tensor, a tuple or a dict of inputs to trace the model on.
        method: `causal` (rounds of measured response curves), `conditional` (rounds of conditional effects), any scorer
            in one shot, to compare with: `exact`, `curves`, `random`, `magnitude-l2`, `taylor`, ..., or a `Method` of
            your own. `whyprune methods` lists them.
        outcome: what harm is: a name, an outcome, or a function of what the model returns, what the dense model returns
            and labels that gives one number per image. Default: `logit-shift` where the output is a vector of logits,
            else `output-shift`; neither needs labels.
        outputs: which tensors of what the model returns count, by name or number (`"out"`, 0). Default: `logits`, where
            the output has them; else all that hold images and numbers.
        constraints: what pruning must leave alone: layers, multiples, least widths, largest shares, ties.
        training: train the model first, on a copy, perhaps with a penalty that makes units dispensable; needs labelled
            `recovery_data` (default: `data`).
        recovery: fine-tune afterwards; needs the same.
        recovery_data: labelled training batches or a dataset.
        test: labelled batches for top-1 accuracy, never used for any decision.
        augment: (images, generator) -> images; gives the repair more views of the calibration images.
        settings: how to go about it; may replace parts of the method.
        workspace: folder for finished stages and the recovery's checkpoints.
        resume: go on from what is in `workspace`.
        asked: further facts to record of what was asked for.
        device: a `Device` or its name (`local-ort-1t`): where a latency or energy budget holds, and where the networks
            are timed in the end. Default: PyTorch on this machine, on one thread.
        seed: of everything drawn; the same seed on the same machine gives the same plan.
        progress: show progress bars.

    Raises:
        InputError: data, settings or constraints that cannot be used; a model in training mode.
        TraceError: the model cannot be captured.
        BudgetError: no plan meets the budget; the message has the smallest reachable value.
        VerificationError: the removal cannot be proven right.
    """
    run = start_run(  # trace
        model,
        data,
        budget=budget,
        example_inputs=example_inputs,
        method=method,
        outcome=outcome,
        outputs=outputs,
        constraints=constraints,
        settings=settings,
        training=training,
        recovery=recovery,
        recovery_data=recovery_data,
        test=test,
        augment=augment,
        workspace=workspace,
        resume=resume,
        asked=asked,
        device=device,
        seed=seed,
        progress=progress,
    )
    stage = resumed(run)
    if stage is None:
        chosen = choose(run)  # estimate, allocate; in rounds, remove and repair on the way
        bare = removed(run, chosen)  # remove
        proof = proven(run, bare)  # verify
        mended = repaired(run, bare, chosen)  # repair
        stage = staged(run, chosen, bare, proof, mended)
    trained = recovered(run, stage)  # recover
    measurements, final = measured_run(run, stage, trained)  # measure
    return Result(final, stage.plan, stage.effects, measurements, run.network)  # explain: `Result.report`
