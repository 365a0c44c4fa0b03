"""The methods that plan in rounds, with other steps and repairs."""

from dataclasses import replace

from whyprune.methods import Method, method_named


def in_rounds(name: str = "causal", *, step: float | None = None, repair: str = "refit") -> Method:
    """A method in rounds, of widths only."""
    method = method_named(name)
    schedule = method.schedule if step is None else replace(method.schedule, step=step)
    return replace(method, schedule=schedule, repair=repair, kinds=("width",))
