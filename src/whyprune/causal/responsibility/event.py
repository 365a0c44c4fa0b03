"""The event that units are causes of: what must stay true of one image's output, and how far it is from failing."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from whyprune.errors import InputError
from whyprune.interventions.worlds import Floats, Worlds


@dataclass(frozen=True)
class Event:
    """An event phi per image; by default, that the predicted class stays the predicted class.

    Attributes:
        margin: the predicted class must lead every other by more than this, in logits.
        harm: instead: the outcome's individual effect must stay below this.
        fall: instead: the predicted class's probability must fall by less than this (the threshold of CexCNN's code,
            which reads the winner's probability after the deletion even where another class wins; here the class stays
            the same).
    """

    margin: float = 0.0
    harm: float | None = None
    fall: float | None = None

    def __post_init__(self) -> None:
        given = [
            n for n, v in (("margin", self.margin or None), ("harm", self.harm), ("fall", self.fall)) if v is not None
        ]
        if len(given) > 1:
            raise InputError(f"an event is about one thing, not {' and '.join(given)}: give one of them")

    @property
    def name(self) -> str:
        """What results call it."""
        if self.harm is not None:
            return f"harm < {self.harm:g}"
        if self.fall is not None:
            return f"probability falls by < {self.fall:g}"
        return f"margin > {self.margin:g}" if self.margin else "prediction"

    def slack(self, worlds: Worlds, logits: Tensor, images: NDArray[np.int64]) -> Floats:
        """How far phi is from failing, (rows,); phi holds where it is positive.

        Args:
            worlds: the network on its images.
            logits: (rows, classes), under interventions.
            images: (rows,), the number of each row's image.

        Raises:
            InputError: the network's output is no vector of logits of two classes or more.
        """
        if self.harm is not None:
            return self.harm - (worlds.harm(logits, images) - worlds.base[images])
        outputs = worlds.network.outputs
        if not outputs.is_logits:
            raise InputError(f"there is no predicted class: {outputs.no_logits()}; use Event(harm=...) with an outcome")
        plain = worlds.plain[torch.from_numpy(images)].double()
        own = plain.argmax(dim=-1, keepdim=True)
        if self.fall is not None:
            before, after = (z.softmax(dim=-1).gather(-1, own) for z in (plain, logits.double()))
            found = (after - before).squeeze(-1) + self.fall
        else:
            others = logits.double().scatter(-1, own, -torch.inf).amax(dim=-1)
            found = logits.double().gather(-1, own).squeeze(-1) - others - self.margin
        slack: Floats = found.numpy()
        return slack
