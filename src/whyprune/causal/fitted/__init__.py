"""Models that are fitted to runs of a network, of which some may be interventions; most need the extra `causal`."""
