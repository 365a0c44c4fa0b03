"""Interventions on units and their effects on an outcome: single, joint, and as response curves."""
