"""Closing the labels: unions that follow only once all operations are known.

A tensor whose channels are spread over several dimensions stays rectangular only if whole indices of one of them
go. Where the network's operations leave a choice, the one with the most units is taken.
"""

import numpy as np
import torch
from torch import Tensor

from whyprune.structure.labels import LabelSpace, distinct, support, together, varies
from whyprune.structure.rules import Context, Meeting, Rectangle


def close(ctx: Context) -> None:
    """Adds unions and pins until every tensor can lose any units and stay rectangular."""
    while _close_rectangles(ctx.space, ctx.rectangles):
        pass
    for meeting in ctx.meetings:
        _settle(ctx.space, meeting)
        while _close_rectangles(ctx.space, ctx.rectangles):
            pass
    ctx.meetings.clear()


def _close_rectangles(space: LabelSpace, rectangles: list[Rectangle]) -> bool:
    """Settles what has one way only, or else the first choice; whether anything was united."""
    choice: tuple[Rectangle, int] | None = None
    forced = False
    for rectangle in list(rectangles):
        roots = space.roots(rectangle.labelling)
        if not rectangle.dims:
            space.pin(rectangle.labelling, rectangle.where, rectangle.reason)
            rectangles.remove(rectangle)
            continue
        if any(not varies(roots, support(roots) - {dim}) for dim in rectangle.dims):
            continue
        if len(rectangle.dims) == 1:
            forced = True
            _along(space, rectangles, rectangle, next(iter(rectangle.dims)))
        elif choice is None:
            choice = rectangle, max(sorted(rectangle.dims), key=lambda d: _units(roots, d))
    if not forced and choice is not None:
        _along(space, rectangles, *choice)
    return forced or choice is not None


def _along(space: LabelSpace, rectangles: list[Rectangle], rectangle: Rectangle, dim: int) -> None:
    """Settles a rectangle for good: classes only grow, and values that are no channels never come to look alike."""
    rectangles.remove(rectangle)
    space.tie(rectangle.labelling, support(rectangle.labelling) - {dim}, rectangle.where)


def _units(roots: Tensor, dim: int) -> int:
    """How many classes are left when all that share an index of `dim` are united."""
    rows = roots.movedim(dim, 0).reshape(roots.shape[dim], -1)
    merged = LabelSpace()
    classes, inverse = np.unique(rows.numpy(), return_inverse=True)
    compact = torch.from_numpy(inverse.reshape(rows.shape))
    merged.fresh(len(classes))
    merged.tie(compact, (1,), "")
    return len(distinct(merged.roots(compact)))


def _settle(space: LabelSpace, meeting: Meeting) -> None:
    """A vector that meets spread channels goes with them, or stays where they go along another dimension."""
    roots = space.roots(meeting.spread)
    if varies(roots, support(meeting.narrow)):
        left, right = together(meeting.spread, meeting.narrow)
        space.unite(left, right)
        reason = "they meet values that are no known channels"
        space.pin(left[right < 0], meeting.where, reason)
        space.pin(right[left < 0], meeting.where, reason)
    else:
        space.pin(meeting.narrow, meeting.where, "the channels it meets go along another dimension")
