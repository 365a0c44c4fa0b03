"""A plan says all that a fresh model needs, and nothing that does not fit it is carried out."""

import pytest
import torch
from networks import CASES, build, traced
from removal_property import assert_same_snapshot, removals, snapshot

from whyprune.errors import FormatError, InputError
from whyprune.structure.plan import AttributeChange, Plan, RemovedIndices, make_plan, replay_plan
from whyprune.structure.remove import remove
from whyprune.structure.trace import trace

NAME = "pad shortcut"


def plan_of(name, **about):
    network = traced(name)
    return make_plan(network, removals(network, singles=0)[0], **about)


def changed(removed=None, attributes=None):
    """The plan for `NAME` with other entries."""
    update = {"removed": removed} if removed is not None else {"attributes": attributes}
    return plan_of(NAME).model_copy(update={k: tuple(v) for k, v in update.items()})


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.removable])
def test_a_plan_replayed_is_the_removal(name):
    network = traced(name)
    for units in removals(network, singles=1):
        plan = make_plan(network, units)
        fresh = build(name, seed=4)
        before = snapshot(fresh)
        replayed = replay_plan(fresh, Plan.model_validate_json(plan.model_dump_json()))
        assert_same_snapshot(before, snapshot(fresh))
        expected = remove(network, units)
        replayed.load_state_dict(expected.state_dict())
        assert_same_snapshot(snapshot(expected), snapshot(replayed))


def test_a_plan_tells_what_it_costs_and_why():
    network = traced(NAME)
    units = removals(network, singles=0)[0]
    plan = make_plan(network, units, method="random", budget={"macs": 0.5}, predicted=0.25)
    cost = network.cost(units)
    assert (plan.macs, plan.params, plan.bytes) == (cost.macs, cost.params, cost.bytes)
    assert (plan.method, plan.budget, plan.predicted) == ("random", {"macs": 0.5}, 0.25)
    assert plan.removed_per_group() == {g.name: len(g.units) // 2 for g in network.groups}
    assert list(plan.units) == [u.name for u in network.units if u in units]


def test_units_that_do_not_exist_make_no_plan():
    with pytest.raises(InputError, match=r"no unit named 'stem\.0:77'"):
        make_plan(traced(NAME), ["stem.0:77"])
    with pytest.raises(InputError, match="keep at least one"):
        make_plan(traced(NAME), traced(NAME).group("first.0").units)


@pytest.mark.parametrize("other", ["residual", "mlp", "projection"])
def test_a_plan_for_another_model_is_refused(other):
    fresh = build(other)
    before = snapshot(fresh)
    with pytest.raises(FormatError, match="for another model"):
        replay_plan(fresh, plan_of(NAME))
    assert_same_snapshot(before, snapshot(fresh))


@pytest.mark.parametrize(
    ("removed", "message"),
    [
        ([("nine.weight", 0, [0])], "cuts 'nine.weight'.*does not have"),
        ([("stem.0.weight", 4, [0])], r"\(axis 4\), which the model does not have"),
        ([("stem.1.num_batches_tracked", 0, [0])], "does not have"),
        ([("stem.0.weight", 0, [6])], "not distinct, in range and fewer than all"),
        ([("stem.0.weight", 0, [2**31])], "not distinct, in range and fewer than all"),
        ([("stem.0.weight", 0, [1, 1])], "not distinct"),
        ([("stem.0.weight", 0, range(6))], "fewer than all"),
        ([("stem.0.weight", 0, [])], "not distinct"),
        ([("stem.0.weight", 0, [1]), ("stem.0.weight", 0, [2])], "not distinct"),
    ],
)
def test_indices_that_do_not_fit_are_refused(removed, message):
    entries = [RemovedIndices(parameter=p, axis=a, indices=tuple(i)) for p, a, i in removed]
    fresh = build(NAME)
    before = snapshot(fresh)
    with pytest.raises(FormatError, match=message):
        replay_plan(fresh, changed(removed=entries))
    assert_same_snapshot(before, snapshot(fresh))


class Sly(torch.nn.Module):
    """Attributes that a hostile plan could aim at."""

    def __init__(self):
        super().__init__()
        self.one, self.head = torch.nn.Linear(5, 6), torch.nn.Linear(6, 4)
        self.width, self.flag, self.share, self._secret = 6, True, 0.5, 6

    def forward(self, x):
        return self.head(self.one(x))


@pytest.mark.parametrize(
    ("module", "attribute", "value"),
    [
        ("", "flag", 1),
        ("", "share", 0),
        ("", "_secret", 5),
        ("", "missing", 1),
        ("", "forward", 1),
        ("", "__class__", 1),
        ("", "one", 1),
        ("", "training", 0),
        ("", "width", 7),
        ("two", "width", 5),
        ("one.weight", "width", 5),
    ],
)
def test_attributes_that_count_no_channels_are_left_alone(module, attribute, value):
    model = Sly().eval()
    network = trace(model, torch.zeros(2, 5))
    change = AttributeChange(module=module, attribute=attribute, value=value)
    plan = make_plan(network, network.units[:1]).model_copy(update={"attributes": (change,)})
    before = snapshot(model)
    with pytest.raises(FormatError, match="no integer of the model that could shrink"):
        replay_plan(model, plan)
    assert_same_snapshot(before, snapshot(model))


def test_an_attribute_may_shrink():
    plan = changed(attributes=[AttributeChange(module="shortcut", attribute="before", value=0)])
    assert replay_plan(build(NAME), plan).shortcut.before == 0
