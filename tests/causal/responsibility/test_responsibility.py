"""Who is responsible, on networks where that is known, and against all sets of units run one by one."""

from itertools import combinations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from causal.oracles import hooked
from structure.removal_property import output
from tiny import batches, digits, trained
from whyprune.causal.exact import exact_effects
from whyprune.causal.responsibility import Contingency, Event, explain_prediction, responsibilities, saliency
from whyprune.causal.responsibility.result import share_interval
from whyprune.data.batches import as_batch, joined
from whyprune.errors import InputError
from whyprune.scoring.contract import Question
from whyprune.scoring.registry import SCORERS
from whyprune.structure.remove import zeroed
from whyprune.structure.trace import trace
from whyprune.testing import planted
from whyprune.testing.planted import BYSTANDER, COPY, DEAD, OTHER_COPY


class Votes(nn.Module):
    """Class 0 if more than half of the voters say yes."""

    def __init__(self, voters):
        super().__init__()
        self.voters, self.count = nn.Linear(voters, voters), nn.Linear(voters, 2)
        with torch.no_grad():
            self.voters.weight.copy_(torch.eye(voters))
            self.voters.bias.zero_()
            self.count.weight.copy_(torch.tensor([[1.0], [0.0]]).expand(2, voters))
            self.count.bias.copy_(torch.tensor([0.0, voters / 2]))

    def forward(self, x):
        return self.count(torch.relu(self.voters(x)))


class Overdetermined(nn.Module):
    """Units 0 and 1 each suffice for class 0, unit 2 is read with weight 0, unit 3 is dead."""

    def __init__(self):
        super().__init__()
        self.units, self.gate, self.head = nn.Linear(4, 4), nn.Linear(4, 1), nn.Linear(1, 2)
        with torch.no_grad():
            self.units.weight.copy_(torch.eye(4))
            self.units.bias.copy_(torch.tensor([0.0, 0.0, 0.0, -100.0]))
            self.gate.weight.copy_(torch.tensor([[-1.0, -1.0, 0.0, -1.0]]))
            self.gate.bias.fill_(1.0)
            self.head.weight.copy_(torch.tensor([[-1.0], [0.0]]))
            self.head.bias.copy_(torch.tensor([0.5, 0.0]))

    def forward(self, x):
        return self.head(torch.relu(self.gate(torch.relu(self.units(x)))))


def votes(*yes):
    x = torch.zeros(len(yes), 11)
    for row, count in enumerate(yes):
        x[row, :count] = 1
    network = trace(Votes(11).eval(), torch.rand(2, 11))
    return network, x


@pytest.mark.parametrize("exact", [0, 1, 2])
def test_voters_are_as_responsible_as_chockler_and_halpern_say(exact):
    """11 to 0: each is responsible to degree 1/6. 6 to 5: each of the majority to degree 1, the others not at all."""
    network, x = votes(11, 6, 8)
    found = responsibilities(network, [x], contingency=Contingency(exact=exact)).values
    np.testing.assert_allclose(found[:, 0], 1 / 6)
    np.testing.assert_allclose(found[:, 1], [1] * 6 + [0] * 5)
    np.testing.assert_allclose(found[:, 2], [1 / 3] * 8 + [0] * 3)


def test_redundant_units_share_the_responsibility_that_no_single_effect_shows():
    network, x = trace(Overdetermined().eval(), torch.rand(2, 4)), torch.ones(2, 4)
    x[1, 0] = 0
    units = [f"units:{k}" for k in range(4)]
    alone = exact_effects(network, [x], units=units, outcome="prediction-change", per_image=True).per_image
    assert (alone[:, 0] == 0).all()
    found = responsibilities(network, [x], among=units)
    np.testing.assert_allclose(found.values[:, 0], [1 / 2, 1 / 2, 0, 0])
    np.testing.assert_allclose(found.values[:, 1], [0, 1, 0, 0])  # with one of them silent, the other decides
    assert found.necessary.tolist() == [[False, False], [False, True], [False, False], [False, False]]
    np.testing.assert_allclose(found.blame, [1 / 4, 3 / 4, 0, 0])
    added = responsibilities(network, [x], among=units, contingency=Contingency(additive=True))
    assert (added.values[:, 0] == 0).all()  # effects of 0 add up to nothing: the surrogate is wrong here


