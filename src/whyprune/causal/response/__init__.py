"""Harm by width: response curves of groups, and whole blocks that go, measured with the next layers refitted."""
