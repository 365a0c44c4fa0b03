"""`Budget`: what the pruned network may cost."""

from dataclasses import dataclass

from whyprune.errors import BudgetError, InputError
from whyprune.results import DeviceCost
from whyprune.structure.cost import Cost

KINDS = ("macs", "params", "bytes", "latency", "memory", "energy")
PRICED = ("latency", "memory", "energy")
"""Kinds that no formula of widths gives: the network must be priced (`Network.priced`)."""
ON_DEVICE: tuple[DeviceCost, ...] = ("latency", "energy")
"""Kinds that only a device can tell."""


@dataclass(frozen=True)
class Budget:
    """Upper bounds; each a ratio to the dense network (at most 1) or an absolute number (above 1).

    All must hold.

    Attributes:
        macs: multiply-accumulates per sample, of convolutions and linear layers.
        params: number of parameters.
        bytes: size of parameters and buffers.
        latency: median time of one call, in ms, on a device, at its batch size.
        memory: bytes of parameters, buffers and the most activations that live at once.
        energy: of one call, in mJ, on a device that measures it.

    Raises:
        InputError: no bound is given, or one is not positive.
    """

    macs: float | None = None
    params: float | None = None
    bytes: float | None = None
    latency: float | None = None
    memory: float | None = None
    energy: float | None = None

    def __post_init__(self) -> None:
        for kind in KINDS:
            value = getattr(self, kind)
            if value is not None and (isinstance(value, bool | str) or not hasattr(value, "__float__")):
                raise InputError(f"budget {kind}={value!r:.60}: give a number, such as Budget({kind}=0.5)")
        given = self.as_dict()
        if not given:
            raise InputError(f"an empty budget: give one of {', '.join(KINDS)}, such as Budget(macs=0.5)")
        for kind, value in given.items():
            if not 0 < value < float("inf"):
                raise InputError(f"budget {kind}={value}: give a ratio between 0 and 1, or an absolute number above 1")

    @classmethod
    def parse(cls, text: str) -> "Budget":
        """Reads `macs=0.5` or `macs=0.5,params=0.4`.

        Raises:
            InputError: an unknown kind, or no number.
        """
        if not isinstance(text, str):
            raise InputError(f"budget {text!r:.60}: give text, such as 'macs=0.5'")
        values: dict[str, float] = {}
        for part in text.split(","):
            kind, separator, number = part.strip().partition("=")
            if kind not in KINDS or not separator:
                raise InputError(f"budget {text!r}: write KIND=NUMBER with KIND one of {', '.join(KINDS)}")
            if kind in values:
                raise InputError(f"budget {text!r}: {kind} is given twice")
            try:
                values[kind] = float(number)
            except ValueError:
                raise InputError(f"budget {text!r}: {number!r} is no number") from None
        return cls(**values)

    def as_dict(self) -> dict[str, float]:
        """The bounds that are given."""
        return {k: float(v) for k in KINDS if (v := getattr(self, k)) is not None}

    @property
    def priced(self) -> bool:
        """Whether a bound is on something that the network has to be priced for."""
        return any(kind in PRICED for kind in self.as_dict())

    @property
    def on_device(self) -> dict[DeviceCost, float]:
        """The bounds that only a device can tell."""
        return {k: float(v) for k in ON_DEVICE if (v := getattr(self, k)) is not None}

    def limits(self, dense: Cost) -> dict[str, float]:
        """The bounds in absolute numbers.

        Raises:
            InputError: a bound on something that the network has no price for.
            BudgetError: a bound on something of which the network has nothing.
        """
        for kind in self.as_dict():
            if getattr(dense, kind) == 0:
                raise BudgetError(
                    f"the budget {kind}={getattr(self, kind):g} says nothing here: the network has no {kind} that are "
                    "counted, so none can be saved; bound something else, such as params, bytes or memory"
                )
        return {k: v * self._whole(dense, k) if v <= 1 else v for k, v in self.as_dict().items()}

    def _whole(self, dense: Cost, kind: str) -> float:
        value = getattr(dense, kind)
        if value is None:
            how = "name a device to measure it on" if kind in ON_DEVICE else "price the network first"
            raise InputError(f"the budget {kind}={getattr(self, kind):g} cannot be met blindly: {how}")
        return float(value)

    def met_by(self, cost: Cost, dense: Cost) -> bool:
        """Whether a network of this cost is within the budget."""
        return all(getattr(cost, k) <= limit for k, limit in self.limits(dense).items())

    def between(self, dense: Cost, now: Cost, share: float) -> "Budget":
        """A budget on the way from `now` to this one, in equal ratios: `share` 1 is this budget."""
        steps = {}
        for kind, limit in self.limits(dense).items():
            current = float(getattr(now, kind))
            value = current * (min(limit, current) / current) ** share
            steps[kind] = value / getattr(dense, kind)
        return Budget(**steps)

    def __str__(self) -> str:
        return ", ".join(f"{k}={v:g}" for k, v in self.as_dict().items())
