"""The command line: `whyprune prune`, `inspect`, `evaluate`, `export`, `report`, `demo`."""

from whyprune.cli.app import app, main

__all__ = ["app", "main"]
