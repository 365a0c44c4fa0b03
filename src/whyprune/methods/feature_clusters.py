"""Feature-map clustering: one unit of every cluster stays, as far as the budget allows (Wu et al., 2022)."""

from whyprune.methods.method import Method

feature_clusters = Method(
    name="feature-clusters",
    scorer="feature-clusters",
    allocation="natural-widths",
    summary="hierarchical clustering of feature maps; the silhouette says how many units of a group are distinct",
)