def nothing(x, features, _):
    return 0 * x[:, features]


def brute_force(case, units, hold):
    """(units, images) of the smallest k by running every set of `units`, and the function that tells what holds."""
    sets = [frozenset(s) for size in range(len(units) + 1) for s in combinations(range(len(units)), size)]
    kept = {}
    for gone in sets:
        masked = hooked(case.network.model, {"left": 1, "right": 1}, sorted(gone), nothing, case.batch)
        kept[gone] = hold(masked, output(case.network.model, case.batch))
    sizes = np.full((len(units), len(case.images)), -1)
    for gone in sorted(sets, key=len, reverse=True):
        for f in set(range(len(units))) - gone:
            decides = kept[gone] & ~kept[gone | {f}]
            sizes[f, decides] = len(gone)
    return sizes, kept


def same_class(margin=0.0):
    def hold(logits, dense):
        own = dense.argmax(dim=1, keepdim=True)
        others = logits.scatter(1, own, -torch.inf).amax(dim=1)
        return (logits.gather(1, own).squeeze(1) - others > margin).numpy()

    return hold


def falls(by):
    def hold(logits, dense):
        own = dense.argmax(dim=1, keepdim=True)
        before, after = (z.softmax(dim=1).gather(1, own).squeeze(1) for z in (dense, logits))
        return (before - after < by).numpy()

    return hold


def shifts(by):
    def hold(logits, dense):
        after, before = (F.cross_entropy(z, HERE.labels, reduction="none") for z in (logits, dense))
        return (after - before < by).numpy()

    return hold


HERE = planted.case(2, 24)
EVENTS = {
    "prediction": (Event(), None, same_class()),
    "margin": (Event(margin=0.3), None, same_class(0.3)),
    "probability": (Event(fall=0.2), None, falls(0.2)),
    "harm": (Event(harm=0.5), "cross-entropy", shifts(0.5)),
}


@pytest.mark.parametrize("about", EVENTS)
def test_contingency_sets_are_those_of_all_sets_run_one_by_one(about):
    event, outcome, hold = EVENTS[about]
    units = [HERE.unit(k) for k in range(planted.UNITS)]
    truth, kept = brute_force(HERE, units, hold)
    for exact in (0, 2):
        options = Contingency(exact=exact)
        found = responsibilities(
            HERE.network, [HERE.batch], event=event, outcome=outcome, among=units, contingency=options
        )
        for (f, image), others in found.sets.items():
            out = frozenset(units.index(name) for name in others)
            assert kept[out][image]
            assert not kept[out | {f}][image]
        sizes = found.sizes
        assert ((sizes < 0) | (sizes >= truth)).all()
        small = (truth >= 0) & (truth <= exact)
        assert (sizes[small] == truth[small]).all()
        proven = (sizes >= 0) & (sizes <= exact + 1)
        assert (sizes[proven] == truth[proven]).all()
    assert len(np.unique(truth)) > 3  # the images hold units that decide alone, in company, and never
    assert found.sets.keys() >= {(f, i) for f, i in np.argwhere((truth >= 0) & (truth < 3))}


@pytest.mark.parametrize("readers", [1, 2])
def test_planted_units_have_the_blame_that_is_theirs(readers):
    case = planted.case(readers)
    found = SCORERS("responsibility")(case.network, [case.batch], Question(per_image=True))
    assert found[case.unit(DEAD)] == found[case.unit(BYSTANDER)] == 0
    np.testing.assert_array_equal(found.per_image[COPY], found.per_image[OTHER_COPY])  # alike in everything
    whole = responsibilities(case.network, [case.batch])
    pairs = [i for (f, i), w in whole.sets.items() if f == COPY and w == (case.unit(OTHER_COPY),)]
    assert pairs
    assert all(whole.sets[OTHER_COPY, i] == (case.unit(COPY),) for i in pairs)  # one may go, and then the other decides


