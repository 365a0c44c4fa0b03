"""ACP: DBSCAN on average feature maps suggests widths, a particle swarm searches around them (Chang et al., 2022).

The authors' fitness is the accuracy after three epochs of training, on test images; here it is the joint effect after a
refit, on images of the run.
"""

from whyprune.methods.method import Method

acp = Method(
    name="acp",
    scorer="feature-density",
    allocation="particle-swarm",
    summary="DBSCAN on average feature maps suggests widths, a particle swarm searches around them, each plan measured",
)
