"""Budgets that only a device can tell: plan by a price, build, measure there, correct the price, plan again.

A latency table predicts a pruned network's time from its layers alone. What it cannot see (layouts, caches, calls) is
measured on the planned network itself, beside the dense one, before anything expensive is done with it; the price then
gives what was measured, and the next plan is nearer. The plan that is used is one that was measured to meet the budget.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from whyprune.allocation.budget import Budget
from whyprune.allocation.constraints import Constraints
from whyprune.devices import Device, Measurement
from whyprune.devices.inputs import batch_size, inputs_for
from whyprune.devices.table import (
    LatencyPrice,
    LatencyTable,
    TabulatedLayer,
    briefly,
    fastest_ms,
    latency_price,
    tabulated_layers,
)
from whyprune.errors import BudgetError, InputError
from whyprune.results import BudgetIteration, DeviceCost, Interval, MeasuredBudget
from whyprune.structure.blocks import operations_of
from whyprune.structure.cost import Price
from whyprune.structure.memory import peak_memory
from whyprune.structure.network import Network
from whyprune.structure.plan import Plan
from whyprune.structure.remove import remove
from whyprune.structure.units import removed_indices

TOLERANCE = 0.05
ITERATIONS = 8
RESAMPLES = 1000
DAMPED = 0.5
"""Part of a correction that is made after the first one: plans are wrong in their own ways, and noise has its share."""


@dataclass(frozen=True)
class Ratio:
    """Pruned over dense, as a device measured it."""

    value: float
    interval: Interval


Ratios = Mapping[DeviceCost, Ratio]
AskedRatios = Mapping[DeviceCost, float]
Allocate = Callable[[Network, Budget, Constraints | None], Plan]
"""Plans for a network at its prices."""


@dataclass
class DeviceBudget:
    """Plans for a device until a plan was measured to meet the budget; `network` and `constraints` are to plan with.

    Attributes:
        network: priced.
        constraints: those asked for, and widths at the multiples that the table knows.
        budget: as asked for.
        device: where it holds.
        dense: what the dense network was measured to cost, by kind.
        prices: as corrected so far, by kind.
        layers: the operations that have rows.
        table: of the device.
        tolerance: a measured ratio this much below the one asked for is near enough.
        iterations: plans that are measured at most.
        tried: what was measured, plan by plan.
    """

    network: Network
    constraints: Constraints
    budget: Budget
    device: Device
    dense: dict[DeviceCost, float]
    prices: dict[DeviceCost, LatencyPrice]
    layers: tuple[TabulatedLayer, ...]
    table: LatencyTable
    tolerance: float = TOLERANCE
    iterations: int = ITERATIONS
    progress: bool = False
    tried: list[BudgetIteration] = field(default_factory=list)
    last: Measurement | None = None

    def __call__(self, allocate: Allocate, target: Budget) -> Plan:
        """The plan that was measured to meet the budget, and to come nearest to it.

        Args:
            allocate: plans for a network at its prices.
            target: the budget in ratios or absolute numbers; its bounds on the device are aimed at.

        Raises:
            BudgetError: no plan was measured to meet it.
        """
        asked = self._asked(target)
        lower = 1 - self.tolerance / 2  # the middle of what is near enough
        measured: dict[tuple[str, ...], Ratios] = {}
        best: tuple[float, Plan] | None = None
        for _ in range(self.iterations):
            bounds = {str(kind): ratio * lower for kind, ratio in asked.items()}
            try:
                plan = allocate(self._priced(), replace(target, **bounds), self.constraints)
            except BudgetError:
                if not measured:
                    raise
                break
            again = plan.units in measured
            found = measured[plan.units] if again else self._measured(plan, asked)
            measured[plan.units] = found
            met, distance = _near(found, asked)
            if met and (best is None or distance < best[0]):
                best = distance, plan
            if met and (distance <= self.tolerance or (again and lower >= 1)):
                break
            if again:
                lower = 1.0 if met else lower * (1 - self.tolerance)
        if best is None:
            raise BudgetError(self._missed(asked, list(measured.values())))
        return best[1].model_copy(update={"budget": target.as_dict()})

    def records(self, plan: Plan) -> list[MeasuredBudget]:
        """What was asked for, predicted and measured of the plan that is used, by kind."""
        return [self._record(kind, plan) for kind in self.prices]

    def _record(self, kind: DeviceCost, plan: Plan) -> MeasuredBudget:
        turns = [turn for turn in self.tried if turn.kind == kind]
        used = next((t for t in reversed(turns) if t.macs == plan.macs and t.params == plan.params), turns[-1])
        layers = {layer.name for layer in self.layers}
        return MeasuredBudget(
            kind=kind,
            device=self.device.name,
            device_kind=self.device.kind,
            asked=self.budget.as_dict()[kind],
            asked_ratio=self._asked(self.budget)[kind],
            dense=self.dense[kind],
            predicted_ratio=used.predicted_ratio,
            measured_ratio=used.measured_ratio,
            measured_ratio_interval=used.measured_ratio_interval,
            table_rows=len(self.table.rows),
            priced_operations=len(layers),
            operations=len(self.network.graph.operations),
            share_of_rows=self.prices[kind].share,
            iterations=turns,
        )

    def _asked(self, target: Budget) -> dict[DeviceCost, float]:
        """The ratios to reach, by kind."""
        return {k: min(v if v <= 1 else v / self.dense[k], 1.0) for k, v in target.on_device.items()}

    def _priced(self) -> Network:
        return self.network.priced(list(self.prices.values()))

    def _measured(self, plan: Plan, asked: AskedRatios) -> dict[DeviceCost, Ratio]:
        """Builds the plan, measures it beside the dense network, and corrects the prices by it."""
        network, units = self.network, self.network.select(plan.units)
        gone = {key: len(indices) for key, indices in removed_indices(units).items()}
        predicted = {kind: price(gone) / self.dense[kind] for kind, price in self.prices.items()}
        networks = {"dense": network.model, "pruned": remove(network, units)}
        self.last = self.device(networks, inputs_for(self.device, network.example))
        found = {kind: measured_ratio(self.last, kind) for kind in self.prices}
        idle = operations_of(network.cost.blocks, gone)
        running = (layer for layer in self.layers if layer.name not in idle)
        self.table.fill((layer.row(gone) for layer in running), progress=self.progress)
        for kind, ratio in found.items():
            weight = DAMPED if any(turn.kind == kind for turn in self.tried) else 1.0
            self.prices[kind] = self.prices[kind].corrected(gone, ratio.value, weight=weight)
            self.tried.append(
                BudgetIteration(
                    kind=kind,
                    asked_ratio=asked[kind],
                    predicted_ratio=predicted[kind],
                    measured_ratio=ratio.value,
                    measured_ratio_interval=ratio.interval,
                    macs=plan.macs,
                    params=plan.params,
                )
            )
        return found

    def _missed(self, asked: AskedRatios, measured: Sequence[Ratios]) -> str:
        parts = [
            f"{kind}={ratio:.4g} (the smallest that was measured: {min(f[kind].value for f in measured):.4f})"
            for kind, ratio in asked.items()
        ]
        return (
            f"none of {len(measured)} plans was measured to meet the budget on {self.device.name}, as ratios to the "
            f"dense network: {', '.join(parts)}; ask for a larger ratio"
        )


def _near(found: Ratios, asked: AskedRatios) -> tuple[bool, float]:
    """Whether all bounds were measured to hold, and how far the farthest of them is away."""
    met = all(found[kind].value <= ratio for kind, ratio in asked.items())
    return met, max(abs(1 - found[kind].value / ratio) for kind, ratio in asked.items())


def check_device(budget: Budget, device: Device | None) -> None:
    """Refuses, before any work, a budget on a device without one.

    Raises:
        InputError: no device is named.
    """
    if budget.on_device and device is None:
        kind, value = next(iter(budget.on_device.items()))
        raise InputError(f"the budget {kind}={value:g} needs a device to measure it on: name one, such as local-ort-1t")


def on_device(
    network: Network,
    budget: Budget,
    device: Device | None,
    constraints: Constraints,
    *,
    progress: bool = False,
) -> DeviceBudget | None:
    """Prepares for a budget on a device: measures the dense network and what is missing in the device's table.

    Returns:
        None for a budget that no device is needed for.

    Raises:
        InputError: no device is named for such a budget, or the device does not measure what is asked for.
    """
    check_device(budget, device)
    if device is None or not budget.on_device:
        return None
    device = briefly(device)
    measured = device({"dense": network.model}, inputs_for(device, network.example))
    dense = {kind: _cost_of(measured, "dense", kind) for kind in budget.on_device}
    table = LatencyTable.of(device, measured)
    layers = tabulated_layers(network, batch_size(device))
    if not layers:
        raise InputError(
            f"the budget {budget} cannot be planned for: the network has no convolution or linear layer to price"
        )
    prices = {
        kind: latency_price(
            network, table, layers, value, fastest=fastest_ms(measured, "dense"), kind=kind, progress=progress
        )
        for kind, value in dense.items()
    }
    network = network.priced(list(prices.values()))
    multiples = next(iter(prices.values())).multiples
    return DeviceBudget(
        network,
        replace(constraints, stops={g.name: multiples.get(g.home, 1) for g in network.groups}),
        budget,
        device,
        dense,
        prices,
        layers,
        table,
        progress=progress,
    )


def with_memory(network: Network, budget: Budget, device: Device | None) -> Network:
    """The network, priced by its memory at the device's batch size where the budget bounds that."""
    if budget.memory is None:
        return network
    prices: list[Price] = [peak_memory(network, 1 if device is None else batch_size(device))]
    return network.priced(prices)


