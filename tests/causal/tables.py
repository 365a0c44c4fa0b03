"""Small networks of which everything is known, each enumerated once."""

from functools import cache

import numpy as np

from tiny import batches, digits, trained
from whyprune.interventions.worlds import Worlds
from whyprune.structure.trace import trace
from whyprune.testing import planted
from whyprune.testing.enumerated import enumerated


@cache
def tiny_table(units=8, images=64):
    """Of the trained network: some units of every layer, the others stay."""
    network = trace(trained(), digits()[0][:2])
    names = [u.name for u in network.units]
    chosen = [names[k] for k in np.linspace(0, len(names) - 1, units).astype(int)]
    return enumerated(Worlds(network, batches(1000, 1000 + images), units=chosen))


@cache
def planted_table():
    """The nine planted units, on 48 images."""
    case = planted.case(1, 48)
    return enumerated(Worlds(case.network, [case.batch], units=[case.unit(k) for k in range(planted.UNITS)]))
