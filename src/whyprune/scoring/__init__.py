"""Scorers by name: criteria, estimators and response curves behind one contract."""
