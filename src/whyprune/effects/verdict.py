"""From a joint effect to a verdict: how much is left of the function, in words, and what to do where nothing is.

A joint effect is held against what answers that know nothing of their sample do (`scale`): the least harm of another
sample's answer, of one constant answer and of the network with all parameters at zero. At that harm
the outputs say nothing of the inputs any more.
"""

import math

from whyprune.results import JointEffect, Level, Verdict

LEVELS: tuple[tuple[float, Level], ...] = (
    # A fiftieth of the outputs' variance: below what two trainings of one network differ by.
    (0.02, "hardly changed"),
    # ResNet-56 on CIFAR-10, of 93.4%: 92% at 0.04, 88 to 89% at 0.10, without fine-tuning.
    (0.1, "changed"),
    # The same network: 61 to 65% at 0.5, 17 to 19% from 1.2 on. Beyond three quarters little is left to be used.
    (0.75, "much changed"),
)
LOST = LEVELS[-1][0]
CHANCE = 0.2
"""Accuracy is near chance where less than this share of what the dense network has over chance is left."""
HALF_GONE = 0.5
"""Where outputs are lost and accuracy too has lost half of what it has over chance, they say the same."""
ENOUGH = 1_024
"""Calibration samples that are usual; with fewer, more may help."""


def reference_harm(another: float | None, constant: float | None, untaught: float | None = None) -> float | None:
    """The least harm of the answers that know nothing of their sample; None where the outcome has no such scale."""
    known = [h for h in (another, constant, untaught) if h is not None]
    return min(known) if known and all(math.isfinite(h) and h > 0 for h in known) else None


def level(harm: float, another: float | None, constant: float | None, untaught: float | None = None) -> Level | None:
    """How much is left of the function; None where the outcome has no scale."""
    if not math.isfinite(harm):
        return "lost"
    unit = reference_harm(another, constant, untaught)
    if unit is None:
        return None
    found: Level = next((name for below, name in LEVELS if abs(harm) < below * unit), "lost")
    return "much changed" if found == "lost" and harm < 0 else found  # less harm than none is no loss


def said_of(harm: float, another: float | None, constant: float | None, untaught: float | None = None) -> str:
    """What a joint effect means, in one sentence.

    Args:
        harm: E[Y | pruned] - E[Y], in the outcome's own units.
        another: the harm of another sample's answer.
        constant: the harm of one constant answer.
        untaught: the harm of the network's answer with all parameters at zero, if that is less.
    """
    found = level(harm, another, constant, untaught)
    if not math.isfinite(harm):
        return "Lost: the effect is not finite, so the pruned network's outputs are not."
    if found is None or another is None:
        return (
            "This outcome has no scale on these samples: answers that know nothing of their sample do no harm by it. "
            "Read the number in the outcome's own units."
        )
    way = f"{100 * harm / another:.3g}% of the way to another sample's answer"
    same = "" if constant is None else f"; at {100 * constant / another:.3g}% one constant answer for all does as well"
    if untaught is not None:
        same += f"; at {100 * untaught / another:.3g}% the network with all its parameters at zero does"
    return f"{found.capitalize()}: {way}{same}."


def verdict(
    joint: JointEffect | None,
    *,
    dense_percent: float | None = None,
    pruned_percent: float | None = None,
    chance_percent: float | None = None,
    recovered: bool = False,
    after_recovery: float | None = None,
    untrained: bool = False,
    calibration: int = ENOUGH,
    samples: str = "samples",
) -> Verdict:
    """Whether the pruned network is of use, from what was measured; unsure where nothing that was measured tells.

    Args:
        joint: the joint effect, if one was measured.
        dense_percent: top-1 accuracy of the dense network on the test data; None where it was not measured.
        pruned_percent: of the pruned one, after the last step.
        chance_percent: what always saying the commonest class would reach there.
        recovered: whether it was fine-tuned.
        after_recovery: the joint effect after that.
        untrained: whether it was pruned before training: then only what it learned afterwards can be judged.
        calibration: how many samples plans and repairs were made from.
        samples: what to call them.
    """
    if untrained:
        return _before_training(pruned_percent, chance_percent)
    gone = [] if joint is None or recovered else _lost_outputs(joint)
    left = _left(dense_percent, pruned_percent, chance_percent)
    harm = None if joint is None else after_recovery if recovered else joint.measured
    found = None if joint is None or harm is None else level(harm, joint.another, joint.constant, joint.untaught)
    by_effect = "" if joint is None or harm is None else said_of(harm, joint.another, joint.constant, joint.untaught)
    by_accuracy = "" if left is None else _accuracy_said(left, pruned_percent, chance_percent)
    near_chance = left is not None and left < CHANCE
    lost = near_chance or (found == "lost" and (left is None or left < HALF_GONE))
    if lost:
        sentences = [by_accuracy if near_chance else "", by_effect if found == "lost" else ""]
        return Verdict(
            usable=False,
            level="lost",
            sentence=" ".join(s for s in sentences if s),
            advice=_advice(recovered, calibration, samples),
        )
    if gone:
        return Verdict(
            usable=False,
            level=found,
            sentence=f"Lost: the output {', '.join(gone)}, though all outputs together are {found}. {by_effect}",
            advice=[*_advice(recovered, calibration, samples), "Or say which outputs count: outputs=..."],
        )
    if found == "lost":
        by_effect += " Accuracy is kept all the same: the outputs differ in what the classes do not depend on."
    usable = None if found is None and left is None else True
    sentence = by_effect if found is not None or left is None else by_accuracy
    return Verdict(usable=usable, level=found, sentence=sentence or "Neither effect nor accuracy was measured.")


def _before_training(top1: float | None, chance: float | None) -> Verdict:
    """A network that was pruned before training has nothing behind it to be compared with."""
    if top1 is None or chance is None:
        return Verdict(usable=None, sentence="Pruned before training; no accuracy was measured after one.")
    learned = chance < 100 and (top1 - chance) / (100 - chance) >= CHANCE
    return Verdict(
        usable=learned,
        sentence=f"Pruned before training: {top1:.2f}% after it, where always the commonest class reaches "
        f"{chance:.2f}%. There is no trained dense network to compare with.",
        advice=[]
        if learned
        else ["Train it for longer, or with another learning rate.", "Ask for less: a larger budget."],
    )


def _lost_outputs(joint: JointEffect) -> list[str]:
    """The outputs that are lost, each by its own variance, of which a constant answer is off by 1."""
    return [f"{name!r} ({harm:.3g} of its variance)" for name, harm in joint.by_output.items() if not harm < LOST]


def _left(dense: float | None, pruned: float | None, chance: float | None) -> float | None:
    """The share that is left of the accuracy over chance; None where it is not known, or there was none."""
    if dense is None or pruned is None or chance is None or dense <= chance:
        return None
    return (pruned - chance) / (dense - chance)


def _accuracy_said(left: float, pruned: float | None, chance: float | None) -> str:
    near = "Accuracy is near chance" if left < CHANCE else "Accuracy"
    return f"{near}: {pruned:.2f}%, where always the commonest class reaches {chance:.2f}%."


def _advice(recovered: bool, calibration: int, samples: str) -> list[str]:
    advice = ["Ask for less: a larger budget keeps more of the network."]
    advice.append(
        "Fine-tune it for longer." if recovered else "Fine-tune it: recovery=Recovery(...) with labelled training data."
    )
    if calibration < ENOUGH:
        advice.append(f"Give more calibration {samples}: there were {calibration:,}, about {ENOUGH:,} are usual.")
    return advice
