"""What a number of forward passes pays for: the first images, as many as the passes suffice for."""

from collections.abc import Sequence
from math import ceil

from whyprune.data.batches import Batch, cut_images
from whyprune.errors import InputError


def paid_images(
    batches: Sequence[Batch], passes: float | None, each: float, *, fewest: int = 1, work: str = ""
) -> list[Batch]:
    """As many of the first images as the passes pay for; all where their number is not bounded.

    Args:
        batches: the images.
        passes: in dense forward passes of one image; None for no bound.
        each: what one image costs, in the same.
        fewest: with fewer images there is no answer.
        work: what is done on the images, for the message, as in "gradients on".

    Raises:
        InputError: they pay for fewer images than that; the message says what would do.
    """
    if passes is None:
        return list(batches)
    count = int(passes // each)
    if count < fewest:
        images = "one image" if fewest == 1 else f"{fewest} images"
        raise InputError(
            f"{passes:g} forward passes do not pay for {f'{work} {images}'.strip()}: "
            f"give at least {ceil(fewest * each)}"
        )
    return cut_images(batches, count)[0]
