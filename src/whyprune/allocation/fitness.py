"""What a searching allocation minimises of the networks it tries: kinds of fitness by name, with their facts.

`joint-effect` is ours [I]. `batch-norm` is EagleEye's (Li et al., ECCV 2020): the error after batch-norm statistics are
estimated again. `short-training` is ACP's (Chang et al., Applied Intelligence 2022): the error after three epochs of
training; [C] measured on test images, which no search here ever sees. `refit` is the same error after our closed form.

Error is (wrong + c / (1 + c)) / images, c being the mean cross-entropy [I]: top-1 error decides, and c breaks ties.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from whyprune.errors import InputError

JOINT_EFFECT, BATCH_NORM, REFIT, SHORT_TRAINING = "joint-effect", "batch-norm", "refit", "short-training"
EPOCHS = 3
"""ACP's [C]."""
EVALUATED_ON, LABELLED_ON = 64, 256
"""Images that one plan is measured on: a joint effect is a smooth number, an error counts images."""
REFITTED_ON, MENDED_ON = 128, 320
"""Other images on which what is left is refitted, or its batch norms estimated, or trained. ACP has 50,000: here an
epoch on 320 takes about as long as a refit on 128, and a search trains dozens of networks."""


@dataclass(frozen=True)
class FitnessFacts:
    """What a kind of fitness says of itself.

    Attributes:
        summary: what a plan is judged by, in one sentence without a full stop.
        cost: of one plan, in words.
        labels: `outcome` (if the outcome needs them) or `yes`.
        training: whether networks are trained.
        measured_on: images that a plan is measured on, at most a third of what there is.
        mended_on: other images that the network is mended on before.
        paper: where it comes from.
    """

    summary: str
    cost: str
    labels: Literal["outcome", "yes"] = "yes"
    training: bool = False
    measured_on: int = LABELLED_ON
    mended_on: int = MENDED_ON
    paper: str = ""


FITNESS: Mapping[str, FitnessFacts] = {
    JOINT_EFFECT: FitnessFacts(
        "the joint effect of what goes, after a refit where the method refits",
        f"each cut, refitted on {REFITTED_ON} images and run on {EVALUATED_ON}",
        labels="outcome",
        measured_on=EVALUATED_ON,
        mended_on=REFITTED_ON,
    ),
    BATCH_NORM: FitnessFacts(
        "the error after batch-norm statistics are estimated again",
        f"each cut, run on {MENDED_ON} images for its batch norms and on {LABELLED_ON} for its error",
        paper="EagleEye, Li et al., ECCV 2020",
    ),
    REFIT: FitnessFacts(
        "the error after a refit in closed form",
        f"each cut, refitted on {REFITTED_ON} images and run on {LABELLED_ON} for its error",
        mended_on=REFITTED_ON,
    ),
    SHORT_TRAINING: FitnessFacts(
        "the error after a short training",
        f"each cut, trained on {MENDED_ON} images for EPOCHS epochs and run on {LABELLED_ON} for its error",
        training=True,
        paper="ACP, Chang et al., Applied Intelligence 2022",
    ),
}
"""Kind -> its facts."""


@dataclass(frozen=True)
class Fitness:
    """A kind of fitness and, of `short-training`, its epochs.

    Attributes:
        kind: one of `FITNESS`.
        epochs: of the training; 0 for the other kinds.

    Raises:
        InputError: an unknown kind, or a number of epochs that cannot be.
    """

    kind: str = JOINT_EFFECT
    epochs: int = 0

    def __post_init__(self) -> None:
        if self.kind not in FITNESS:
            raise InputError(f"no fitness {self.kind!r}: choose from {', '.join(FITNESS)}")
        if self.facts.training and self.epochs < 1:
            raise InputError(f"fitness {self}: give 1 epoch or more, such as {SHORT_TRAINING}:{EPOCHS}")
        if not self.facts.training and self.epochs:
            raise InputError(f"fitness {self.kind!r} trains nothing: leave the epochs out, or take {SHORT_TRAINING!r}")

    @classmethod
    def parse(cls, text: object) -> "Fitness":
        """Reads a kind, or `short-training:2` for two epochs.

        Raises:
            InputError: it is none.
        """
        if not isinstance(text, str):
            raise InputError(f"fitness={text!r:.60}: write it as text, one of {', '.join(FITNESS)}")
        kind, colon, number = text.partition(":")
        try:
            epochs = int(number) if colon else EPOCHS * (kind == SHORT_TRAINING)
        except ValueError:
            raise InputError(
                f"fitness {text!r}: write KIND or {SHORT_TRAINING}:EPOCHS, such as {SHORT_TRAINING}:2"
            ) from None
        if colon and kind in FITNESS and kind != SHORT_TRAINING:
            raise InputError(f"fitness {text!r}: {kind} takes no number")
        return cls(kind, epochs)

    @property
    def facts(self) -> FitnessFacts:
        """What its kind says of itself."""
        return FITNESS[self.kind]

    @property
    def cost(self) -> str:
        """Of one plan, in words."""
        return self.facts.cost.replace("EPOCHS", str(self.epochs))

    def __str__(self) -> str:
        return f"{self.kind}:{self.epochs}" if self.epochs else self.kind
