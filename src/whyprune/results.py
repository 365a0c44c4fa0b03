"""What a run measured, as it is stored in `result.json`; units are in the field names."""

from typing import Any, Literal

from pydantic import AliasChoices, BaseModel, ConfigDict, Field

SCHEMA_VERSION = 1

Interval = tuple[float, float]
DeviceCost = Literal["latency", "energy"]
"""What only a device can tell."""
OffBy = Literal["sum", "curve", "samples", "repair", "no repair", "search"]
"""Why a predicted and a measured joint effect disagree."""
Level = Literal["hardly changed", "changed", "much changed", "lost"]
"""How much is left of a function."""


class Record(BaseModel):
    """A frozen record that refuses unknown fields, so that a typo in a file is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class LatencyMs(Record):
    """Latency of one network on one device, from repeats interleaved with the network it is compared to."""

    p50_ms: float
    p90_ms: float
    p99_ms: float
    repeats: int
    batch_size: int
    threads: int
    min_ms: float | None = None
    mean_ms: float | None = None
    std_ms: float | None = None

    @property
    def throughput_per_s(self) -> float:
        """Samples per second: the batch size over the median time."""
        return 1000 * self.batch_size / self.p50_ms


class NetworkMeasurement(Record):
    """One network: accuracy on the test split and cost. `None` means not measured."""

    top1_percent: float | None = None
    top1_interval_percent: Interval | None = Field(None, description="95% Wilson interval")
    chance_percent: float | None = Field(None, description="what always saying the commonest class reaches there")
    macs: int
    params: int
    bytes: int
    latency_p50_ms: float | None = None
    latency: LatencyMs | None = None


class LatencyRatio(Record):
    """Dense over pruned median latency (above 1: pruned is faster), with a 95% bootstrap interval."""

    speedup: float
    interval: Interval


class BudgetIteration(Record):
    """One plan that was built and measured on a device on the way to a budget; ratios are pruned over dense."""

    kind: DeviceCost
    asked_ratio: float
    predicted_ratio: float
    measured_ratio: float
    measured_ratio_interval: Interval
    macs: int
    params: int


class MeasuredBudget(Record):
    """A budget on a device: asked for, predicted from its table, measured there. Ratios are pruned over dense.

    `asked` and `dense` are in ms (latency) or mJ (energy), `asked` as given: a number up to 1 is a ratio.
    `share_of_rows` is the share of the dense network's cost that shrinks with the table's rows, as last corrected.
    `iterations` are the plans measured on the way; older files call them `turns`.
    """

    kind: DeviceCost
    device: str
    device_kind: Literal["measured", "emulated", "predicted"]
    asked: float
    asked_ratio: float
    dense: float
    predicted_ratio: float
    measured_ratio: float
    measured_ratio_interval: Interval
    table_rows: int
    priced_operations: int
    operations: int
    share_of_rows: float
    iterations: list[BudgetIteration] = Field(validation_alias=AliasChoices("iterations", "turns"))


class AccuracyAfter(Record):
    """Top-1 percent on the test split after each step; `None` where the step did not run."""

    removal: float | None = None
    repair: float | None = None
    recovery: float | None = None


class JointEffect(Record):
    """Effect of the whole plan on the outcome, predicted from the plan's parts and measured on fresh images.

    `predicted` and `measured` are for the same network (repaired if repair ran); `after_removal` is the effect of
    the bare removal. `interval` is the 95% interval of `measured`. `another`
    and `constant` are the harm of answers that know nothing of their sample, on the same samples: the dense network's
    for another sample, and the mean of its answers; `untaught` that of the network with all parameters at zero,
    where it is less. `off_by` is why prediction and measurement disagree: `sum` where
    parts do not add up, `curve` where the one part is off, `samples` where the prediction holds on those that it was
    made from, `repair` where it is of the removal alone, `no repair` where it counts on one that did not run,
    `search` where the plan was measured as a whole while it was looked for, on few samples.
    """

    outcome: str
    predicted: float | None
    measured: float
    interval: Interval
    after_removal: float | None = None
    another: float | None = None
    constant: float | None = None
    untaught: float | None = None
    off_by: OffBy | None = None
    by_output: dict[str, float] = Field({}, description="each output's harm over its own variance, where several count")
    images: int


class Verdict(Record):
    """Whether the pruned network is of use; `level` is how much changed, `advice` what to do if it is lost.

    `usable` is None where nothing that was measured tells; `level` is None where accuracy alone tells.
    """

    usable: bool | None
    level: Level | None = None
    sentence: str
    advice: list[str] = []


class Verification(Record):
    """The proof that removal did what the intervention says: pruned == original under do(removed := 0).

    `in_double` says that the networks were compared in double precision: in their own, rounding that this network
    amplifies is larger than the tolerance.
    """

    max_abs_difference: float
    tolerance: float
    inputs: int
    stress_max_abs_difference: float | None = None
    in_double: bool = False


class Certificate(Record):
    """Bounds that hold together, with the stated confidence, on images drawn as these were, which decided nothing.

    `accuracy drop` is in points, dense minus pruned; `changed predictions` is a share of the images. `bound_percent` is
    on all such images, `fresh_bound_percent` on a fresh sample of `fresh_images` of them; None in records that have the
    first alone.
    """

    of: Literal["accuracy drop", "changed predictions"]
    bound_percent: float
    fresh_bound_percent: float | None = None
    fresh_images: int | None = None
    measured_percent: float
    confidence: float
    images: int


class Refutation(Record):
    """One attempt to refute the effects behind a plan: what was tried, what came out, and whether they stand.

    `value` is what was found and `limit` what it was held against; `passed` is None where the attempt could not be
    made, and `sentence` says why.
    """

    name: str
    passed: bool | None
    sentence: str
    value: float | None = None
    limit: float | None = None


class GroupSummary(Record):
    """One group of coupled units: its width before and after, and what its units cost and do."""

    name: str
    width: int
    kept: int
    removable: int
    axes: list[str]
    macs_before: int
    macs_after: int


class RefusalSummary(Record):
    """A set of channels that is kept whole, where in the user's code, and why."""

    where: str
    reason: str
    channels: int


