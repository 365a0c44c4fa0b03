"""HALP: a knapsack of first-order importance under a latency budget that falls in rounds (Shen et al., NeurIPS 2022).

[C] Importance behind the normalisations (`criteria/taylor_bn.py`), units bundled by the steps of the latency, as much
importance as fits (`allocation/halp.py`), a budget that falls exponentially over 30 rounds with 40 training steps
each. [I] Six rounds: one of ours judges anew and refits the whole network in closed form, which takes as long as
hundreds of steps, and between two of them the cost falls by no more than an eighth at half the budget; 30 are an option
away (`--schedule exponential:30`), and so is training in between (`--recover-between EPOCHS`). The importance is judged
on 256 images a round, the paper's 40 batches being for the training's sake. The budget is on latency with `--device X
--budget latency=0.7`, or on any other cost. The paper's loss is `--outcome cross-entropy`; the default needs no labels.

The causal idea: what a unit adds is judged by an intervention to first order, and what it costs by the device, both on
the network as it is by then. That first order would be the wrong judge if measured effects in its place (`--scorer
exact`), packed by the same knapsack, kept more accuracy.
"""

from whyprune.methods.method import Method
from whyprune.methods.schedule import Schedule

halp = Method(
    name="halp",
    scorer="taylor-bn",
    allocation="halp",
    schedule=Schedule("exponential", rounds=6),
    images=256,
    summary="rounds of a knapsack: as much first-order importance as fits, in bundles as large as the cost's steps",
    paper="HALP, Shen et al., NeurIPS 2022",
)
