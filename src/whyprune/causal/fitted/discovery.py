"""`discovery`: causal discovery by causal-learn on the network's runs, held against the network's own graph.

Zheng et al., Causal-learn: causal discovery in Python, JMLR 2024, arXiv:2307.16405. [P] the algorithms: PC and FCI
(tests of independence), GES (score), BOSS and GRaSP (permutations), ICA- and DirectLiNGAM (non-Gaussian noise). [I]
variables are parts of the network at the sites where they are read, at most 50; runs as they are or with parts gone at
random; and the wiring is known, so that what is found can be held against it: precision and recall of the skeleton
against chance, which is the share of all pairs that are wired, and how many arrows point forward.

`tiers` tells the order of sites. PC, FCI and DirectLiNGAM search within it; the arrows of the others are turned to it
afterwards. Either way directions are then right by construction.

What it does not claim: nobody needs discovery for the wiring, which is known. On runs as they are the image drives
every variable, and what is found is near chance. As an estimator, effects are linear adjustments on the graph found.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from whyprune.causal.fitted.extra import quiet, required
from whyprune.errors import InputError

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]
ALPHA = 0.01
JITTER = 1e-3


@dataclass(frozen=True)
class DiscoveredGraph:
    """What an algorithm found.

    Attributes:
        method: the algorithm.
        names: of the variables.
        arrows: (variables, variables), True where i -> j was found.
        lines: the same, symmetric, where i and j are connected in no known direction.
        tier: (variables,), the known order of causes.
        wired: (variables, variables), True where the network has i -> j; None where it is unknown.
    """

    method: str
    names: tuple[str, ...]
    arrows: Mask
    lines: Mask
    tier: NDArray[np.int64]
    wired: Mask | None = None

    @cached_property
    def edges(self) -> tuple[tuple[str, str], ...]:
        """All arrows, by name."""
        return tuple((self.names[i], self.names[j]) for i, j in np.argwhere(self.arrows))

    @cached_property
    def _pairs(self) -> tuple[Mask, Mask]:
        """(found, true) for every pair of variables."""
        if self.wired is None:
            raise InputError("nothing to compare with: the true graph is not known")
        upper = np.triu_indices(len(self.names), 1)
        found, true = self.arrows | self.arrows.T | self.lines, self.wired | self.wired.T
        return found[upper], true[upper]

    @property
    def precision(self) -> float:
        """Share of found connections that the network has; NaN if none was found."""
        found, true = self._pairs
        return float(true[found].mean()) if found.any() else float("nan")

    @property
    def recall(self) -> float:
        """Share of the network's connections that were found."""
        found, true = self._pairs
        return float(found[true].mean()) if true.any() else float("nan")

    @property
    def chance(self) -> float:
        """What the precision of connections drawn at random would be: the share of pairs that are wired."""
        return float(self._pairs[1].mean())

    @property
    def direction_accuracy(self) -> float:
        """Share of arrows at wired pairs that point the right way; NaN if there are none."""
        if self.wired is None:
            raise InputError("nothing to compare with: the true graph is not known")
        right, wrong = (self.arrows & self.wired).sum(), (self.arrows & self.wired.T).sum()
        return float(right / (right + wrong)) if right + wrong else float("nan")


def discover(
    table: Floats,
    names: Sequence[str],
    method: str = "pc",
    *,
    tier: Sequence[int] | None = None,
    alpha: float = ALPHA,
    depth: int = 2,
    seed: int = 0,
) -> DiscoveredGraph:
    """Runs one algorithm of causal-learn.

    Constant columns are left out, and get no edge. Noise of a thousandth of each column's spread is added: exact copies
    make the tests singular. GES walks every semi-directed path: on a dense graph of two dozen variables it may not end.

    Args:
        table: (rows, variables).
        names: of the variables.
        method: one of `ALGORITHMS`.
        tier: the order of causes, if it is to be used.
        alpha: level of the tests of PC and FCI.
        depth: most variables that these tests condition on; -1 for no limit, which takes long.
        seed: of the noise, and of what the algorithm draws.

    Raises:
        MissingDependencyError: the extra `causal` is not installed.
        InputError: an unknown algorithm, or one that failed on these numbers.
    """
    if method not in ALGORITHMS:
        raise InputError(f"no algorithm {method!r}: choose from {', '.join(ALGORITHMS)}")
    required("causallearn")
    rng = np.random.default_rng(seed)
    kept = np.flatnonzero(np.ptp(table, axis=0) > 0)
    used = table[:, kept] - table[:, kept].mean(axis=0)
    used = used / used.std(axis=0)
    used = used + JITTER * rng.standard_normal(used.shape)
    order = None if tier is None else np.asarray(tier)[kept]
    try:
        with quiet(seed):
            arrows, lines = ALGORITHMS[method](used, order, alpha, depth, seed)
    except (ValueError, np.linalg.LinAlgError, IndexError) as error:
        raise InputError(f"{method} failed on these {len(kept)} variables: {error}") from error
    if order is not None:
        arrows, lines = _forward(arrows, lines, order)
    whole = np.zeros((2, len(names), len(names)), dtype=bool)
    whole[0][np.ix_(kept, kept)], whole[1][np.ix_(kept, kept)] = arrows, lines
    known = np.zeros(len(names), dtype=np.int64) if tier is None else np.asarray(tier)
    return DiscoveredGraph(method, tuple(names), whole[0], whole[1], known)


