"""Repairs by name, with what each takes and promises; all work without labels on what is left of the network."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from whyprune.data.batches import Batch
from whyprune.effects.outcomes import Outcome
from whyprune.errors import InputError
from whyprune.repair.batch_norm import reestimate_batch_norm
from whyprune.repair.constants import repair_constants, unfolded
from whyprune.repair.coverage import sentence, unrefitted
from whyprune.repair.merging import merge, unmerged
from whyprune.repair.reconstruction import reconstruct
from whyprune.repair.refit import repair
from whyprune.structure.state import State

Views = Callable[[int], Sequence[Batch]]
"""Number of a stage -> views of the planning images; stages see different ones."""


@dataclass(frozen=True)
class RepairCase:
    """What every repair is given.

    Attributes:
        state: the network as cut, or as refitted on the way.
        refitted: whether it has been refitted on the way already.
        views: of the planning images.
        outcome: what must not get worse.
        seed: of everything drawn.
        progress: show progress bars.
    """

    state: State
    refitted: bool
    views: Views
    outcome: Outcome | str | None = None
    seed: int = 0
    progress: bool = False


@dataclass(frozen=True)
class Repair:
    """A repair by name, with its facts.

    Attributes:
        name: of the repair.
        apply: from a case to the repaired state.
        summary: what it does, in one sentence without a full stop.
        guarantee: what holds of its result, in words.
        gradients: what derivatives it takes, in words; `no` for none.
        between_rounds: whether a network that is pruned in rounds is refitted after every round.
        paper: where it comes from.
        omitted: what it leaves as it is in a network as cut, in a sentence, empty for nothing; None where it changes no
            weights.
    """

    name: str
    apply: Callable[[RepairCase], State]
    summary: str
    guarantee: str
    gradients: str = "no"
    between_rounds: bool = False
    paper: str = ""
    omitted: Callable[[State], str] | None = None


def _refit(case: RepairCase) -> State:
    if case.refitted:
        return case.state
    return repair(case.state, case.views(0), outcome=case.outcome, seed=case.seed, progress=case.progress)


def _reconstruct(case: RepairCase) -> State:
    return reconstruct(_refit(case), case.views(1), outcome=case.outcome, seed=case.seed, progress=case.progress)


def _constants(case: RepairCase) -> State:
    return repair_constants(case.state, case.views(0), outcome=case.outcome, progress=case.progress)


def _merge(case: RepairCase) -> State:
    return merge(case.state, case.views(0), outcome=case.outcome)


def _not_refitted(state: State) -> str:
    return sentence(unrefitted(state))


def _not_folded(state: State) -> str:
    places = unfolded(state.network, state.removed)
    return f"Removed units stay zero where no bias takes their constant: {'; '.join(places)}." if places else ""


def _not_merged(state: State) -> str:
    return sentence(unmerged(state), "merged")


def _batch_norm(case: RepairCase) -> State:
    tuned = reestimate_batch_norm(case.state.model, case.views(0), case.state.network.positional)
    return case.state.with_model(tuned)


_ALL = (
    Repair(
        "refit",
        _refit,
        "refits each convolution (transposed or not) and linear layer by least squares, from the pruned network's own "
        "inputs towards the dense network's stream",
        "the outcome on the repair's own images is no worse than before, or the old weights are kept",
        between_rounds=True,
        omitted=_not_refitted,
        paper="after He, Zhang & Sun and ThiNet, both ICCV 2017",
    ),
    Repair(
        "reconstruct",
        _reconstruct,
        "refits as `refit` does, then all layers of each residual branch together by Gauss-Newton, so that the stream "
        "behind the branch comes closest to the dense one",
        "as `refit`; no derivative of the outcome, or across a branch, is taken",
        gradients="inside a branch",
        between_rounds=True,
        omitted=_not_refitted,
        paper="block reconstruction: BRECQ, Li et al., ICLR 2021",
    ),
    Repair(
        "constants",
        _constants,
        "replaces each removed unit by its mean or optimal constant, folded into the biases and running means of the "
        "layers that read it",
        "without padding the network is the original under do(removed := constants), exactly; beside borders padded "
        "with zeros it is off by what the kernel reads outside; the outcome on the repair's own images is no worse, or "
        "nothing changes",
        omitted=_not_folded,
        paper="after Li & Janson, NeurIPS 2024",
    ),
    Repair(
        "merge",
        _merge,
        "adds the outgoing weights of each removed unit, scaled by least squares of the maps, to those of the unit of "
        "its group that stays and is most like it",
        "one column of a layer changes for each removed unit; nothing is lost of copies, scaled or not; on images that "
        "no factor was fitted on the outcome is no worse, or nothing changes",
        omitted=_not_merged,
        paper="an extension of Wu et al., Applied Sciences 2022",
    ),
    Repair(
        "batch-norm",
        _batch_norm,
        "re-estimates batch-norm statistics",
        "no weight changes",
        paper="EagleEye, Li et al., ECCV 2020",
    ),
    Repair("none", lambda case: case.state, "nothing", "the network is the masked original"),
)
REPAIRS = {one.name: one for one in _ALL}
"""Name -> repair."""


def repair_named(name: str) -> Repair:
    """The repair of that name.

    Raises:
        InputError: there is none.
    """
    if name not in REPAIRS:
        raise InputError(f"no repair named {name!r}: choose from {', '.join(REPAIRS)}")
    return REPAIRS[name]
