"""Budgets on a device: the plan that is used is one that the device measured to meet the budget."""

import pytest
import torch
from torch import nn

import tiny
from allocation.made_up import some_effects
from devices.made_up_device import MadeUp
from whyprune.allocation import Budget, allocate
from whyprune.allocation.constraints import Constraints
from whyprune.data.batches import Batch
from whyprune.devices.inputs import inputs_for
from whyprune.errors import BudgetError, InputError
from whyprune.pipeline.device_budget import check_device, on_device, with_memory
from whyprune.pipeline.settings import Settings
from whyprune.prune import prune
from whyprune.structure.remove import remove
from whyprune.structure.trace import trace


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


class Wide(nn.Module):
    """Two blocks whose widths have many stops."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([nn.Conv2d(1, 64, 3), *(nn.Conv2d(64, 64, 3, padding=1) for _ in range(3))])
        self.head = nn.Linear(64, 10)

    def forward(self, x):
        for layer in self.layers:
            x = torch.relu(layer(x))
        return self.head(x.mean(dim=(2, 3)))


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return trace(Wide().eval(), torch.randn(2, 1, 6, 6))


def planned(network, device, budget, allocation="curves"):
    aim = on_device(network, budget, device, Constraints())
    effects = some_effects(network, 0, curves=allocation == "curves", estimand="single")
    plan = aim(lambda n, b, c: allocate(n, effects, b, allocation=allocation, constraints=c), budget)
    return aim, plan


def true_ratio(network, device, plan):
    return device.time_ms(remove(network, plan.units)) / device.time_ms(network.model)


@pytest.mark.parametrize("allocation", ["uniform", "global", "curves"])
@pytest.mark.parametrize("lie", [0.4, 1.0, 2.5])
def test_the_loop_ends_near_the_budget_although_the_rows_lie(network, allocation, lie):
    device = MadeUp(step=8, call_ms=5.0, rows_lie=lie)
    aim, plan = planned(network, device, Budget(latency=0.6), allocation)
    found = true_ratio(network, device, plan)
    assert found <= 0.6
    record = aim.records(plan)[0]
    assert record.measured_ratio == pytest.approx(found)
    assert found >= 0.6 * 0.9  # stops of 8 channels are that far apart
    assert len(record.iterations) <= aim.iterations
    assert plan.budget == {"latency": 0.6}


def test_a_price_that_is_right_needs_one_turn(network):
    device = MadeUp(step=8)
    aim, plan = planned(network, device, Budget(latency=0.5))
    assert [t.predicted_ratio for t in aim.tried] == pytest.approx([t.measured_ratio for t in aim.tried])
    assert true_ratio(network, device, plan) <= 0.5


def test_milliseconds_and_energy_are_bounded_too(network):
    device = MadeUp(step=8, call_ms=3.0, energy=True)
    dense = device.time_ms(network.model)
    assert dense > 4
    _, plan = planned(network, device, Budget(latency=0.7 * dense))
    assert device.time_ms(remove(network, plan.units)) <= 0.7 * dense
    aim, plan = planned(network, device, Budget(energy=0.6, macs=0.9))
    assert true_ratio(network, device, plan) <= 0.6
    assert plan.macs <= 0.9 * network.cost().macs
    assert aim.records(plan)[0].dense == pytest.approx(7 * dense)


def test_what_a_device_does_not_measure_is_not_guessed(network):
    with pytest.raises(InputError, match="does not measure energy"):
        on_device(network, Budget(energy=0.5), MadeUp(), Constraints())
    with pytest.raises(InputError, match=r"latency=0.5 needs a device"):
        check_device(Budget(latency=0.5), None)


def test_a_device_that_gets_no_faster_is_said_so(network):
    class Stubborn(MadeUp):
        def lie(self, name):
            return 100.0 if name == "pruned" else 1.0

    with pytest.raises(BudgetError, match=r"none of \d+ plans was measured to meet the budget on made-up"):
        planned(network, Stubborn(step=8), Budget(latency=0.8))


def test_inputs_are_repeated_up_to_the_batch():
    example = Batch((torch.arange(2.0)[:, None],), {})
    assert inputs_for(MadeUp(batch_size=5), example).args[0].flatten().tolist() == [0, 1, 0, 1, 0]
    assert len(inputs_for(MadeUp(), example)) == 2


@pytest.mark.parametrize("method", ["causal", "magnitude-l2"])
def test_prune_meets_what_the_device_measures(method, tmp_path):
    device = MadeUp(step=2, call_ms=0.2)
    budget = Budget(latency=0.75, memory=0.95)
    settings = Settings(views=1, refute=False, effect_images=16)
    result = prune(
        tiny.trained(),
        tiny.batches(0, 192),
        budget=budget,
        example_inputs=tiny.digits()[0][:2],
        method=method,
        device=device,
        settings=settings,
        progress=False,
    )
    ratio = device.time_ms(result.model) / device.time_ms(tiny.trained())
    record = result.measurements
    assert ratio <= 0.75
    assert record.budgets[0].measured_ratio == pytest.approx(ratio)
    assert record.latency_device == "made-up (predicted)"
    assert 1 / record.latency_ratio.speedup == pytest.approx(ratio)
    priced = with_memory(result.network, budget, device).cost
    assert priced(result.network.select(result.plan.units)).memory <= 0.95 * priced().memory
    folder = result.save(tmp_path / "out", onnx=False)
    page = (folder / "report.html").read_text()
    assert "made-up" in page
    assert "predicted" in page


def test_a_latency_budget_without_a_device_is_refused_before_any_work():
    with pytest.raises(InputError, match="needs a device"):
        prune(nn.Linear(2, 2), [], budget=Budget(latency=0.5), example_inputs=torch.zeros(2, 2))
