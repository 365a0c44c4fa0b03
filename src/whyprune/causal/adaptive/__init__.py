"""Exact effects of the few units on which a decision hangs, and good guesses of all others."""
