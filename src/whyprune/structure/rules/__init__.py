"""One small rule per ATen operation: how it carries channel labels from its inputs to its output.

A rule is a function `(ctx, node, args) -> Axes | tuple[Axes, ...]`, registered by operation name; in-place
and overloaded variants share it. To support an operation, add a function with `@rule("name")` to a file here.
An operation without a rule is not guessed at: `propagate` pins its inputs, with its name as the reason.
"""

import importlib
import pkgutil

from whyprune.structure.rules.base import Context, Reader, WidthSite, known_operations, propagate, rule

for _module in pkgutil.iter_modules(__path__):
    if _module.name != "base":
        importlib.import_module(f"{__name__}.{_module.name}")

__all__ = ["Context", "Reader", "WidthSite", "known_operations", "propagate", "rule"]
