"""Autoencoded concepts: what codes keep, what interventions on them do, and bottlenecks that equal their definition."""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from causal.test_worlds import Pairs
from structure.networks import randomised, traced
from structure.removal_property import assert_close, assert_same_snapshot, counted_macs, fresh_batch, output, snapshot
from tiny import batches, digits, trained
from whyprune.causal.concepts.autoencoder import Autoencoder, agreement, layers, principal, train
from whyprune.causal.concepts.bayes import BayesianNetwork, parents
from whyprune.causal.concepts.bottleneck import bottleneck, layer_of
from whyprune.causal.concepts.codes import Runs, intervened, observed
from whyprune.causal.concepts.design import ConceptDesign
from whyprune.causal.concepts.estimator import concepts, explain
from whyprune.data.batches import as_batch, joined
from whyprune.errors import InputError, VerificationError
from whyprune.scoring.contract import Question
from whyprune.structure.replay import Replay
from whyprune.structure.trace import trace
from whyprune.testing import planted

QUICK = ConceptDesign(steps=5, runs=64)


@pytest.fixture(scope="module")
def network():
    return trace(trained(), digits()[0][:2])


@pytest.fixture(scope="module")
def data():
    return [as_batch(b) for b in batches(1000, 1128)]


@pytest.fixture(scope="module")
def learnt(network, data):
    return explain(network, data, QUICK)


