"""A mean over outputs hides none that is lost."""

import pytest
import torch
from torch import nn

from whyprune import OutputShift, trace
from whyprune.data.batches import as_batches
from whyprune.effects.each_output import each_output
from whyprune.effects.joint import joint_effect
from whyprune.effects.outcomes import judged
from whyprune.effects.verdict import verdict
from whyprune.results import JointEffect
from whyprune.structure.state import State


class Heads(nn.Module):
    """Five outputs of one stem, of different sizes and scales."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Linear(6, 8)
        self.heads = nn.ModuleDict({name: nn.Linear(8, k + 1) for k, name in enumerate("abcde")})

    def forward(self, x):
        x = self.stem(x).relu()
        return {name: 10**k * head(x) for k, (name, head) in enumerate(self.heads.items())}


@pytest.fixture(scope="module")
def case():
    torch.manual_seed(0)
    model, x = Heads().eval(), torch.randn(200, 6)
    network = trace(model, x[:2])
    broken = type(model)()
    broken.load_state_dict(model.state_dict())
    with torch.no_grad():  # one head gives its mean for everything
        broken.heads["c"].bias.copy_(model(x)["c"].mean(0) / 100)
        broken.heads["c"].weight.zero_()
    return network, State(network, broken.eval(), ()), x


def test_each_output_is_measured_over_its_own_variance(case):
    _, state, x = case
    joint = joint_effect(state, x.split(50))
    assert joint.outcome == "output-shift"
    assert list(joint.by_output) == list("abcde")
    assert joint.by_output["c"] == pytest.approx(1, rel=1e-4)
    assert all(joint.by_output[name] == pytest.approx(0, abs=1e-6) for name in "abde")
    assert joint.mean == pytest.approx(sum(joint.by_output.values()) / 5, rel=1e-4)
    assert joint.level == "much changed"


def test_one_lost_output_of_five_is_not_usable_and_named(case):
    _, state, x = case
    joint = joint_effect(state, x.split(50))
    record = JointEffect(
        outcome=joint.outcome,
        predicted=None,
        measured=joint.mean,
        interval=joint.interval,
        another=joint.another,
        constant=joint.constant,
        by_output=dict(joint.by_output),
        images=joint.images,
    )
    found = verdict(record)
    assert found.usable is False
    assert "'c'" in found.sentence
    assert not any(f"'{name}'" in found.sentence for name in "abde")
    assert any("outputs=" in what for what in found.advice)


def test_what_has_no_weight_or_no_others_is_not_listed(case):
    _, state, x = case
    weighed = joint_effect(state, x.split(50), outcome=OutputShift(weights={"c": 0}))
    assert list(weighed.by_output) == list("abde")
    one = trace(nn.Linear(6, 3).eval(), x[:2])
    _, outcome = judged(one, OutputShift())
    rows = [one.model(b.args[0]).detach() for b in as_batches(x.split(50))]
    assert each_output(outcome.fit(torch.cat(rows)), rows, rows) == {}
