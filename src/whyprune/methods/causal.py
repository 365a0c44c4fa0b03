"""`causal`: rounds of measured response curves, removal and repair, each conditional on what is already gone [I].

Effects of groups do not add up, and single effects are blind to units that stand in for each other. So effects of whole
widths are measured on the network as repaired so far, a part of the way to the budget is planned from them, removed and
repaired, and the joint effect is measured on images that the plan was not made from.
"""

from whyprune.methods.method import Method
from whyprune.methods.schedule import Schedule

causal = Method(
    name="causal",
    scorer="curves",
    allocation="curves",
    schedule=Schedule("geometric", step=2.0),
    kinds=("width", "block"),
    summary="rounds of response curves, removal and repair, each conditional on what is gone",
    guarantee="predicted and measured joint effect side by side; a last round that disagrees is planned again",
)
