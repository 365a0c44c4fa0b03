"""`conditional`: rounds of conditional, unique effects: what none of those that stay can carry, given what is gone [I].

Before the last round only units go whose place is settled: the interval of their effect lies below that of every unit
that would stay. At least half of a round's units go all the same, so that rounds come to an end.
"""

from whyprune.methods.method import Method
from whyprune.methods.schedule import Schedule

conditional = Method(
    name="conditional",
    scorer="exact",
    allocation="global",
    schedule=Schedule("geometric", step=1.25, certain=True),
    intervention="carried",
    images=64,  # a round is one of many, and what is not settled on these is measured again
    summary="rounds of effects under `carried`, each given what is gone; units whose place is settled go, the rest is "
    "measured again",
    guarantee="95% intervals decide what is settled; at least half of a round goes all the same; joint effect as for "
    "`causal`",
)
