"""`causal-acp`: ACP's particle swarm (Chang et al., 2022), from the plan of measured curves on, led by their slopes.

The causal idea [I]: how much a group can lose is measured by intervening on whole widths, so the search starts there,
leans towards widths whose next unit is cheap in measured effect per saved cost, and judges plans by their measured
joint effect, which costs a thousandth of a short training. It would be wrong if, with as many plans and the same
repair, ACP's start from clusters or its trained fitness ended at more accurate networks, or the curves' plan did as
well.

Which units go within a group is decided by the curves' elimination order: a curve is the effect of widths in exactly
that order, whereas clusters of maps or of effect profiles would say how many units are alike and leave the order open.
"""

from whyprune.methods.method import Method

causal_acp = Method(
    name="causal-acp",
    scorer="curves",
    allocation="informed-swarm",
    summary="a particle swarm from the plan of measured response curves on, led by their slopes; each plan measured by "
    "its joint effect",
    guarantee="no worse than the plan along the curves, on the images that plans are measured on",
    paper="after Chang et al., Applied Intelligence 2022",
)
