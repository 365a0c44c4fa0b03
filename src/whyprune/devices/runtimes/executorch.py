"""ExecuTorch with the kernels of XNNPACK."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from whyprune.devices.runner import Library, RefusedError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from whyprune.devices.runner import Session

BINDINGS = "executorch.extension.pybindings.portable_lib"


class ExecuTorch(Library):
    """Its Python package brings PyTorch into the process: memory says more about that than about the runtime."""

    name = "executorch"
    title = "ExecuTorch"
    format = "executorch"
    module = "executorch.runtime"
    packages = ("executorch", "torch", "numpy")
    install = "'whyprune[executorch]'"

    def load(self, path: Path, threads: int) -> Session:
        """A session on a `.pte` file.

        Raises:
            RefusedError: ExecuTorch cannot read the file, or cannot be held to so many threads.
        """
        runtime, torch, bindings = self.start(), import_module("torch"), import_module(BINDINGS)
        torch.set_num_threads(threads)
        reset = getattr(bindings, "_unsafe_reset_threadpool", None)  # the option's only name; no network runs yet
        if reset is not None and bindings._threadpool_get_thread_count() != threads:
            reset(threads)
        if reset is None or bindings._threadpool_get_thread_count() != threads:
            raise RefusedError("InputError", f"this ExecuTorch cannot be held to {threads} threads: take 1.0 or newer")
        try:
            program = runtime.Runtime.get().load_program(path)
            method = program.load_method("forward")
        except Exception as error:
            raise self.unreadable(path, error) from error

        def call(inputs: Sequence[Any]) -> list[Any]:
            return [o.numpy() for o in method.execute([torch.from_numpy(i) for i in inputs])]

        call.program = program  # type: ignore[attr-defined] # the method lives in its memory
        return call
