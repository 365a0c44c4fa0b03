"""AFPruner: of similar feature maps one goes, a genetic search says how many of every group (Xue et al., 2024)."""

from whyprune.methods.method import Method

afpruner = Method(
    name="afpruner",
    scorer="feature-similarity",
    allocation="genetic",
    summary="of similar average feature maps one goes; a genetic search over ratios, each plan measured",
)
