"""PyTorch's own compiler, inductor, on an exported program."""

from __future__ import annotations

import os
import shutil
from importlib import import_module
from typing import Any

from whyprune.devices.runtimes.eager import Eager


class Compiled(Eager):
    """torch.compile with weights frozen into the code; its cold start is the compilation."""

    name = "compile"
    title = "torch.compile"

    def missing(self) -> str | None:
        """Why it cannot run here; None if it can."""
        compilers = (os.environ.get("CXX"), "g++", "clang++", "cl")
        if not any(shutil.which(c) for c in compilers if c):
            return "torch.compile needs a C++ compiler: install g++, or name one in the environment variable CXX"
        return super().missing()

    def prepared(self, torch: Any, module: Any) -> Any:
        """Compiled at its first call."""
        settings: Any = import_module("torch._inductor.config")
        settings.freezing = True
        return torch.compile(module)
