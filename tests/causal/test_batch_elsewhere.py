"""The same function with images in front and with time in front has the same effects, plans and repairs."""

import numpy as np
import pytest
import torch

import whyprune
from causal.batch_elsewhere import MIDDLES, both, others
from structure.networks import randomised
from whyprune.causal.concepts.autoencoder import layers, principal, train
from whyprune.causal.concepts.codes import intervened, observed
from whyprune.causal.concepts.design import ConceptDesign
from whyprune.causal.exact import exact_effects
from whyprune.causal.fitted.sites import sites, watch
from whyprune.causal.fitted.summaries import masked_summaries, summaries
from whyprune.data.batches import as_batches, joined
from whyprune.data.outputs import logits_of
from whyprune.effects.outcomes import LogitShift
from whyprune.interventions.sensitivity import sensitivity
from whyprune.interventions.worlds import Worlds
from whyprune.scoring.registry import SCORERS
from whyprune.structure.remove import zeroed
from whyprune.structure.replay import Replay
from whyprune.structure.trace import trace

SLOW = ("discovery", "dowhy", "gcm", "scm", "concepts")  # what they are fitted to is compared instead
SCORED = [name for name in SCORERS if name not in SLOW]


def pair(middle):
    return [trace(model, torch.randn(2, 4, 8)) for model in both(middle)]


@pytest.fixture(scope="module", params=["encoder", "state", "merged"])
def networks(request):
    return pair(request.param)


def batches(images=22, steps=8, size=8):
    """As many steps as images in a batch; the last batch is smaller."""
    generator = torch.Generator().manual_seed(3)
    drawn = torch.randn(images, 4, steps, generator=generator)
    labels = torch.randint(0, 4, (images,), generator=generator)
    return list(zip(drawn.split(size), labels.split(size), strict=True))


def assert_alike(one, other, tolerance=1e-4):
    one, other = np.asarray(one, dtype=float), np.asarray(other, dtype=float)
    np.testing.assert_allclose(one, other, rtol=0, atol=tolerance * max(np.nanmax(np.abs(other)), 1e-6))


@pytest.mark.parametrize("name", SCORED)
def test_every_scorer_gives_the_same(networks, name):
    found = [whyprune.estimate(n, batches(), method=name, progress=False) for n in networks]
    assert found[0].units == found[1].units
    assert_alike(found[0].mean, found[1].mean)
    assert np.abs(found[1].mean).max() > 0


@pytest.mark.parametrize("value", ["zero", "mean", "optimal", "closed-form", "resample", "carried"])
def test_every_intervention_gives_the_same_image_by_image(networks, value):
    found = [exact_effects(n, batches(size=11), intervention=value, per_image=True).per_image for n in networks]
    assert_alike(*found)
    drawn = np.random.default_rng(0)
    masks, images = drawn.random((30, found[0].shape[0])) < 0.2, drawn.integers(0, 22, 30)
    rows = [Worlds(n, batches(size=11), intervention=value).effects(masks, images) for n in networks]
    assert_alike(*rows)


def test_what_fitted_models_and_concepts_learn_from_is_the_same(networks):
    drawn = np.random.default_rng(0)
    masks, images = drawn.random((30, len(networks[0].units))) < 0.3, drawn.integers(0, 22, 30)
    seen = []
    for network in networks:
        worlds = Worlds(network, batches())
        runs = watch(worlds, sites(worlds.replay, worlds.units), masks, images)
        replay, inputs = worlds.replay, joined(list(as_batches(batches())))
        first = layers(replay)[0]
        data = replay.run(inputs, keep={first.data})[first.data].movedim(first.dim, -1).flatten(0, -2).double()
        model = principal(data.T @ data / len(data), 3)
        coded = [(first, model)]
        plain = observed(replay, coded, [inputs], 22)
        zeros = np.random.default_rng(1).random((30, 3)) < 0.5
        gone = intervened(replay, coded, 0, inputs, plain, zeros, images)
        trained, _ = train(
            replay, first, inputs, model, ConceptDesign(steps=3, batch=8), torch.Generator().manual_seed(0)
        )
        seen.append(
            [
                *(*runs.raw, *runs.seen, masked_summaries(worlds, masks, images)[0]),
                *(summaries(network, batches()), summaries(network, batches(), pool="max")),
                *(plain.codes[0], np.abs(gone.probabilities), trained.encoder),
            ]
        )
    for one, other in zip(*seen, strict=True):
        assert_alike(one, other)


@pytest.mark.parametrize(("middle", "method"), [("encoder", "causal"), ("convolutions", "exact")])
def test_plans_and_repairs_are_the_same(middle, method):
    images, found = batches(48), []
    for model in both(middle):
        result = whyprune.prune(
            *(model, images),
            budget=whyprune.Budget(params=0.8),
            example_inputs=images[0][0][:2],
            method=method,
            progress=False,
            settings=whyprune.Settings(refute=False, latency=False),
        )
        with torch.no_grad():
            found.append((result.plan.units, result.model(images[0][0])))
    assert set(found[0][0]) == set(found[1][0])
    assert_alike(found[0][1], found[1][1])


def by_hand(network, data):
    """Effects on every image, one image and one unit at a time, in the network with the unit's slices at zero."""
    dense = torch.cat([logits_of(b.call(network.model)) for b in [data]])
    outcome = LogitShift().fit(dense)
    found = np.zeros((len(network.units), len(data)))
    for u, unit in enumerate(network.units):
        model = zeroed(network, [unit])
        for k in range(len(data)):
            alone = data[torch.tensor([k])]
            found[u, k] = float(outcome(logits_of(alone.call(model)), logits_of(alone.call(network.model)), None)[0])
    return found


def assert_effects_are_those_by_hand(network, data, splits):
    with torch.no_grad():
        expected = by_hand(network, data)
    whole = exact_effects(network, [data], per_image=True).per_image
    assert_alike(whole, expected)
    assert np.abs(expected).max() > 1e-3
    rng = np.random.default_rng(0)
    chosen, images = rng.integers(0, len(network.units), 40), rng.integers(0, len(data), 40)
    assert_alike(
        Worlds(network, [data]).effects(np.eye(len(network.units), dtype=bool)[chosen], images),
        expected[chosen, images],
    )
    # first derivatives of every image are those that it has alone
    outcome = LogitShift().fit(Replay(network).logits(data))
    together = sensitivity(Replay(network), [data], whyprune.ClassLogit(1))
    apart = sensitivity(Replay(network), [data[torch.tensor([k])] for k in range(len(data))], whyprune.ClassLogit(1))
    assert_alike(together.products, apart.products)
    assert_alike(together.gradients, apart.gradients)
    split = exact_effects(network, [data[s] for s in splits], outcome=outcome, per_image=True).per_image
    assert_alike(split, expected)


@pytest.mark.parametrize("middle", MIDDLES)
def test_effects_are_those_by_hand(middle):
    network = pair(middle)[0]
    data = joined(list(as_batches([torch.randn(7, 4, 8)])))
    assert_effects_are_those_by_hand(network, data, [slice(0, 1), slice(1, 5), slice(5, 7)])


@pytest.mark.parametrize("name", others())
def test_effects_are_those_by_hand_where_images_are_merged(name):
    model, inputs = others()[name]
    network = trace(randomised(model), inputs(2))
    data = joined(list(as_batches([inputs(6)], network.positional)))
    assert_effects_are_those_by_hand(network, data, [slice(0, 1), slice(1, 4), slice(4, 6)])
    scored = whyprune.estimate(network, [data], method="interventional-risk", progress=False)
    assert np.isfinite(scored.mean).all()
