"""A made-up run of the shape and size of a real one: 27 groups, 1,008 units, about half removed."""

import numpy as np

from whyprune.report import UnitRow
from whyprune.results import (
    AccuracyAfter,
    GroupSummary,
    JointEffect,
    LatencyMs,
    LatencyRatio,
    NetworkMeasurement,
    RecoveryEpoch,
    RefusalSummary,
    RunResult,
    Verification,
)

WORDS = {
    "outcome": "LogitShift",
    "intervention": "carried",
    "estimand": "unique effect",
    "method": "least-squares channel effects",
}
STAGES = ((16, 1024), (32, 256), (64, 64))


def unit_rows(seed=0):
    """Units of 27 block-internal groups; those with small effects are removed, with some noise."""
    rng = np.random.default_rng(seed)
    rows = []
    for stage, (width, pixels) in enumerate(STAGES, start=1):
        for block in range(9):
            name = f"layer{stage}.{block}.conv1"
            effects = rng.lognormal(-7.5 + 0.25 * block, 1.3, width)
            effects[rng.random(width) < 0.03] *= -0.05
            cut = np.quantile(effects, rng.uniform(0.25, 0.8))
            for i, effect in enumerate(effects):
                error = abs(effect) * 0.15 + 1e-5
                rows.append(
                    UnitRow(
                        group=name,
                        unit=f"{name}.weight[{i}]",
                        index=i,
                        effect=float(effect),
                        standard_error=float(error),
                        low=float(effect - 1.96 * error),
                        high=float(effect + 1.96 * error),
                        samples=1024,
                        removed=bool(effect < cut),
                        macs=2 * 9 * width * pixels,
                        params=2 * 9 * width + 2,
                    )
                )
    return rows


def groups_of(rows):
    """The groups that the rows make up."""
    members = {}
    for row in rows:
        members.setdefault(row.group, []).append(row)
    return [
        GroupSummary(
            name=name,
            width=len(units),
            kept=sum(not u.removed for u in units),
            removable=len(units),
            axes=[f"{name}.weight:0", f"{name.replace('conv', 'bn')}.weight:0", f"{name[:-1]}2.weight:1"],
            macs_before=sum(u.macs for u in units),
            macs_after=sum(u.macs for u in units if not u.removed),
        )
        for name, units in members.items()
    ]


def full_result(rows, **changes):
    """Every field is there."""

    def latency(p50):
        return LatencyMs(p50_ms=p50, p90_ms=p50 * 1.07, p99_ms=p50 * 1.31, repeats=200, batch_size=1, threads=1)

    values = {
        "asked": {
            "model": "resnet56",
            "data": "cifar10",
            "budget": {"macs": 0.5},
            "method": "least squares",
            "outcome": "LogitShift",
            "recovery": None,
            "command": "whyprune prune resnet56.safetensors --data cifar10 --budget macs=0.5 --seed 0",
        },
        "dense": NetworkMeasurement(
            top1_percent=93.39,
            top1_interval_percent=(92.885, 93.861),
            macs=125485706,
            params=853018,
            bytes=3412072,
            latency=latency(14.71),
        ),
        "pruned": NetworkMeasurement(
            top1_percent=91.6,
            top1_interval_percent=(91.04, 92.128),
            macs=62742853,
            params=431207,
            bytes=1724828,
            latency=latency(9.08),
        ),
        "latency_ratio": LatencyRatio(speedup=1.6204, interval=(1.553, 1.701)),
        "accuracy_after": AccuracyAfter(removal=41.22, repair=91.6),
        "joint_effect": JointEffect(
            outcome="LogitShift",
            predicted=0.0131,
            measured=0.0419,
            interval=(0.0382, 0.0457),
            after_removal=0.913,
            images=2048,
        ),
        "verify": Verification(max_abs_difference=3.8e-6, tolerance=1e-4, inputs=64, stress_max_abs_difference=2.1e-5),
        "groups": groups_of(rows),
        "refusals": [
            RefusalSummary(
                where="resnet.py:71 in forward",
                reason="F.pad(..., 8) fixes the residual stream's width",
                channels=112,
            )
        ],
        "normalization": {"mean": [0.4914, 0.4822, 0.4465], "std": [0.2023, 0.1994, 0.201]},
        "seeds": {"plan": 0, "data": 0},
        "versions": {"whyprune": "0.1.0", "torch": "2.13.0+cpu", "numpy": "2.4.6"},
        "machine": {
            "cpu": "Some CPU @ 2.60GHz",
            "cores": 2,
            "load_average": [0.71, 0.64, 0.5],
            "versions": {"hidden": "twice"},
        },
        "timings_s": {
            "trace": 2.31,
            "estimate": 214.8,
            "allocate": 61.2,
            "remove": 0.11,
            "repair": 95.4,
            "verify": 3.02,
            "measure": 48.6,
        },
        "notes": [
            "Single effects were measured on augmented training images.",
            "Energy was not measured: this machine has no counter.",
        ],
    }
    return RunResult(**(values | changes))


def bare_result():
    """Only what a record cannot do without."""
    network = NetworkMeasurement(macs=100, params=10, bytes=40)
    return RunResult(
        asked={},
        dense=network,
        pruned=NetworkMeasurement(macs=50, params=5, bytes=20),
        accuracy_after=AccuracyAfter(),
        joint_effect=None,
        verify=Verification(max_abs_difference=0.0, tolerance=1e-4, inputs=1),
        groups=[],
        refusals=[],
        seeds={},
        versions={},
        timings_s={},
    )


def epochs(count):
    """A recovery of that many epochs."""
    return [
        RecoveryEpoch(
            epoch=i,
            train_loss=0.31 / (i + 1),
            validation_top1_percent=91 + 0.2 * i,
            learning_rate=0.01,
            seconds=33.3,
        )
        for i in range(count)
    ]
