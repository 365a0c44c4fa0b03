"""Summaries are what hooks in front of the readers see, pooled; under do(S := v) as well."""

import numpy as np
import pytest
import torch

from causal.test_worlds import NETWORKS, Pairs, random_rows
from structure.networks import randomised, traced
from structure.removal_property import fresh_batch
from tiny import batches, digits, trained
from whyprune.causal.fitted.summaries import masked_summaries, summaries
from whyprune.errors import InputError
from whyprune.interventions.worlds import Worlds
from whyprune.structure.remove import remove, zeroed
from whyprune.structure.state import State
from whyprune.structure.trace import trace

TOLERANCE = 1e-5


def tiny():
    return trace(trained(), digits()[0][:2])


def read(model, images, names):
    """What modules read, by name."""
    found = {}
    handles = [
        model.get_submodule(n).register_forward_pre_hook(lambda _m, args, n=n: found.__setitem__(n, args[0]))
        for n in names
    ]
    with torch.no_grad():
        model(images)
    for handle in handles:
        handle.remove()
    return found


@pytest.mark.parametrize("pool", ["mean", "max"])
def test_summaries_are_what_hooks_see(pool):
    """The stream `stem` is read twice: by the block, and by what follows."""
    network, images = tiny(), digits()[0][1000:1020]
    seen = read(trained(), images, ["inner.0", "outer.0", "wide.0", "head"])
    pooled = {
        n: v if v.dim() == 2 else getattr(v, f"a{pool}" if pool == "max" else pool)((2, 3)) for n, v in seen.items()
    }
    everywhere = {"stem.0": (pooled["inner.0"] + pooled["wide.0"]) / 2, "inner.0": pooled["outer.0"]}
    first = {"stem.0": pooled["inner.0"], "inner.0": pooled["outer.0"]}
    for where, expected in (("all", everywhere), ("first", first)):
        found = summaries(network, [images[:7], images[7:]], pool=pool, where=where)
        for group, values in expected.items():
            columns = [k for k, u in enumerate(network.units) if u.group == group]
            places = [network.units[k].index for k in columns]
            np.testing.assert_allclose(found[:, columns], values[:, places].numpy(), atol=TOLERANCE)


@pytest.mark.parametrize("name", NETWORKS)
def test_nothing_masked_gives_the_summaries_of_the_network_as_it_is(name):
    network = traced(name)
    batch = fresh_batch(network)
    worlds = Worlds(network, [batch])
    plain = summaries(network, [batch])
    found, logits = masked_summaries(worlds, np.zeros((len(batch), len(network.units)), bool), np.arange(len(batch)))
    scale = max(1.0, np.abs(plain).max())
    np.testing.assert_allclose(found, plain, atol=TOLERANCE * scale)
    torch.testing.assert_close(logits, worlds.plain, rtol=1e-4, atol=1e-4)


def test_masked_rows_have_the_summaries_of_the_masked_networks():
    network, images = tiny(), digits()[0][1000:1032]
    worlds = Worlds(network, [images])
    masks, rows = random_rows(worlds, 4)
    found, logits = masked_summaries(worlds, masks, rows)
    np.testing.assert_allclose(logits.numpy(), worlds.logits(masks, rows).numpy(), atol=TOLERANCE)
    assert np.abs(found[masks]).max() == 0
    for mask, row, summary in zip(masks, rows, found, strict=True):
        gone = [u for u, out in zip(worlds.units, mask, strict=True) if out]
        hidden = trace(zeroed(network, gone), images[:2])
        np.testing.assert_allclose(summary, summaries(hidden, [images[row : row + 1]])[0], atol=TOLERANCE)


def test_rows_do_not_depend_on_their_blocks():
    network = tiny()
    for value in ("mean", "carried", "resample"):
        worlds = Worlds(network, batches(1000, 1032), intervention=value)
        masks, rows = random_rows(worlds, 300)
        found, _ = masked_summaries(worlds, masks, rows)
        np.testing.assert_allclose(masked_summaries(worlds, masks[250:], rows[250:])[0], found[250:], atol=TOLERANCE)


def test_a_network_of_one_batch_size_is_run_in_its_blocks():
    model, images = randomised(Pairs()), torch.randn(7, 5)
    network = trace(model, images[:2])
    with torch.no_grad():
        expected = torch.relu(model.one(images)).numpy()
    np.testing.assert_allclose(summaries(network, [images]), expected, atol=TOLERANCE)
    worlds = Worlds(network, [images])
    nothing = np.zeros((7, len(network.units)), dtype=bool)
    np.testing.assert_allclose(masked_summaries(worlds, nothing, np.arange(7))[0], expected, atol=TOLERANCE)


def test_unusable_requests_are_refused():
    network = tiny()
    with pytest.raises(InputError, match="no data"):
        summaries(network, [])
    with pytest.raises(InputError, match="not 'median'"):
        summaries(network, batches(0, 2), pool="median")
    with pytest.raises(InputError, match="not 'last'"):
        summaries(network, batches(0, 2), where="last")


@pytest.mark.parametrize("pool", ["mean", "max"])
def test_summaries_of_a_state_are_those_of_its_module(pool):
    network = tiny()
    state = remove(State.of(network), [u for g in network.groups for u in g.units[::3]])
    alone = trace(state.model, network.example)
    found = summaries(state, batches(1000, 1040), pool=pool)
    assert found.shape == (40, len(state.units))
    np.testing.assert_allclose(found, summaries(alone, batches(1000, 1040), pool=pool), atol=TOLERANCE)
