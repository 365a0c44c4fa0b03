"""`OutputShift`: how far all outputs of a network are from the dense network's, whatever shape they have.

For every tensor that counts, the squared distance to the dense network's is divided by that tensor's variance over
images (around the mean image, position by position), and these ratios are averaged with weights. 0 means the same
function, 1 that the output is as far off as images' outputs are from their mean. [I; for one tensor of centred logits
it is `LogitShift`.]
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from whyprune.errors import InputError
from whyprune.structure.outputs import OutputLayout

COLUMNS = 8192
"""Numbers of a row at a time, where variances are taken in double precision."""


@dataclass(frozen=True)
class OutputShift:
    """Squared distance of every output tensor to the dense network's, over its variance, averaged over tensors.

    The default where a network's output is not one vector of logits. Needs no labels; nothing is centred.

    Attributes:
        weights: name of an output tensor -> its weight in the average, 1 where none is given; 0 leaves it out.
        parts: (name, first column, column behind the last) of every tensor in rows.
        factors: (F,), what every column's difference is multiplied by before it is squared.
        notes: sentences on tensors that have no scale.
    """

    weights: Mapping[str, float] = field(default_factory=dict)
    parts: tuple[tuple[str, int, int], ...] = ()
    factors: Tensor | None = field(default=None, repr=False, compare=False)
    notes: tuple[str, ...] = ()
    name: str = "output-shift"
    needs_labels: bool = False

    def __post_init__(self) -> None:
        for name, weight in self.weights.items():
            if not (isinstance(weight, int | float) and 0 <= weight < float("inf")):
                raise InputError(f"the weight of output {name!r} is {weight!r}: give a number, 0 or more")

    @property
    def scale(self) -> float:
        """The factors hold it."""
        return 1.0

    def of(self, layout: OutputLayout) -> "OutputShift":
        """The outcome, knowing which columns of rows are which tensor's.

        Raises:
            InputError: a weight names no tensor that counts, or none has a weight above 0.
        """
        if unknown := sorted(self.weights.keys() - {t.name for t in layout.counting}):
            known = ", ".join(repr(t.name) for t in layout.counting)
            raise InputError(f"no output that counts is named {unknown[0]!r}: the weights are for {known}")
        parts = tuple((t.name, span.start, span.stop) for t, span in layout.slices if t.counts)
        if parts and not any(self._weight(name) for name, _, _ in parts):
            raise InputError("all outputs have weight 0: give one of them a weight above 0")
        return self if parts == self.parts else replace(self, parts=parts, factors=None)

    def fit(self, dense: Tensor, /) -> "OutputShift":
        """Takes every tensor's variance from the dense network's rows (N, F).

        Raises:
            InputError: fewer than two images, NaN or infinite outputs, or the same output for every image.
        """
        finite(dense)
        parts = self.parts or (("output", 0, dense.shape[1]),)
        weighed = [part for part in parts if self._weight(part[0])]
        spread = {name: _variance(dense[:, start:stop]) for name, start, stop in weighed}
        alive = [part for part in weighed if spread[part[0]] is not None]
        if not alive:
            raise InputError("the dense network gives the same output for every calibration image: it has no outcome")
        total = sum(self._weight(name) for name, _, _ in alive)
        factors = torch.zeros(dense.shape[1], dtype=torch.float64)
        for name, start, stop in alive:
            variance = spread[name]
            assert variance is not None
            factors[start:stop] = (self._weight(name) / total / (stop - start) / variance) ** 0.5
        still = [name for name, _, _ in weighed if spread[name] is None]
        notes = tuple(f"Output {name!r} is the same for every calibration image: no outcome sees it." for name in still)
        return replace(self, factors=factors.to(dense), notes=notes)

    def directions(self, rows: Tensor) -> Tensor:
        """The rows, scaled so that the outcome is the squared length of their change."""
        if self.factors is None:
            raise InputError("OutputShift has no scale yet: call fit with the dense network's rows first")
        return rows * self.factors.to(rows)

    def __call__(self, rows: Tensor, dense: Tensor, _labels: Tensor | None, /) -> Tensor:
        """Harm per image, (B,), from rows (B, F) and the dense network's."""
        return self.directions(rows - dense).square().sum(dim=-1)

    def _weight(self, name: str) -> float:
        return float(self.weights.get(name, 1.0))


def finite(dense: Tensor) -> None:
    """Refuses outputs of the dense network of which no scale can be made.

    Raises:
        InputError: fewer than two images, NaN or infinite numbers.
    """
    if len(dense) < 2:
        raise InputError(f"{len(dense)} image(s) of data: at least 2 are needed to see how far outputs spread")
    check_no_nan(dense, torch.isfinite(dense))


def check_no_nan(dense: Tensor, fine: Tensor | None = None) -> None:
    """Refuses outputs of the dense network that are no numbers.

    Args:
        dense: rows (B, F).
        fine: which of the numbers are fine, (B, F); None for all but NaN.

    Raises:
        InputError: some are not.
    """
    broken = dense.isnan() if fine is None else ~fine
    if bool(broken.any()):
        bad = int(broken.any(dim=1).sum())
        raise InputError(
            f"the dense network gives NaN or infinite outputs on {bad} of {len(dense)} calibration images: no distance "
            "to it can be measured; look at these inputs and at the weights"
        )


def _variance(rows: Tensor) -> float | None:
    """The mean over columns of their variance over images; None where it is no more than rounding."""
    spread = energy = 0.0
    for start in range(0, rows.shape[1], COLUMNS):
        exact = rows[:, start : start + COLUMNS].double()
        spread += float((exact - exact.mean(dim=0)).square().mean(dim=0).sum())
        energy += float(exact.square().mean(dim=0).sum())
    rounding = (8 * torch.finfo(rows.dtype).eps) ** 2 * energy
    return spread / rows.shape[1] if spread > rounding else None
