"""`causal-afpruner`: AFPruner's genetic search (Xue et al., 2024), with a first population and mutations from curves.

The causal idea [I]: ratios are bred from what interventions on whole widths do, not from how alike maps are: the first
population is the curves' plan and those along curves that are off, mutations lean towards units that are cheap in
measured effect per saved cost, and a plan's fitness is its measured joint effect. It would be wrong if, with as many
plans and the same repair, similar maps and blind mutation ended at more accurate networks, or the curves' plan did as
well.

Which units go within a group is decided by the curves' elimination order, as in `causal-acp`.
"""

from whyprune.methods.method import Method

causal_afpruner = Method(
    name="causal-afpruner",
    scorer="curves",
    allocation="informed-genetic",
    summary="a genetic search whose first population and mutations come from measured response curves; each plan "
    "measured by its joint effect",
    guarantee="no worse than the plan along the curves, on the images that plans are measured on",
    paper="after Xue et al., Applied Intelligence 2024",
)