def test_a_backup_and_the_unit_it_replaces_are_responsible_although_neither_has_an_effect_alone():
    case = planted.preemption()
    units = [case.unit(k) for k in (planted.PRIMARY, planted.BACKUP)]
    assert np.abs(exact_effects(case.network, [case.batch], units=units).mean).max() < 1e-6
    event = Event(harm=0.05)
    found = responsibilities(case.network, [case.batch], event=event, outcome="logit-shift")
    pairs = {(found.units[f], w) for (f, _), w in found.sets.items() if len(w) == 1}
    assert {(units[0], (units[1],)), (units[1], (units[0],))} <= pairs
    both = np.isin(found.units, units)
    assert (found.sizes[both] != 0).all()
    added = responsibilities(
        case.network, [case.batch], event=event, outcome="logit-shift", contingency=Contingency(additive=True)
    )
    assert (added.blame[np.isin(added.units, units)] == 0).all()


def test_who_is_judged_does_not_change_the_judgement():
    case = planted.case(1)
    whole = responsibilities(case.network, [case.batch], sufficiency=True)
    names = [case.unit(k) for k in (BYSTANDER, COPY)]
    some = responsibilities(case.network, [case.batch], units=names, sufficiency=True)
    places = [whole.units.index(name) for name in some.units]
    assert set(some.units) == set(names)
    assert (some.sizes >= whole.sizes[places])[whole.sizes[places] >= 0].all()
    assert (some.sizes == whole.sizes[places])[whole.sizes[places] <= 2].all()
    np.testing.assert_array_equal(some.sufficient, whole.sufficient[places])
    assert some.forward_passes < whole.forward_passes
    with pytest.raises(InputError, match="1 units to judge are not among"):
        responsibilities(case.network, [case.batch], units=names, among=names[:1])


def test_more_budget_means_more_images_and_the_first_ones_stay_as_they_are():
    case = planted.case(1)
    ask = SCORERS("responsibility")
    little, much = (
        ask(case.network, [case.batch], Question(per_image=True, forward_passes=f)) for f in (600.0, 3000.0)
    )
    assert 2 <= little.samples < much.samples <= 96
    assert little.forward_passes <= 600 < much.forward_passes <= 3000
    np.testing.assert_array_equal(little.per_image, much.per_image[:, : little.samples])


def test_one_unit_left_of_a_group_is_what_the_masked_network_gives():
    network, data = trace(trained(), digits()[0][:2]), [as_batch(b) for b in batches(1000, 1064)]
    found = responsibilities(network, data, contingency=Contingency(largest=0, exact=0), sufficiency=True)
    hold = same_class()
    dense = output(trained(), joined(data))
    for place in (0, 9, 29):
        unit = network.units[place]
        others = [u for u in network.units if u.group == unit.group and u is not unit]
        expected = hold(output(zeroed(network, others), joined(data)), dense)
        np.testing.assert_array_equal(found.sufficient[place], expected)
    for group, reader, width in (("inner.0", "outer.0", 10), ("wide.0", "head", 12)):
        none = hooked(trained(), {reader: 1}, range(width), nothing, joined(data))
        np.testing.assert_array_equal(found.without_group[group], hold(none, dense))


def test_the_table_holds_means_over_the_images_of_each_predicted_class():
    case = planted.case(1)
    found = responsibilities(case.network, [case.batch], sufficiency=True)
    rows = found.table().to_pylist()
    assert len(rows) == len(found.units) * (1 + len(np.unique(found.classes)))
    for row in rows:
        chosen = np.ones(96, dtype=bool) if row["class"] is None else found.classes == row["class"]
        place = found.units.index(row["unit"])
        assert row["images"] == chosen.sum()
        assert row["blame"] == pytest.approx(found.values[place, chosen].mean())
        assert row["necessity"] == pytest.approx((found.values[place, chosen] == 1).mean())
        assert row["sufficiency"] == pytest.approx(found.sufficient[place, chosen].mean())
        for name in ("blame", "necessity", "sufficiency"):
            assert 0 <= row[f"{name}_low"] <= row[name] <= row[f"{name}_high"] <= 1
    bare = responsibilities(case.network, [case.batch], contingency=Contingency(largest=0)).table()
    assert bare["sufficiency"].null_count == len(bare)