def _forward(arrows: Mask, lines: Mask, tier: NDArray[np.int64]) -> tuple[Mask, Mask]:
    """Every connection between tiers points to the later one."""
    found, later = arrows | arrows.T | lines, tier[:, None] < tier[None, :]
    same = tier[:, None] == tier[None, :]
    return (found & later) | (arrows & same), lines & same


def _pc(x: Floats, tier: Any, alpha: float, depth: int, _seed: int) -> tuple[Mask, Mask]:
    pc = required("causallearn.search.ConstraintBased.PC").pc
    names = _names(x)
    known = _knowledge(names, tier)
    options = {} if depth < 0 else {"max_k": depth}
    return _read(pc(x, alpha, background_knowledge=known, show_progress=False, node_names=names, **options).G)


def _fci(x: Floats, tier: Any, alpha: float, depth: int, _seed: int) -> tuple[Mask, Mask]:
    fci = required("causallearn.search.ConstraintBased.FCI").fci
    names = _names(x)
    known = _knowledge(names, tier)
    found = fci(
        x,
        alpha=alpha,
        depth=depth,
        max_path_length=3,
        background_knowledge=known,
        show_progress=False,
        node_names=names,
    )
    return _read(found[0])


def _ges(x: Floats, *_: Any) -> tuple[Mask, Mask]:
    return _read(required("causallearn.search.ScoreBased.GES").ges(x, "local_score_BIC_from_cov")["G"])


def _boss(x: Floats, *_: Any) -> tuple[Mask, Mask]:
    return _read(required("causallearn.search.PermutationBased.BOSS").boss(x, verbose=False))


def _grasp(x: Floats, *_: Any) -> tuple[Mask, Mask]:
    return _read(required("causallearn.search.PermutationBased.GRaSP").grasp(x, verbose=False))


def _ica_lingam(x: Floats, _tier: Any, _alpha: float, _depth: int, seed: int) -> tuple[Mask, Mask]:
    lingam = required("causallearn.search.FCMBased.lingam")
    return _weights(lingam.ICALiNGAM(seed, 1000).fit(x).adjacency_matrix_)


def _direct_lingam(x: Floats, tier: Any, _alpha: float, _depth: int, seed: int) -> tuple[Mask, Mask]:
    lingam = required("causallearn.search.FCMBased.lingam")
    prior = None
    if tier is not None:  # entry (i, j) = 0: j does not cause i
        prior = np.where(tier[:, None] < tier[None, :], 0, -1)
    return _weights(lingam.DirectLiNGAM(seed, prior).fit(x).adjacency_matrix_)


ALGORITHMS: dict[str, Callable[[Floats, Any, float, int, int], tuple[Mask, Mask]]] = {
    "pc": _pc,
    "fci": _fci,
    "ges": _ges,
    "boss": _boss,
    "grasp": _grasp,
    "ica-lingam": _ica_lingam,
    "direct-lingam": _direct_lingam,
}
"""Name -> (table, tiers or None, level, depth, seed) to (arrows, lines)."""


def _names(x: Floats) -> list[str]:
    return [f"X{k + 1}" for k in range(x.shape[1])]


def _knowledge(names: Sequence[str], tier: NDArray[np.int64] | None) -> Any:
    if tier is None:
        return None
    node = required("causallearn.graph.GraphNode").GraphNode
    known = required("causallearn.utils.PCUtils.BackgroundKnowledge").BackgroundKnowledge()
    for name, number in zip(names, np.unique(tier, return_inverse=True)[1].tolist(), strict=True):
        known.add_node_to_tier(node(name), number)
    return known


def _read(graph: Any) -> tuple[Mask, Mask]:
    """(arrows, lines) from causal-learn's marks at both ends: -1 a tail, 1 a head, 2 a circle."""
    order = np.argsort([int(n.get_name()[1:]) for n in graph.get_nodes()])
    marks = np.asarray(graph.graph)[np.ix_(order, order)]
    there, head = (marks != 0) & (marks.T != 0), marks == 1
    arrows = there & head.T & ~head  # a head at j, none at i
    return arrows, there & ~arrows & ~arrows.T


def _weights(adjacency: Floats) -> tuple[Mask, Mask]:
    """LiNGAM's entry (i, j) is the weight of j -> i."""
    arrows = np.abs(np.nan_to_num(adjacency.T)) > 0
    return arrows, np.zeros_like(arrows)