def random_coder(channels, codes, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return Autoencoder(
        torch.randn(codes, channels, generator=generator) * 0.3,
        torch.randn(codes, generator=generator) * 0.3,
        torch.randn(channels, codes, generator=generator) * 0.3,
    )


def test_autoencoders_start_from_the_best_linear_one():
    rows = torch.randn(200, 7, generator=torch.Generator().manual_seed(0)).double() @ torch.randn(7, 7).double()
    coder = principal(rows.T @ rows / 200, 3)
    error = float((coder.rebuilt(rows.float(), 1) - rows).square().sum())
    tail = torch.linalg.svdvals(rows)[3:].square().sum()
    assert error == pytest.approx(float(tail), rel=1e-4)


def test_as_many_codes_as_channels_keep_the_whole_network(network, data):
    found = explain(network, data, ConceptDesign(share=1.0, steps=0, runs=32))
    assert found.agreement == (1.0,) * 4
    for coder in found.autoencoders:
        product = coder.decoder @ coder.encoder
        torch.testing.assert_close(product, torch.eye(len(product)), atol=1e-5, rtol=0)


def test_training_keeps_more_of_the_network_than_principal_components(network, data):
    replay = Replay(network)
    layer = layers(replay)[1]
    inputs = joined(data)
    values = replay.run(inputs, keep={layer.data})[layer.data]
    rows = values.movedim(1, -1).flatten(0, -2).double()
    start = principal(rows.T @ rows / len(rows), 4)
    state = torch.get_rng_state()
    after, cost = train(replay, layer, inputs, start, ConceptDesign(steps=60), torch.Generator().manual_seed(0))
    assert torch.equal(state, torch.get_rng_state())
    assert cost == pytest.approx(60 * 64 * (1 + 3 * layer.share))
    fresh = [as_batch(b) for b in batches(1128, 1797)]
    assert agreement(replay, layer, fresh, after) > agreement(replay, layer, fresh, start) + 0.05


def test_codes_at_zero_are_what_hooks_give(network, data):
    """The readers of the layer see the activation less what the codes stand for."""
    replay, inputs = Replay(network), joined(data)
    every = layers(replay)
    assert [la.name for la in every] == ["inner.0", "outer.0", "wide.0", "head"]
    coded = [(la, random_coder(len(la.readers[0].labels), 3, k)) for k, la in enumerate(every)]
    plain = observed(replay, coded, [inputs], len(inputs))
    rng = np.random.default_rng(0)
    for at, (layer, coder) in enumerate(coded):
        masks, images = rng.random((50, 3)) < 0.5, rng.integers(0, len(inputs), 50)
        masks[0] = False
        runs = intervened(replay, coded, at, inputs, plain, masks, images)
        seen = {}

        def change(module, args, coder=coder, masks=masks):
            codes = coder.codes(args[0], 1) * torch.from_numpy(masks).reshape(50, 3, *[1] * (args[0].dim() - 2))
            return args[0] - coder.decoded(codes, 1)

        def keep(name, seen=seen):
            return lambda module, args: seen.__setitem__(name, args[0])

        hooks = {la.name: change if la is layer else keep(la.name) for la in every}
        handles = [network.model.get_submodule(n).register_forward_pre_hook(h) for n, h in hooks.items()]
        with torch.no_grad():
            expected = network.model(inputs.args[0][images]).softmax(dim=1)
        for handle in handles:
            handle.remove()
        np.testing.assert_allclose(runs.probabilities, expected, atol=1e-5)
        np.testing.assert_allclose(runs.probabilities[0], plain.probabilities[images[0]], atol=1e-5)
        for k, (other, model) in enumerate(coded):
            if other is not layer:
                codes = model.codes(seen[other.name], 1).reshape(50, 3, -1).mean(dim=2)
                np.testing.assert_allclose(runs.codes[k], codes.detach().numpy(), atol=1e-4)
        assert (runs.codes[at][masks] == 0).all()
        assert (runs.given[at] == masks).all()


def test_the_graph_is_the_networks_own(network):
    replay = Replay(network)
    assert parents(replay, layers(replay)) == ((), (0,), (0, 1), (2,), (3,))


def flipped(values, share, rng):
    """The same number of ones and zeros change sides, so that balanced values stay balanced."""
    found = values.copy()
    for value in (0, 1):
        places = np.flatnonzero(values == value)
        found[rng.permutation(places)[: round(share * len(places))]] = 1 - value
    return found


def chain(rows, seed, intervene=False):
    """Codes a and b of one layer, c of the next; the class is c, which is a in 9 of 10 runs. b is a with noise."""
    rng = np.random.default_rng(seed)
    a = rng.permutation(np.arange(rows) % 2)
    b = flipped(a, 0.15, rng)
    given = np.zeros((rows, 2), dtype=bool)
    if intervene:
        given = rng.random((rows, 2)) < 0.5
        a, b = np.where(given[:, 0], 0, a), np.where(given[:, 1], 0, b)
    c = flipped(a, 0.1, rng)
    return Runs(
        (np.stack([a, b], axis=1).astype(float), c[:, None].astype(float)),
        (given, np.zeros((rows, 1), dtype=bool)),
        np.eye(2)[c],
    )


@pytest.mark.parametrize("model", ["logistic", "boosted"])
def test_the_bayesian_network_recovers_planted_effects(model):
    plain, forced = chain(2000, 0), chain(4000, 1, intervene=True)
    design = ConceptDesign(bins=2, model=model)
    found = BayesianNetwork(((), (0,), (1,)), plain, plain.joined(forced), design, 0)
    cause, bystander = found.expected_effects(0)
    assert cause == pytest.approx(0.4, abs=0.05)  # half of |0.9 - 0.5| + |0.1 - 0.5|, for both values
    assert bystander < 0.06
    assert found.expected_effects(1)[0] == pytest.approx(0.5, abs=0.05)
    assert found.under(0, 0, 1)[1] == pytest.approx(0.9, abs=0.05)
    assert found.agreement() > 0.97
    again = BayesianNetwork(((), (0,), (1,)), plain, plain.joined(forced), design, 0)
    assert again.expected_effects(0).tolist() == [cause, bystander]


class Wide(nn.Module):
    """Readers of many kinds: a padded, strided, dilated convolution, one without bias, linear layers."""

    def __init__(self):
        super().__init__()
        self.a = nn.Conv2d(3, 8, 3, padding=1)
        self.b = nn.Conv2d(8, 6, 3, padding=2, stride=2, dilation=2)
        self.c = nn.Conv2d(6, 7, 1, bias=False)
        self.d, self.e = nn.Linear(7, 9), nn.Linear(9, 4)

    def forward(self, x):
        x = F.relu(self.c(F.relu(self.b(F.relu(self.a(x))))))
        return self.e(torch.tanh(self.d(x.mean(dim=(2, 3)))))


@pytest.mark.parametrize("keep", [None, (0,), (2, 1)])
@pytest.mark.parametrize("group", ["a", "b", "c", "d"])
def test_a_bottleneck_is_the_network_whose_readers_see_decoded_codes(group, keep):
    network = trace(randomised(Wide()), torch.randn(2, 3, 9, 9))
    layer = layer_of(network, group)
    coder = random_coder(len(layer.readers[0].labels), 3)
    before, batch, state = snapshot(network.model), fresh_batch(network), torch.get_rng_state()
    found = bottleneck(network, group, coder, keep)
    assert torch.equal(state, torch.get_rng_state())
    codes = list(range(3)) if keep is None else sorted(keep)
    few = Autoencoder(coder.encoder[codes], coder.bias[codes], coder.decoder[:, codes])
    reader = layer.name
    hook = network.model.get_submodule(reader).register_forward_pre_hook(
        lambda module, args: few.rebuilt(args[0], layer.dim)
    )
    expected = output(network.model, batch)
    hook.remove()
    assert_close(output(found.model, batch), expected)
    assert found.macs == counted_macs(found.model, batch)
    assert found.dense_macs == counted_macs(network.model, batch)
    assert found.params == sum(p.numel() for p in found.model.parameters())
    assert type(found.model) is Wide
    assert_same_snapshot(before, snapshot(network.model))
    found.model.train()(batch.args[0]).sum().backward()
    assert all(p.grad is not None for p in found.model.parameters())


def test_every_reader_of_the_group_gets_its_pair():
    network = planted.case(2).network
    coder = random_coder(9, 2)
    found = bottleneck(network, "units", coder)
    batch = fresh_batch(network)
    hooks = [
        network.model.get_submodule(name).register_forward_pre_hook(lambda module, args: coder.rebuilt(args[0], 1))
        for name in ("left", "right")
    ]
    expected = output(network.model, batch)
    for hook in hooks:
        hook.remove()
    assert_close(output(found.model, batch), expected)
    assert found.macs == counted_macs(found.model, batch)


def test_few_codes_of_large_effect_save_macs_and_keep_the_class(network, data):
    learnt = explain(network, data, ConceptDesign(share=0.5, runs=64))
    found = learnt.bottleneck("inner.0", 5)
    images, labels = digits()[0][1128:], digits()[1][1128:]
    with torch.no_grad():
        dense, small = network.model(images).argmax(dim=1), found.model(images).argmax(dim=1)
    assert found.macs < 0.85 * found.dense_macs
    assert float((dense == small).float().mean()) > 0.8
    assert float((small == labels).float().mean()) > 0.8
    assert learnt.bottleneck("inner.0", 2).codes == tuple(sorted(np.argsort(-learnt.effects[learnt.at("inner.0")])[:2]))


class Reads(nn.Module):
    """Looks at a weight of the layer that would be replaced."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 4, 1)

    def forward(self, x):
        return F.conv2d(torch.relu(self.a(x)), self.b.weight, self.b.bias).mean(dim=(2, 3))


def test_what_cannot_be_replaced_is_refused(network, learnt):
    with pytest.raises(InputError, match="read in 2 tensors"):
        learnt.bottleneck("stem.0")
    with pytest.raises(InputError, match="give at least one that exists"):
        bottleneck(network, "inner.0", random_coder(10, 3), [3])
    for name, group in (("grouped", traced("grouped").groups[0].name), ("flatten", "features.0")):
        found = traced(name)
        reader = layer_of(found, group).readers[0]
        with pytest.raises(InputError, match="no bottleneck fits"):
            bottleneck(found, group, random_coder(len(reader.labels) + 1, 2))
    reads = trace(randomised(Reads()), torch.randn(2, 3, 6, 6))
    with pytest.raises((InputError, VerificationError, AttributeError)):
        bottleneck(reads, "a", random_coder(6, 2))


def test_scores_say_how_much_the_codes_keep_and_ignore_dead_units():
    case = planted.case(1)
    found = concepts(case.network, [case.batch], Question())
    assert found.estimand == "score"
    kept = [v for k, v in found.diagnostics.items() if "codes" in k]
    assert len(kept) == 2
    assert all(0 <= v <= 1 for v in kept)
    assert found[case.unit(planted.DEAD)] == 0
    assert found[case.unit(planted.PLAIN)] > 0


def test_a_unit_that_is_only_correlated_gets_a_share_of_its_codes_effect():
    """Which is why scores claim no effect: the bystander's is nearly that of the unit it copies."""
    case = planted.case(1)
    found = concepts(case.network, [case.batch], Question())
    assert found[case.unit(planted.BYSTANDER)] > 0.5 * found[case.unit(planted.ORIGINAL)]


def test_measured_effects_are_those_of_the_real_network(network, data):
    found = explain(network, data, ConceptDesign(steps=0, runs=16, effects="measured"))
    replay, inputs = Replay(network), joined(data)
    coded = list(zip(found.layers, found.autoencoders, strict=True))
    plain = observed(replay, coded, [inputs], len(inputs))
    masks = np.tile(np.eye(len(found.effects[2]), dtype=bool)[1], (len(inputs), 1))
    runs = intervened(replay, coded, 2, inputs, plain, masks, np.arange(len(inputs)))
    expected = np.abs(runs.probabilities - plain.probabilities).sum(axis=1).mean() / 2
    assert found.effects[2][1] == pytest.approx(expected)


def test_budgets_are_kept_and_too_small_ones_refused(network, data):
    for budget in (1500.0, 6000.0):
        found = explain(network, data, forward_passes=budget)
        assert found.forward_passes <= budget
    assert found.forward_passes > 3000
    with pytest.raises(InputError, match="do not pay for concepts"):
        explain(network, data, forward_passes=100.0)
    with pytest.raises(InputError, match="at least 8"):
        explain(network, [data[0][slice(0, 4)]], QUICK)
    with pytest.raises(InputError, match="bins at least 2"):
        ConceptDesign(bins=1)


def test_a_network_of_one_batch_size_has_concepts_too():
    model = randomised(Pairs())
    images = torch.randn(11, 5, generator=torch.Generator().manual_seed(2))
    network = trace(model, images[:2])
    assert network.graph.batch_size == 2
    for effects in ("expected", "measured"):
        found = explain(network, [as_batch(images)], ConceptDesign(steps=2, runs=9, effects=effects))
        assert found.images == 11
        assert np.isfinite(found.importance).all()
        assert found.importance.max() > 0


def test_the_network_is_left_alone(network, data, learnt):
    before = copy.deepcopy(network.model.state_dict())
    again = explain(network, data, QUICK)
    assert again.importance.tolist() == learnt.importance.tolist()
    assert "inner.0" in repr(again)
    for name, tensor in network.model.state_dict().items():
        assert torch.equal(tensor, before[name])