class RecoveryEpoch(Record):
    """One epoch of fine-tuning; accuracy is on the validation part of the training data.

    `train_loss` is the mean of what was minimised, the weighted penalty included; `penalty` that of the penalty alone,
    before its weight.
    """

    epoch: int
    train_loss: float
    validation_top1_percent: float | None = Field(
        validation_alias=AliasChoices("validation_top1_percent", "holdout_top1_percent")  # the latter in older files
    )
    learning_rate: float
    seconds: float
    penalty: float | None = None


class RunResult(Record):
    """Everything a run of `prune` asked for and measured."""

    schema_version: Literal[1] = 1
    samples: str = Field("images", description="what the inputs are called: images or samples")
    asked: dict[str, Any] = Field(description="model, data, budget, method, outcome, recovery: as asked for")
    dense: NetworkMeasurement
    pruned: NetworkMeasurement
    latency_ratio: LatencyRatio | None = None
    latency_device: str | None = Field(None, description="what ran the networks; None where nothing was timed")
    budgets: list[MeasuredBudget] = []
    accuracy_after: AccuracyAfter
    joint_effect: JointEffect | None
    effect_after_recovery: float | None = Field(None, description="the joint effect of the fine-tuned network")
    verdict: Verdict | None = None  # none in older files
    verify: Verification
    certificate: Certificate | None = None
    refutations: list[Refutation] = []
    groups: list[GroupSummary]
    blocks: list[str] = []
    refusals: list[RefusalSummary]
    training: list[RecoveryEpoch] = []  # before pruning; none in older files
    recovery: list[RecoveryEpoch] = []
    normalization: dict[str, Any] | None = None
    seeds: dict[str, int]
    versions: dict[str, str]
    machine: dict[str, Any] = {}
    timings_s: dict[str, float]
    notes: list[str] = Field([], description="sentences a reader should know: what was skipped, what disagreed")
