"""Every method of the library prunes through the same pipeline: within the budget, proven, saved and loaded."""

import copy

import pytest
import torch

import tiny
from whyprune import Budget, Settings, load, prune
from whyprune.methods import method_named, method_names
from whyprune.repair.registry import REPAIRS
from whyprune.testing.methods import with_few_plans

pytestmark = pytest.mark.usefixtures("traced_once")
QUICK = Settings(latency=False, effect_images=48, views=1, refute=False)
LABELLED = tiny.batches(0, 240)


@pytest.mark.parametrize("method", list(method_names()))
def test_every_method_prunes(method, tmp_path):
    result = prune(
        tiny.trained(),
        LABELLED,
        example_inputs=LABELLED[0][0][:2],
        budget=Budget(macs=0.7),
        method=with_few_plans(method_named(method)),
        settings=QUICK,
        progress=False,
    )
    found = result.measurements
    assert found.pruned.macs <= 0.7 * found.dense.macs
    assert found.asked["method"] == method
    assert found.verify.max_abs_difference <= found.verify.tolerance
    result.save(tmp_path / "run", onnx=None if method == "causal" else False)  # the file is no matter of the method
    loaded = load(copy.deepcopy(tiny.trained()), tmp_path / "run")
    with torch.no_grad():
        assert torch.equal(loaded(LABELLED[0][0]), result.model(LABELLED[0][0]))


@pytest.mark.parametrize("repair", list(REPAIRS))
def test_every_repair_does_no_harm_on_its_images(repair):
    result = prune(
        tiny.trained(),
        LABELLED,
        example_inputs=LABELLED[0][0][:2],
        budget=Budget(macs=0.7),
        method="magnitude-l2",
        settings=Settings(latency=False, effect_images=48, views=1, refute=False, repair=repair),
        progress=False,
    )
    joint = result.measurements.joint_effect
    if repair in ("none", "refit", "constants"):
        assert joint.measured <= joint.after_removal * 1.5 + 1e-6
    assert result.measurements.asked["repair"] == repair
