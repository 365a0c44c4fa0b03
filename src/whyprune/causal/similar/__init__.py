"""Filter similarity with causal insight: similar filters are asked by joint interventions."""