def measured_ratio(measured: Measurement, kind: DeviceCost) -> Ratio:
    """Pruned over dense, with a 95% bootstrap interval where there are samples of both.

    Of latencies the medians over the calm rounds: other processes delay the longer network more often, and medians over
    all rounds would then call the shorter one faster than it is.
    """
    names = ("dense", "pruned")
    if kind == "latency" and all(len(measured.samples_ms.get(name, ())) > 1 for name in names):
        dense, pruned = measured.calm_ms(*names)
        rounds = np.random.default_rng(0).integers(0, len(dense), (RESAMPLES, len(dense)))
        drawn = np.median(pruned[rounds], axis=1) / np.median(dense[rounds], axis=1)
        low, high = np.quantile(drawn, (0.025, 0.975))
        found = float(np.median(pruned) / np.median(dense))
        return Ratio(found, (float(low), float(high)))
    value = _cost_of(measured, "pruned", kind) / _cost_of(measured, "dense", kind)
    return Ratio(value, (value, value))


def _cost_of(measured: Measurement, name: str, kind: DeviceCost) -> float:
    if kind == "latency":
        return measured.latency[name].p50_ms
    value = measured.energy_mj.get(name)
    if value is None or not 0 < value < math.inf:
        raise InputError(
            f"{measured.device} does not measure energy: no meter can be read there; bound the latency instead"
        )
    return value
