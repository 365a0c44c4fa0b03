"""What lies around a run: names to networks and data, result folders, places to write to."""
