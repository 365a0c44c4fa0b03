"""Why the network predicts what it predicts on one image: the responsible units, in words that a person can read."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from whyprune.causal.responsibility.contingency import Contingency
from whyprune.causal.responsibility.event import Event
from whyprune.causal.responsibility.measure import measured
from whyprune.effects.outcomes import Outcome
from whyprune.errors import InputError
from whyprune.interventions.worlds import Worlds
from whyprune.structure.entry import entered
from whyprune.structure.network import Network
from whyprune.structure.state import State
from whyprune.structure.units import Unit

LISTED = 10


@dataclass(frozen=True)
class Cause:
    """One unit that is a cause of a prediction.

    Attributes:
        unit: its name.
        contingency: the units that must be out for it to decide; empty if it decides as things are.
        smallest: whether it is proven that no fewer units would do; else a smaller set may exist.
        sufficient: whether the event holds with only this unit left of its group.
    """

    unit: str
    contingency: tuple[str, ...]
    smallest: bool
    sufficient: bool

    @property
    def responsibility(self) -> float:
        """1 / (1 + the size of the contingency set)."""
        return 1 / (1 + len(self.contingency))

    @property
    def necessary(self) -> bool:
        """Whether the event ends without this unit alone (but-for)."""
        return not self.contingency

    @property
    def share(self) -> str:
        """The responsibility as a person writes it: `1`, `1/2`, `1/3`."""
        return f"1/{1 + len(self.contingency)}" if self.contingency else "1"


@dataclass(frozen=True)
class Explanation:
    """The causes of one prediction, the most responsible first.

    Attributes:
        predicted: the predicted class.
        name: what that class is called.
        event: name of the event that the units are causes of.
        intervention: the value v of do(unit := v).
        causes: every unit for which a contingency set was found.
        judged: how many units were judged.
        forward_passes: cost in dense forward passes of one image.
    """

    predicted: int
    name: str
    event: str
    intervention: str
    causes: tuple[Cause, ...]
    judged: int
    forward_passes: float

    def sentence(self, cause: Cause) -> str:
        """One cause in a sentence."""
        bound = "" if cause.smallest else "at least "
        said = f"unit {cause.unit} is a cause of {self._what()} with responsibility {bound}{cause.share}: "
        if cause.necessary:
            return f"{said}without it alone, {self._end()}"
        return f"{said}it decides once {_listed(cause.contingency)} {_verb(cause.contingency)} out"

    def _what(self) -> str:
        return f"the prediction {self.name!r}" + ("" if self.event == "prediction" else f" ({self.event})")

    def _end(self) -> str:
        return "another class wins" if self.event == "prediction" else f"{self.event} no longer holds"

    def __str__(self) -> str:
        if not self.causes:
            return (
                f"the network predicts {self.name!r}; no contingency set was found for any of {self.judged} units: "
                "none of them decides, alone or once a few others are out"
            )
        lines = [self.sentence(c) for c in self.causes[:LISTED]]
        rest = len(self.causes) - len(lines)
        more = [f"and {rest} more causes"] if rest > 0 else []
        none = self.judged - len(self.causes)
        return "\n".join([*lines, *more, f"no contingency set was found for the other {none} of {self.judged} units"])


def explain_prediction(
    start: Network | State,
    image: Any,
    *,
    event: Event | None = None,
    outcome: Outcome | str | None = None,
    intervention: str = "zero",
    units: Sequence[Unit | str] | None = None,
    contingency: Contingency | None = None,
    class_names: Sequence[str] | None = None,
    background: Iterable[Any] = (),
) -> Explanation:
    """The units that are causes of the network's prediction on one image, with their contingency sets.

    Args:
        start: a traced model, or a state of it.
        image: a batch of one, as the model takes it: a tensor (1, ...), a tuple or a dict; a label is only needed
            where the event is about an outcome that needs it.
        event: what units are causes of (default: the predicted class stays).
        outcome: for `Event(harm=...)`: the outcome it is about.
        intervention: the value v of do(unit := v). All but `zero` are taken from `background`.
        units: which units to judge (default: all); any unit may be in a contingency set.
        contingency: how contingency sets are searched.
        class_names: names of the classes.
        background: other images, from which the values of interventions and an outcome's scale are taken.

    Raises:
        InputError: not one image, no such unit, too few class names, or an intervention without background.
    """
    network = State.of(start).network
    batch = next(iter(entered([image], network, "the image")))
    if len(batch) != 1:
        raise InputError(f"a batch of {len(batch)} images: give one, as a batch of one")
    others = list(entered(background, network, "the background"))
    if not others and intervention != "zero":
        raise InputError(f"intervention {intervention!r} takes its value from other images: give some as background")
    event = event or Event()
    named = outcome if event.harm is not None else "prediction-change"
    worlds = Worlds(start, [batch, *others], outcome=named, intervention=intervention)
    found = measured(worlds, event, contingency or Contingency(), units=units, images=1, sufficiency=True)
    predicted = int(found.classes[0])
    if class_names is not None and predicted >= len(class_names):
        raise InputError(f"{len(class_names)} class names, and the network predicts class {predicted}")
    causes = [
        Cause(
            unit=found.units[f],
            contingency=others_out,
            smallest=len(others_out) <= found.searched + 1,
            sufficient=bool(found.sufficient is not None and found.sufficient[f, 0]),
        )
        for (f, _), others_out in found.sets.items()
    ]
    return Explanation(
        predicted=predicted,
        name=str(predicted) if class_names is None else class_names[predicted],
        event=found.event,
        intervention=found.intervention,
        causes=tuple(sorted(causes, key=lambda c: len(c.contingency))),
        judged=len(found.units),
        forward_passes=found.forward_passes,
    )


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _verb(names: Sequence[str]) -> str:
    return "is" if len(names) == 1 else "are"
