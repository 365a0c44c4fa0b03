"""A structural causal model over summaries of the network's units, fitted to runs, and its counterfactuals.

Narendra, Sankaran, Vijaykeerthy and Mani, Explaining deep learning models using causal inference, 2018,
arXiv:1811.04376. [P] one number per filter, r = mean of its map; each is a function of those it depends on in the
network's own graph, r_j = f_j(parents) + e_j; a filter's influence is what do(r := 0) in this model does to the output.
[I] The graph is of sites, so that a residual stream has a variable wherever it is read; f is ridge regression or
gradient-boosted trees; the last equations give logits, from which any outcome follows; residuals are kept as they are
on the image (abduction), so that an influence is a total effect on that image, never a sum of |coefficients|.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from whyprune.causal.fitted.sites import Runs
from whyprune.causal.fitted.variables import Variables
from whyprune.effects.outcomes import centred
from whyprune.progress import Progress

Floats = NDArray[np.float64]
Mechanism = Literal["linear", "trees"]
COMPONENTS = 16
TREES = 60
WIDE, MOST_ROWS = 1024, 512


class Equation(Protocol):
    """From parents (rows, parents) to values (rows, variables)."""

    def fit(self, parents: Floats, values: Floats) -> Any:
        """Learns the function."""
        ...

    def predict(self, parents: Floats) -> Floats:
        """(rows, variables)."""
        ...


class Trees:
    """Boosted trees, one ensemble for each variable that varies."""

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def fit(self, parents: Floats, values: Floats) -> "Trees":
        """Fits each variable on its own."""
        self._constant = values.mean(axis=0)
        self._models = {
            k: HistGradientBoostingRegressor(max_iter=TREES, early_stopping=False, random_state=self._seed).fit(
                parents, values[:, k]
            )
            for k in np.flatnonzero(np.ptp(values, axis=0) > 0)
        }
        return self

    def predict(self, parents: Floats) -> Floats:
        """(rows, variables)."""
        found = np.tile(self._constant, (len(parents), 1))
        for k, model in self._models.items():
            found[:, k] = model.predict(parents)
        return found


def equation(mechanism: Mechanism, seed: int) -> Equation:
    """An equation that knows nothing yet."""
    if mechanism == "trees":
        return Trees(seed)
    model: Equation = make_pipeline(StandardScaler(), Ridge(alpha=1.0))
    return model


@dataclass(frozen=True)
class StructuralModel:
    """Fitted equations.

    Attributes:
        variables: what it speaks of.
        equations: per site; None where nothing feeds it.
        last: from what the output reads to the logits' components.
        directions: (F, components), which numbers of a row, or of its logits, these are.
    """

    variables: Variables
    equations: tuple[Equation | None, ...]
    last: Equation
    directions: Tensor

    def logits(self, runs: Runs, moved: Floats, held: NDArray[np.bool_], block: int = 64) -> Tensor:
        """Counterfactual logits on the images of runs without intervention.

        Args:
            runs: n rows without intervention.
            moved: (questions, n, variables), by how much an intervention moves what readers see of each variable.
            held: (questions, variables), True where that is all that can move it: the variable is the unit itself.
            block: questions at a time.

        Returns:
            (questions, n, classes).
        """
        found = [
            self._propagated(runs, moved[start : start + block], held[start : start + block])
            for start in range(0, len(moved), block)
        ]
        return torch.cat(found)

    def _propagated(self, runs: Runs, moved: Floats, held: NDArray[np.bool_]) -> Tensor:
        where, spans = self.variables.where, self.variables.spans
        plain = self.variables.table(runs.raw)
        raw: list[Floats | None] = []
        seen: list[Floats | None] = []
        for k, own in enumerate(self.equations):
            site, change = where.sites[k], None
            if own is not None:
                change = self._change(own, (site.read, site.passed), plain, raw, seen)
            raw.append(change)
            acted, fixed = moved[:, :, spans[k]], held[:, None, spans[k]]
            if change is not None:
                change = np.where(fixed, 0.0, change) + acted
            elif np.any(acted):
                change = acted
            seen.append(change)
        change = self._change(self.last, (where.last, ()), plain, raw, seen)
        if change is None:
            return runs.logits.expand(len(moved), *runs.logits.shape)
        delta = torch.from_numpy(change).to(runs.logits.dtype) @ self.directions.T.to(runs.logits.dtype)
        return runs.logits + delta

    def _change(
        self,
        own: Equation,
        parents: tuple[Sequence[int], Sequence[int]],
        plain: Floats,
        raw: Sequence[Floats | None],
        seen: Sequence[Floats | None],
    ) -> Floats | None:
        """(questions, n, values): what an equation gives beyond its value without intervention; None for nothing."""
        read, passed = parents
        changes = [(k, seen[k]) for k in read] + [(k, raw[k]) for k in passed]
        if all(change is None for _, change in changes):
            return None
        questions = next(len(c) for _, c in changes if c is not None)
        columns = []
        for k, change in changes:
            base = plain[:, self.variables.spans[k]]
            columns.append(np.broadcast_to(base, (questions, *base.shape)) if change is None else base + change)
        features = np.concatenate(columns, axis=2)
        base = own.predict(np.concatenate([plain[:, self.variables.spans[k]] for k, _ in changes], axis=1))
        flat = own.predict(features.reshape(-1, features.shape[2]))
        return flat.reshape(questions, len(plain), -1) - base


def fit_structural(
    variables: Variables,
    runs: Runs,
    *,
    mechanism: Mechanism = "trees",
    factors: Tensor | None = None,
    centre: bool = True,
    seed: int = 0,
    progress: bool = False,
) -> StructuralModel:
    """Fits all equations to runs, with or without interventions: a unit's own equation is of its value as computed.

    Args:
        variables: what to speak of.
        runs: of the network.
        mechanism: the kind of equations.
        factors: (F,), how much each number of a row counts where outputs are many: its directions are chosen by it.
        centre: whether rows are logits, of which the mean over classes says nothing.
        seed: of the equations.
        progress: show a progress bar.
    """
    raw, seen = variables.table(runs.raw), variables.table(runs.seen)
    spans, where = variables.spans, variables.where

    def features(read: Sequence[int], passed: Sequence[int]) -> Floats:
        columns = [seen[:, spans[k]] for k in read] + [raw[:, spans[k]] for k in passed]
        return np.concatenate(columns, axis=1)

    equations: list[Equation | None] = []
    with Progress(progress) as bars:
        bar = bars.add("Fitting structural equations", len(where) + 1)
        for site, span in zip(where.sites, spans, strict=True):
            fed = bool(site.read or site.passed)
            own = equation(mechanism, seed) if fed else None
            if own is not None:
                own.fit(features(site.read, site.passed), raw[:, span])
            equations.append(own)
            bars.advance(bar)
        flat = centred(runs.logits.double()) if centre else runs.logits.double()
        counts = torch.ones(flat.shape[1], dtype=flat.dtype) if factors is None else factors.double()
        flat = flat if factors is None else flat * counts
        found = _directions(flat)
        last = equation(mechanism, seed)
        last.fit(features(where.last, ()), (flat @ found).numpy())
        directions = torch.where(counts[:, None] > 0, found / counts[:, None], 0.0)
        bars.advance(bar)
    return StructuralModel(variables, tuple(equations), last, directions)


def _directions(logits: Tensor) -> Tensor:
    """(F, components): the numbers of a row themselves while they are few, else directions along which rows vary."""
    classes = logits.shape[1]
    if classes <= COMPONENTS:
        return torch.eye(classes, dtype=logits.dtype)
    away = logits - logits.mean(dim=0)
    if classes > WIDE:  # from the rows' products: an even sample of them spans what varies
        away = away[:: -(-len(away) // MOST_ROWS)]
        values, vectors = torch.linalg.eigh(away @ away.T)
        best = values.argsort(descending=True)[:COMPONENTS]
        best = best[values[best] > 0]
        few: Tensor = away.T @ vectors[:, best] / values[best].sqrt()
        return few
    found: Tensor = torch.linalg.svd(away, full_matrices=False)[2]
    return found[:COMPONENTS].T
