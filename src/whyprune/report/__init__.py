"""Explains a run to a person: one self-contained page."""

from whyprune.report.page import render, write_report
from whyprune.report.rows import UnitRow

__all__ = ["UnitRow", "render", "write_report"]
