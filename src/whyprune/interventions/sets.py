"""Effects of sets of units of one group, image by image: the network runs on from where the group is read."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from whyprune.data.batches import Batch
from whyprune.effects.outcomes import Outcome
from whyprune.interventions.suffix import Value, edits, rebatched, suffixes
from whyprune.structure.replay import Replay
from whyprune.structure.units import Unit

Floats = NDArray[np.float64]


class SetEffects:
    """Y(do(all of a set := v)) - Y on given images, for one set of a group's units after the other.

    Attributes:
        cost: of one set, per image, in dense forward passes.
    """

    def __init__(
        self,
        replay: Replay,
        dense: Replay,
        batches: Sequence[Batch],
        units: Sequence[Unit],
        outcome: Outcome,
        value: Value,
    ) -> None:
        """Runs the network once, and keeps what lies in front of the group's readers.

        Args:
            replay: the network that is intervened on.
            dense: the network to whose outputs the outcome compares.
            batches: images.
            units: of one group.
            outcome: fitted.
            value: fitted.

        Raises:
            InputError: the network mixes images, so that there is no effect on a single one.
        """
        replay.network.check_images_apart()
        self._replay, self._outcome, self._value = replay, outcome, value
        self._readers, loops = replay.seen(units), replay.loops(units)
        self._steps = replay.behind({r.node for r in (*self._readers, *loops)})
        self._runs = []
        for batch in rebatched(batches, replay, suffixes(replay, units)):
            values = replay.run(batch, keep=replay.frontier(self._steps))
            rows = replay.read(values)
            target = rows if dense is replay else dense.logits(batch)
            self._runs.append((values, target, batch.labels, outcome(rows, target, batch.labels), len(batch)))
        self.cost = set_cost(replay, units)

    def __call__(self, units: Sequence[Unit]) -> Floats:
        """(images,): individual joint effects of one set."""
        found = []
        for values, target, labels, base, images in self._runs:
            changes = edits(self._replay, self._readers, [units], self._value, images)
            rows = self._replay.resume(values, self._steps, changes)
            found.append(self._outcome(rows, target, labels) - base)
        return np.concatenate([effect.double().numpy() for effect in found])


def set_cost(replay: Replay, units: Sequence[Unit]) -> float:
    """What one set of these units costs per image, in dense forward passes."""
    macs = replay.network.cost.by_operation()
    steps = replay.behind({r.node for r in (*replay.seen(units), *replay.loops(units))})
    return sum(macs[n.name] for n in steps) / sum(macs.values()) if sum(macs.values()) else 1.0
