"""Scripts behind the published numbers; their records are in `results/`."""
