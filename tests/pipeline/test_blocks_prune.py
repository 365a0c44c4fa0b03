"""The whole way with residual blocks that may go as a whole."""

from functools import cache

import numpy as np
import pytest
import torch
from torch import nn

import whyprune
from devices.made_up_device import MadeUp
from structure.networks import randomised
from structure.residual_models import Blocks, Bottleneck, Residual
from whyprune import Budget, Recovery, Settings, prune
from whyprune.errors import BudgetError, InputError


def fresh() -> Blocks:
    torch.manual_seed(0)
    return Blocks(*(Residual(inner=6) for _ in range(4)), Bottleneck())


@cache
def model() -> nn.Module:
    """A trained network would hardly miss one of these blocks: what they add to the stream is small."""
    made = randomised(fresh(), seed=3)
    with torch.no_grad():
        for block in list(made.blocks)[:-1]:
            block.second[1].weight.mul_(0.1)
            block.second[1].bias.mul_(0.1)
    return made


def images(count, seed):
    drawn = torch.randn(count, 3, 8, 8, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        return drawn, model()(drawn).argmax(dim=1)


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def run(budget, blocks=None, **options):
    data = [images(160, 1)]
    settings = Settings(latency=False, effect_images=16, refute=False, blocks=blocks)
    about = {"settings": settings, "test": [images(60, 2)], "progress": False, **options}
    return prune(model(), data, budget=budget, example_inputs=data[0][0][:2], **about)


@pytest.mark.parametrize("ratio", [0.45, 0.2])
def test_blocks_go_in_one_round_or_several_and_come_back_from_the_folder(ratio, tmp_path):
    found = run(Budget(macs=ratio), blocks=True)
    assert found.plan.blocks
    assert found.plan.macs <= ratio * found.network.cost().macs
    assert found.plan.params == sum(p.numel() for p in found.model.parameters())
    for path in found.plan.blocks:
        assert isinstance(found.model.get_submodule(path), nn.Identity)
    assert found.measurements.blocks == list(found.plan.blocks)
    kept = {g.name: g.kept for g in found.measurements.groups}
    assert all(kept[name] == 0 for b in found.network.blocks if b.name in found.plan.blocks for name in b.groups)
    folder = found.save(tmp_path / "result", onnx=False)
    x, _ = images(8, 3)
    for about in ({}, {"example_inputs": x[:2]}):
        loaded = whyprune.load(fresh(), folder, **about)
        with torch.no_grad():
            assert torch.equal(loaded(x), found.model(x))
    page = (folder / "report.html").read_text()
    assert "as a whole: " + ", ".join(found.plan.blocks) in page


def test_blocks_stay_unless_asked_for():
    assert run(Budget(macs=0.6)).plan.blocks == ()
    assert run(Budget(macs=0.6), blocks=False).plan.blocks == ()


def test_a_network_without_blocks_does_what_it_did_with_more():
    """What nearly does nothing goes first, and less is predicted to be lost than where only widths shrink.

    One search serves both, so that blocks are all that differs; effects of several blocks do not add up, so that what
    is measured is only told apart from what was predicted by its interval.
    """
    budget = Budget(macs=0.4)
    wide, deep = run(budget), run(budget, blocks=True)
    assert deep.plan.blocks
    assert wide.plan.blocks == ()
    assert deep.plan.predicted < wide.plan.predicted
    assert deep.measurements.joint_effect.interval[0] < deep.plan.predicted


def test_a_budget_on_a_device_takes_blocks_where_calls_take_the_time():
    class Calls(MadeUp):
        """Every layer is a call."""

        def layer_ms(self, outputs, inputs, places):
            return 1.0 + super().layer_ms(outputs, inputs, places)

    device = Calls(step=4)
    found = run(Budget(latency=0.6), device=device)
    assert found.plan.blocks
    assert device.time_ms(found.model) <= 0.6 * device.time_ms(model())
    record = found.measurements.budgets[0]
    assert record.measured_ratio == pytest.approx(device.time_ms(found.model) / device.time_ms(model()))
    with pytest.raises(BudgetError, match="smallest reachable"):
        run(Budget(latency=0.6), blocks=False, device=device)


def test_recovery_goes_on_from_a_network_without_blocks():
    found = run(
        Budget(macs=0.5), blocks=True, recovery=Recovery(epochs=1, distill=0.5, follow=1.0, validation_fraction=0.2)
    )
    assert found.plan.blocks
    assert all(np.isfinite(p.detach().numpy()).all() for p in found.model.parameters())


def test_only_the_method_that_measures_blocks_takes_them():
    with pytest.raises(InputError, match="only method 'causal' measures what whole blocks do"):
        run(Budget(macs=0.5), blocks=True, method="magnitude-l2")
