"""Which group's change explains the change of an outcome between the dense and a pruned network.

Budhathoki, Janzing, Blöbaum and Ng, Why did the distribution change?, AISTATS 2021; as DoWhy-GCM does it. [P] fit every
mechanism on both networks' runs, exchange them one by one in all orders, and give each its Shapley share of the change.
[I] the variables are means over whole groups at the sites where they are read, removed channels counting as 0; the
change is that of the outcome's mean, in its own units.

What it does not claim: a group's mean is not what the next layer reads. Once channels are gone, that layer follows
another function of the mean and gets the blame: a pruned group in front of others is rarely the one that explains the
change. Only groups in front of the pruned one are cleared for certain.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from whyprune.causal.fitted.extra import quiet, required
from whyprune.causal.fitted.graphical import Y, edges, mechanism_of
from whyprune.causal.fitted.scm import plain_runs
from whyprune.causal.fitted.structural import Mechanism
from whyprune.causal.fitted.variables import Variables, variables
from whyprune.effects.outcomes import Outcome
from whyprune.errors import InputError
from whyprune.interventions.worlds import Worlds
from whyprune.structure.entry import entered
from whyprune.structure.state import State

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Change:
    """What explains a change.

    Attributes:
        outcome: the outcome's name.
        change: mean in the pruned network less mean in the dense one.
        shares: variable -> its share of the change; `outcome` is what the last layer makes of the same means.
    """

    outcome: str
    change: float
    shares: dict[str, float]

    def __str__(self) -> str:
        ordered = sorted(self.shares.items(), key=lambda item: -abs(item[1]))
        told = "".join(f"\n  {name}: {value:+.3g}" for name, value in ordered)
        return f"{self.outcome} changed by {self.change:+.3g}. What explains it:{told}"


def what_changed(
    state: State,
    data: Iterable[Any],
    *,
    outcome: Outcome | str = "margin",
    mechanism: Mechanism = "linear",
    permutations: int = 20,
    seed: int = 0,
) -> Change:
    """Attributes the change of the mean outcome to groups.

    Args:
        state: the pruned network, repaired or not.
        data: batches; the default outcome needs labels.
        outcome: one that differs between images without an intervention.
        mechanism: `linear` or `trees`.
        permutations: orders in which mechanisms are exchanged.
        seed: of whatever DoWhy draws.

    Raises:
        MissingDependencyError: the extra `causal` is not installed.
        InputError: an outcome that is the same on all images of the dense network.
    """
    gcm, networkx = required("dowhy.gcm"), required("networkx")
    batches = list(entered(data, state.network))
    dense = Worlds(state.network, batches, outcome=outcome)
    if not np.ptp(dense.base) > 0:
        raise InputError(f"outcome {dense.outcome.name} is the same on every image: choose 'margin' or 'cross-entropy'")
    small = Worlds(state, batches, outcome=outcome)
    groups = variables(dense, 1)
    old, new = _frame(dense, groups, groups), _frame(small, variables(small, 1), groups)
    graph = networkx.DiGraph(edges(groups))
    model = gcm.ProbabilisticCausalModel(graph)
    for name in graph.nodes:
        root = graph.in_degree(name) == 0
        model.set_causal_mechanism(name, gcm.EmpiricalDistribution() if root else mechanism_of(gcm, mechanism))
    shapley = required("dowhy.gcm.shapley")
    config = shapley.ShapleyConfig(
        approximation_method=shapley.ShapleyApproximationMethods.PERMUTATION, num_permutations=permutations, n_jobs=1
    )
    with quiet(seed):
        found = gcm.distribution_change(
            model,
            old,
            new,
            Y,
            num_samples=4000,
            difference_estimation_func=_difference,
            independence_test=_changed,
            conditional_independence_test=_changed,
            shapley_config=config,
        )
    shares = {str(name): float(value) for name, value in found.items()}
    return Change(dense.outcome.name, float(new[Y].mean() - old[Y].mean()), shares)


def _frame(worlds: Worlds, own: Variables, groups: Variables) -> Any:
    """One column for each variable of the dense network; what the pruned one lacks counts as 0."""
    runs = plain_runs(worlds, own)
    table = own.table(runs.raw)
    kept, total = _sizes(own), _sizes(groups)
    column = {key: table[:, v] * kept[key] / total[key] for v, key in enumerate(kept)}
    values = [column.get(key, np.zeros(worlds.images)) for key in total]
    frame = required("pandas").DataFrame(np.stack(values, axis=1), columns=list(groups.names))
    frame[Y] = worlds.base
    return frame


def _sizes(every: Variables) -> dict[tuple[str, str], int]:
    """(site, group) of each variable, in order -> how many units it is the mean of."""
    found = {}
    for site in every.where.sites:
        groups = [every.units[k].group for k in site.units]
        for group in dict.fromkeys(groups):
            found[site.name, group] = groups.count(group)
    return found


def _difference(old: Floats, new: Floats) -> float:
    return float(np.mean(new) - np.mean(old))


def _changed(*_: Any) -> float:
    """The networks differ: every mechanism is fitted to each, and none is tested for having stayed the same."""
    return 0.0
