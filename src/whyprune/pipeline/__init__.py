"""The steps of `prune`, and what they share."""
