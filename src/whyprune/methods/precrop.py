"""PreCrop: widths from the architecture alone; for a trained network the norm of its weights says which units stay.

Cai et al., arXiv 2203.02549. Before training all channels are alike, and any order serves.
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
