"""One small rule per ATen operation: how it carries channel labels from its inputs to its output.

A rule is a function `(ctx, node, args) -> Labellings | list[Labellings]`, registered by operation name; in-place and
overloaded variants share it. To support an operation, add a function with `@rule("name")` to a file here.
Operations that torch tags as pointwise need none. An operation without a rule is not guessed at: `propagate` pins
its inputs, with its name as the reason.
"""

import importlib
import pkgutil

from whyprune.structure.rules.base import ChannelCount, Context, Meeting, Reading, Rectangle, known_operations, rule
from whyprune.structure.rules.propagate import propagate

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")

__all__ = ["ChannelCount", "Context", "Meeting", "Reading", "Rectangle", "known_operations", "propagate", "rule"]