def test_intervals_of_blame_cover():
    rng = np.random.default_rng(0)
    for p in ([0.9, 0.0, 0.05, 0.0, 0.05], [0.3, 0.2, 0.2, 0.2, 0.1], [0.02, 0.0, 0.0, 0.0, 0.98]):
        degrees = np.array([0, 1 / 4, 1 / 3, 1 / 2, 1])
        means = rng.choice(degrees, (2000, 64), p=p).mean(axis=1)
        low, high = share_interval(means, 64)
        assert ((low <= degrees @ p) & (degrees @ p <= high)).mean() > 0.93
    low, high = share_interval(np.zeros(1), 64)
    assert low[0] == 0
    assert 0.02 < high[0] < 0.1  # no cause on 64 images is no proof of none on any


def test_an_explanation_can_be_read():
    network, x = votes(11, 6, 8)
    names = ["yes", "no"]
    text = explain_prediction(network, x[1:2], class_names=names)
    assert text.name == "yes"
    assert len(text.causes) == 6
    assert all(c.necessary and c.smallest for c in text.causes)
    assert str(text).splitlines()[0] == (
        "unit voters:0 is a cause of the prediction 'yes' with responsibility 1: without it alone, another class wins"
    )
    assert str(text).splitlines()[-1] == "no contingency set was found for the other 5 of 11 units"
    three = explain_prediction(network, x[2:], class_names=names, contingency=Contingency(exact=1))
    last = three.causes[-1]
    assert last.responsibility == pytest.approx(1 / 3)
    a, b = last.contingency
    assert three.sentence(last) == (
        f"unit {last.unit} is a cause of the prediction 'yes' with responsibility 1/3: "
        f"it decides once {a} and {b} are out"
    )
    loose = explain_prediction(network, x[:1], class_names=names)
    assert "responsibility at least 1/6" in str(loose)
    nobody = explain_prediction(network, x[:1], contingency=Contingency(largest=2))
    assert str(nobody).startswith("the network predicts '0'; no contingency set was found for any of 11 units")


def test_an_explanation_is_that_of_the_image_among_others():
    case = planted.case(1)
    together = responsibilities(case.network, [case.batch], intervention="mean")
    for image in (0, 5):
        alone = explain_prediction(
            case.network, case.images[image : image + 1], intervention="mean", background=[case.images]
        )
        assert alone.predicted == together.classes[image]
        close = {f for f, i in together.sets if i == image}
        assert {c.unit for c in alone.causes} == {together.units[f] for f in close}


def test_a_saliency_map_is_where_responsible_units_are_active():
    network, image = trace(trained(), digits()[0][:2]), digits()[0][1000:1001]
    model, seen = trained(), {}
    handles = [
        model.wide.register_forward_hook(lambda _m, _a, out: seen.__setitem__("wide.0", out)),
        model.wide.register_forward_pre_hook(lambda _m, args: seen.__setitem__("stem.0", args[0])),
    ]
    with torch.no_grad():
        model(image)
    for handle in handles:
        handle.remove()
    for group, width in (("wide.0", 12), ("stem.0", 8)):
        weights = {f"{group}:0": 1.0, f"{group}:3": 0.5}
        expected = (seen[group][0, 0] + 0.5 * seen[group][0, 3]).relu() / width
        expected = F.interpolate(expected[None, None], size=(8, 8), mode="bilinear", align_corners=False)[0, 0]
        found = saliency(network, image, group, responsibility=weights)
        np.testing.assert_allclose(found, expected.numpy(), atol=1e-5)
        assert saliency(network, image, group, responsibility={}).max() == 0
    causes = {c.unit: c.responsibility for c in explain_prediction(network, image).causes}
    np.testing.assert_array_equal(
        saliency(network, image, "wide.0"), saliency(network, image, "wide.0", responsibility=causes)
    )


def test_unusable_requests_are_refused():
    network, x = votes(11, 6)
    with pytest.raises(InputError, match="batch of 2 images"):
        explain_prediction(network, x)
    with pytest.raises(InputError, match="as background"):
        explain_prediction(network, x[:1], intervention="mean")
    with pytest.raises(InputError, match="1 class names"):
        explain_prediction(network, torch.zeros(1, 11), class_names=["yes"])
    with pytest.raises(InputError, match="margin and fall"):
        Event(margin=1.0, fall=0.1)
    with pytest.raises(InputError, match="at least 2"):
        SCORERS("responsibility")(network, [as_batch(x[:1])], Question())
    with pytest.raises(InputError, match="have no places"):
        saliency(network, x[:1], "voters")
