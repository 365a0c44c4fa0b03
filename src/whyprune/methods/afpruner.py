"""AFPruner: of similar feature maps one goes, a genetic search says how many of every group (Xue et al., 2024).

The fitness could not be had. Ours [I] is the error after batch-norm re-estimation, as EagleEye has it, on calibration
images: the search never sees images of the test or of the audit.
"""

from whyprune.allocation.fitness import BATCH_NORM
from whyprune.methods.method import Method

afpruner = Method(
    name="afpruner",
    scorer="feature-similarity",
    allocation="genetic",
    fitness=BATCH_NORM,
    summary="of similar average feature maps one goes; a genetic search over ratios, each plan measured",
    causal="causal-afpruner",
)
