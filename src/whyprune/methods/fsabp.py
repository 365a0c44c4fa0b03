"""FSABP: of filters that are alike one goes, layer by layer from the last to the first (Geng & Niu, 2022).

[A] A similarity coefficient from the filters' weights, channel by channel, says which go; layers are gone through
backward; batch norms are estimated again, and the network is fine-tuned, in between. [I] The coefficient
(`criteria/filter_similarity.py`), the threshold of every layer and how it meets a budget (`allocation/backward.py`).
What lies behind is cut, mended and, with `--recover-between EPOCHS`, fine-tuned before what lies in front is planned:
in three parts of the groups and not layer by layer, since every part is planned by measuring some hundred networks [I].

The causal idea: similarity says which filters may stand in for each other, but how many go is decided by interventions,
the measured error of whole deletions given all deletions behind. It would be wrong if the same similarity with
unmeasured widths (`--allocation global`) kept as much accuracy at the same budget.
"""

from whyprune.allocation.fitness import BATCH_NORM
from whyprune.methods.method import Method
from whyprune.methods.schedule import Schedule

fsabp = Method(
    name="fsabp",
    scorer="filter-similarity",
    allocation="backward",
    schedule=Schedule("backward", rounds=3),
    fitness=BATCH_NORM,
    summary="of similar filters one goes, from the last layers to the first, each as far as the measured error allows",
    paper="FSABP, Geng & Niu, Machine Learning 2022",
)
