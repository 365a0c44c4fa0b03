"""PreCrop and PreConfig: widths from the architecture alone; of a trained network small norms go.

Cai et al., arXiv 2203.02549. [P] Both are for networks before training (`Settings(untrained=True)`), whose channels are
alike: any order serves, and the cropped network is trained from scratch. [I] For a trained network the norm of its
weights says which units stay; PreConfig then widens by copies that leave the function the same.
"""

from whyprune.methods.method import Method

PAPER = "Cai et al., arXiv 2203.02549"
GUARANTEE = "widths depend on the architecture and the budget alone"
precrop = Method(
    name="precrop",
    scorer="magnitude-l2",
    allocation="precrop",
    summary="widths by water-filling over layers, from the architecture alone; the smallest norms go",
    guarantee=GUARANTEE,
    paper=PAPER,
)
precrop_gp = Method(
    name="precrop-gp",
    scorer="magnitude-l2",
    allocation="precrop-gp",
    summary="widths by a geometric program that keeps residual ties, from the architecture alone; small norms go",
    guarantee=GUARANTEE,
    paper=PAPER,
)
preconfig = Method(
    name="preconfig",
    scorer="magnitude-l2",
    allocation="preconfig",
    summary="widths by PreCrop's geometric program in which layers may get wider too; then the smallest norms go",
    guarantee=GUARANTEE,
    paper=PAPER,
)
