"""Structural equations: exact where the network is what they assume, and what they get wrong where it is not."""

from functools import cache

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from torch import nn

from tiny import batches, digits, trained
from whyprune.causal.exact import exact_effects
from whyprune.causal.fitted.scm import Equations, structural_influence
from whyprune.data.batches import as_batches
from whyprune.errors import InputError
from whyprune.scoring.contract import Question
from whyprune.structure.trace import trace
from whyprune.testing import planted
from whyprune.testing.planted import BYSTANDER, DEAD, ORIGINAL


@cache
def influence(readers, mechanism, regime):
    case = planted.case(readers)
    return structural_influence(case.network, [case.batch], Question(), Equations(mechanism, regime)).mean


@cache
def truth(readers):
    case = planted.case(readers)
    return exact_effects(case.network, [case.batch]).mean


class Linear(nn.Module):
    """No nonlinearity, and filters of one place: the mean of a map is a linear function of the means before it."""

    def __init__(self):
        super().__init__()
        self.one, self.two, self.head = nn.Conv2d(3, 6, 1), nn.Conv2d(6, 5, 1), nn.Linear(5, 4)

    def forward(self, x):
        return self.head(self.two(self.one(x)).mean(dim=(2, 3)))


def linear():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        images = torch.randn(300, 3, 3, 3) + torch.randn(300, 3, 1, 1)
        return trace(Linear().eval(), images[:2]), images


def test_in_a_linear_network_masked_runs_give_the_exact_effects():
    network, images = linear()
    exact = exact_effects(network, [images[:256]], per_image=True)
    found = structural_influence(
        network, list(as_batches([images])), Question(per_image=True), Equations("linear", rows=4000)
    )
    np.testing.assert_allclose(found.mean, exact.mean, rtol=0.03)
    assert np.corrcoef(found.per_image.ravel(), exact.per_image.ravel())[0, 1] > 0.999


def test_runs_without_intervention_do_not_even_there():
    """Six units see three channels: which of them the next layer reads cannot be told from what goes together."""
    network, images = linear()
    exact = exact_effects(network, [images[:256]])
    found = structural_influence(network, list(as_batches([images])), Question(), Equations("linear", "observational"))
    first = slice(0, 6)
    assert np.abs(found.mean / exact.mean - 1)[first].max() > 0.3


@pytest.mark.parametrize("readers", [1, 2])
def test_masked_runs_tell_the_bystander_from_the_unit_it_resembles(readers):
    found = influence(readers, "trees", "masked")
    assert spearmanr(found, truth(readers))[0] > 0.9
    assert found[BYSTANDER] < found[ORIGINAL] / 3
    assert found[DEAD] == 0


@pytest.mark.parametrize("readers", [1, 2])
def test_a_finding_the_bystander_fools_equations_of_runs_without_intervention(readers):
    found = influence(readers, "linear", "observational")
    assert truth(readers)[BYSTANDER] == pytest.approx(0, abs=1e-9)
    assert found[BYSTANDER] > found[DEAD] == 0
    assert found[BYSTANDER] == pytest.approx(found[ORIGINAL], rel=1e-3)


def test_residual_streams_and_other_values_of_an_intervention():
    network = trace(trained(), digits()[0][:2])
    data = list(as_batches(batches(1000, 1256)))
    exact = exact_effects(network, data, intervention="mean")
    found = structural_influence(network, data, Question(intervention="mean"), Equations("linear", rows=1500))
    assert found.intervention == "mean"
    assert spearmanr(found.mean, exact.mean)[0] > 0.7


def test_blocks_of_units_are_judged_by_their_share():
    case = planted.case(1)
    found = structural_influence(case.network, [case.batch], Question(), Equations("linear", most=6))
    assert found.units == tuple(u.name for u in case.network.units)
    assert found.mean[DEAD] == 0
    assert np.isfinite(found.mean).all()


def test_what_equations_cannot_answer_is_refused():
    case = planted.case(1)
    with pytest.raises(InputError, match="cannot carry"):
        structural_influence(case.network, [case.batch], Question(intervention="carried"), Equations())
    with pytest.raises(InputError, match="no mechanism 'forest'"):
        Equations("forest")
    with pytest.raises(InputError, match="at least 2"):
        structural_influence(case.network, [case.batch], Question(forward_passes=3.0), Equations())
    with pytest.raises(InputError, match="no unit named"):
        structural_influence(case.network, [case.batch], Question(units=("nobody:1",)), Equations())
