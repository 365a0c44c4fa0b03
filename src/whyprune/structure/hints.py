"""The way out that goes with a reason: for channels that are kept whole, and for code that cannot be captured."""

from collections import defaultdict
from collections.abc import Iterable

from whyprune.structure.units import Refusal

BY_NATURE = ("input", "output")
"""Places whose channels are nobody's fault."""
MOST_REASONS = 3

FREEING = (
    (("fake_quant", "quantize"), "prune the float model first, then quantise or prepare the pruned one"),
    (
        ("parametrizations.",),
        "take the parametrisation off before pruning (torch.nn.utils.parametrize.remove_parametrizations) and put it "
        "on again afterwards",
    ),
    (("no rule for",), "write that line with operations that have a rule, or keep the layer"),
    (
        ("names a width as the constant", "cannot follow a removal"),
        "let the code take the width from a shape or an attribute, such as x.flatten(1) for x.view(-1, 64)",
    ),
    (("used as indices", "constant index"), "channels that are indexed by number keep their places"),
    (("repeated a fixed number",), "let the number of repeats follow from a shape"),
    (("normalised by a constant", "scaled by a constant"), "make the constant a parameter or a buffer of the module"),
    (("unequal size",), "cut channels into equal parts, or give every part a layer of its own"),
)
"""Words of a place or a reason -> what a user can do; the first that fits counts."""

CAPTURING = (
    (
        ("ScriptModule", "torch.jit", "__torch__"),
        "a part of it is TorchScript: give the nn.Module that it was made from",
    ),
    (
        ("fake impl", "Meta tensors", "abstract impl"),
        "an operator of your own needs a shape function: torch.library.register_fake",
    ),
    (("same device", "two devices", "multiple devices"), "put the whole model and the example inputs on one device"),
    (("quantized", "qint8", "quint8"), "prune the float model first, then quantise the pruned one"),
)
ON_VALUES = "make that line depend on shapes only, not on values of tensors"


def freeing(refusal: Refusal) -> str:
    """What a user can do about channels that are kept whole; "" where that is as it should be."""
    if refusal.where in BY_NATURE:
        return ""
    text = f"{refusal.where} {refusal.reason}"
    return next((hint for words, hint in FREEING if any(word in text for word in words)), "")


def capturing(error: str) -> str:
    """What a user can do about an error of the capture."""
    return next((hint for words, hint in CAPTURING if any(word in error for word in words)), ON_VALUES)


def kept_because(refusals: Iterable[Refusal]) -> str:
    """The reasons why channels are kept whole, those of most channels first, each with the way out; "" without any."""
    groups: dict[str, list[Refusal]] = defaultdict(list)
    for refusal in refusals:
        if refusal.where not in BY_NATURE:
            groups[refusal.reason].append(refusal)
    ranked = sorted(groups.items(), key=lambda item: -sum(r.channels for r in item[1]))
    parts = [_sentence(reason, places) for reason, places in ranked[:MOST_REASONS]]
    if len(ranked) > MOST_REASONS:
        parts.append(f"{len(ranked) - MOST_REASONS} more reasons (see network.refusals)")
    return "; ".join(parts)


def _sentence(reason: str, refusals: list[Refusal]) -> str:
    more = f" and {len(refusals) - 1} more places" if len(refusals) > 1 else ""
    hint = freeing(refusals[0])
    said = f"{sum(r.channels for r in refusals)} channels at {refusals[0].where}{more}: {reason}"
    return f"{said} ({hint})" if hint else said
