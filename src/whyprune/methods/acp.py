"""ACP: DBSCAN on average feature maps suggests widths, a particle swarm searches around them (Chang et al., 2022).

[C] The fitness is the accuracy after three epochs of training, with pretrained weights in place, on test images. Here
it is the error after three epochs on calibration images, on others of them: `short-training` (`allocation/fitness.py`
has the numbers, chosen for the time that a search may take [I]). No search sees images of the test or of the audit.
"""

from whyprune.allocation.fitness import SHORT_TRAINING
from whyprune.methods.method import Method

acp = Method(
    name="acp",
    scorer="feature-density",
    allocation="particle-swarm",
    fitness=SHORT_TRAINING,
    summary="DBSCAN on average feature maps suggests widths, a particle swarm searches around them, each plan measured",
    causal="causal-acp",
)
