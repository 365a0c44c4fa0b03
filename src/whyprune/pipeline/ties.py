"""What scores do not tell: groups all of whose units are scored alike, of which a plan takes some all the same."""

from collections.abc import Collection

import numpy as np

from whyprune.effects.effects import Effects

FEWEST = 3
"""Units of a group from which on equal scores say that a criterion is blind, and not that two units are copies."""


def said_of_ties(effects: Effects, scorer: str, gone: Collection[str]) -> str:
    """A sentence that names the groups in which the order of units decided which of them go; empty for none.

    Args:
        effects: scores of a criterion; anything else has no ties to speak of.
        scorer: who gave them.
        gone: units that a plan takes.
    """
    if effects.estimand != "score":
        return ""
    groups, lost = np.array(effects.groups), np.isin(effects.units, list(gone))
    blind = []
    for name in dict.fromkeys(effects.groups):
        own = groups == name
        if own.sum() >= FEWEST and 0 < lost[own].sum() < own.sum() and np.ptp(effects.mean[own]) == 0:
            blind.append(f"{name} ({own.sum()} units)")
    if not blind:
        return ""
    listed = ", ".join(blind[:3]) + (f" and {len(blind) - 3} other groups" if len(blind) > 3 else "")
    return f"{scorer!r} gives all units of {listed} one score: which of them go was decided by their order alone."
