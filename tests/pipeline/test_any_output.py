"""`prune` on networks that return something else than one vector of logits."""

import pytest
import torch
from torch import nn

from structure.outputs_of import Headed, Returns, built, pictures
from whyprune import Budget, OutputShift, Recovery, prune
from whyprune.errors import InputError
from whyprune.pipeline.settings import Settings

QUICK = Settings(latency=False, refute=False)
EXAMPLE = pictures(2)


def pruned(model, *, labels=None, macs=0.6, **how):
    x = pictures(64)
    data = [(x, labels)] if labels is not None else [x]
    how = {"settings": QUICK, "progress": False, **how}
    return prune(model, data, budget=Budget(macs=macs), example_inputs=EXAMPLE, **how)


@pytest.mark.parametrize("kind", ["one number", "map", "sequence first", "dataclass", "nested"])
@pytest.mark.parametrize("method", ["causal", "conditional", "random-search", "exact", "taylor", "random"])
def test_every_method_prunes_every_kind_of_output(method, kind):
    result = pruned(built(Returns(kind)), method=method, test=[(pictures(8), torch.zeros(8, dtype=torch.long))])
    assert result.measurements.pruned.macs <= 0.6 * result.measurements.dense.macs
    assert result.measurements.joint_effect.outcome == "output-shift"
    assert type(result.model(EXAMPLE)) is type(built(Returns(kind))(EXAMPLE))
    assert result.measurements.certificate is None
    assert result.measurements.pruned.top1_percent is None
    assert any("No accuracy was measured: the network's output is" in note for note in result.measurements.notes)


def test_both_heads_are_kept_alive():
    model, x = built(Headed()), pictures(64)
    result = pruned(model, macs=0.55)
    with torch.no_grad():
        pairs = zip(result.model(x), model(x), strict=True)
        harm = [float((p - q).square().sum() / (q - q.mean(0)).square().sum()) for p, q in pairs]
    assert max(harm) < 10 * max(min(harm), 0.01)
    assert result.measurements.joint_effect.measured == pytest.approx(sum(harm) / 2, rel=0.5)
    assert any("'0' (B, 3), '1' (B, 3) count" in note for note in result.measurements.notes)


@pytest.mark.parametrize("chosen", ["1", ["1"]])
def test_outputs_that_were_not_chosen_keep_their_units(chosen):
    model = built(Headed())
    labels = model(pictures(64))[1].argmax(1)
    result = pruned(model, outputs=chosen, labels=labels, test=[(pictures(64), labels)])
    assert {g.name for g in result.measurements.groups} == {"stem", "right"}
    assert any(r.where == "left" and "does not count" in r.reason for r in result.measurements.refusals)
    assert result.measurements.joint_effect.outcome == "logit-shift"
    assert result.measurements.dense.top1_percent == 100
    assert result.measurements.certificate is not None
    assert result.measurements.asked["outputs"] == ["1"]
    by_settings = pruned(model, settings=Settings(latency=False, refute=False, outputs=("1",)))
    assert by_settings.plan.units == result.plan.units


def test_a_weight_moves_what_goes():
    model = built(Headed(factor=1.0))
    light, heavy = (pruned(model, macs=0.5, outcome=OutputShift(weights={"1": w})) for w in (0.02, 50.0))

    def kept(result):
        return {g.name: g.kept for g in result.measurements.groups}

    assert kept(light)["right"] <= kept(light)["left"]
    assert kept(heavy)["right"] >= kept(heavy)["left"]
    assert kept(light) != kept(heavy)


class Classes(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Conv2d(2, 6, 3), nn.Linear(6, 3)

    def forward(self, x):
        return self.last(self.first(x).relu().mean((2, 3)))


def test_targets_of_a_regression_are_no_classes():
    targets = torch.randn(64, 3)
    result = pruned(built(Classes()), labels=targets, test=[(pictures(64), targets)])
    assert result.measurements.joint_effect.outcome == "output-shift"
    assert any("The labels are real numbers" in note for note in result.measurements.notes)
    assert any("No accuracy was measured: labels are torch.float32" in note for note in result.measurements.notes)
    assert result.measurements.certificate is None


def test_a_constant_output_is_said():
    class Still(nn.Module):
        def __init__(self):
            super().__init__()
            self.classes = Classes()
            self.bias = nn.Parameter(torch.ones(2))

        def forward(self, x):
            return self.classes(x), self.bias + 0 * x.mean((1, 2, 3))[:, None]

    result = pruned(built(Still()))
    assert any("Output '1' is the same for every calibration image" in note for note in result.measurements.notes)


def test_recovery_says_that_it_needs_classes():
    with pytest.raises(InputError, match=r"recovery trains towards classes: .* 'output' \(B, 2, 6"):
        pruned(built(Returns("map")), recovery=Recovery(epochs=1))
