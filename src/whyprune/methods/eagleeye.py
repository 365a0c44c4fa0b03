"""EagleEye: random ratios on the budget's edge, ranked by accuracy after adaptive batch norm (Li et al., ECCV 2020).

[C] Filters of least L1 norm go, at layer ratios drawn from [0, 0.7]; batch norms are estimated again on 100 training
batches, and the accuracy on images apart from the test ranks the candidates, of which there are about 1,000; the best
one is fine-tuned. Ours [I]: as many candidates as a quarter of an hour allows on a small network, and 320 calibration
images for batch norm, 256 others for the error (`allocation/fitness.py`).
"""

from whyprune.allocation.fitness import BATCH_NORM
from whyprune.methods.method import Method

eagleeye = Method(
    name="eagleeye",
    scorer="magnitude-l1",
    allocation="random-ratios",
    fitness=BATCH_NORM,
    summary="random ratios on the budget's edge; the least error after batch-norm re-estimation wins",
    paper="EagleEye, Li et al., ECCV 2020",
)
