"""PyTorch without a compiler: an exported program, run operation by operation."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from whyprune.devices.runner import Library

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from whyprune.devices.runner import Session


class Eager(Library):
    """PyTorch's own kernels. The program has no `nn.Module`s around its operations, which a call of the model has."""

    name = "torch"
    title = "PyTorch"
    format = "torch-export"
    module = "torch"
    packages = ("torch", "numpy")
    install = "torch"

    def load(self, path: Path, threads: int) -> Session:
        """A session on a program.

        Raises:
            RefusedError: PyTorch cannot read the file.
        """
        torch = self.start()
        torch.set_num_threads(threads)
        module = self.prepared(torch, self.program(torch, path).module(check_guards=False))

        def call(inputs: Sequence[Any]) -> list[Any]:
            with torch.inference_mode():
                outputs = module(*[torch.from_numpy(i) for i in inputs])
            return [o.numpy() for o in outputs]

        return call

    def start(self) -> Any:
        """Imports it, with what reads programs: imports are no part of a cold start."""
        torch = super().start()
        import_module("torch.export.passes")
        import_module("torch._export.serde.serialize")
        return torch

    def program(self, torch: Any, path: Path) -> Any:
        """The file's `ExportedProgram`."""
        try:
            return torch.export.load(path)
        except Exception as error:
            raise self.unreadable(path, error) from error

    def prepared(self, torch: Any, module: Any) -> Any:  # noqa: ARG002 - for variants of this runtime
        """The module that is called."""
        return module
