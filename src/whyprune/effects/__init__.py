"""What harm is, and what a removal does: outcomes, effects, joint effects, certificates."""
