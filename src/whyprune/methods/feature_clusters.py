"""Feature-map clustering: one unit of every cluster stays, as far as the budget allows (Wu et al., 2022).

`causal-feature-clusters` is the same with clusters of effect profiles; `causal/feature_clusters` says what the idea is,
and what would show it wrong. In both, `--repair merge` gives the outgoing weights of units that go to those that stay.
"""

from whyprune.methods.method import Method

feature_clusters = Method(
    name="feature-clusters",
    scorer="feature-clusters",
    allocation="natural-widths",
    summary="hierarchical clustering of feature maps; the silhouette says how many units of a group are distinct",
    causal="causal-feature-clusters",
)
causal_feature_clusters = Method(
    name="causal-feature-clusters",
    scorer="causal-feature-clusters",
    allocation="natural-widths",
    summary="hierarchical clustering of effect profiles, per image and class; the silhouette says how many units of a "
    "group do something of their own",
)
