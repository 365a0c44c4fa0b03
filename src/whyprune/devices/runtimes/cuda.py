"""PyTorch on an NVIDIA GPU, timed by CUDA events."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from whyprune.devices.runtimes.eager import Eager

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from whyprune.devices.runner import Session


class Cuda(Eager):
    """Times are those of the GPU's work; inputs lie there already, as outputs do afterwards."""

    name = "cuda"
    title = "PyTorch with CUDA"
    place = "gpu"

    def missing(self) -> str | None:
        """Why it cannot run here; None if it can."""
        reason = super().missing()
        if reason is None and not import_module("torch").cuda.is_available():
            return "no GPU with CUDA is visible to PyTorch: install a driver and a build of torch with CUDA"
        return reason

    def load(self, path: Path, threads: int) -> Session:
        """A session on a program.

        Raises:
            RefusedError: PyTorch cannot read the file.
        """
        torch = self.start()
        torch.set_num_threads(threads)
        passes: Any = import_module("torch.export.passes")
        module = passes.move_to_device_pass(self.program(torch, path), "cuda").module(check_guards=False)
        return _OnGpu(torch, module)


class _OnGpu:
    def __init__(self, torch: Any, module: Any) -> None:
        self.torch, self.module = torch, module
        self.host: list[Any] = []
        self.inputs_there: list[Any] = []

    def __call__(self, inputs: Sequence[Any]) -> list[Any]:
        there = self._there(inputs)
        with self.torch.inference_mode():
            return [o.cpu().numpy() for o in self.module(*there)]

    def time_ms(self, inputs: Sequence[Any]) -> float:
        there = self._there(inputs)
        start, end = (self.torch.cuda.Event(enable_timing=True) for _ in range(2))
        with self.torch.inference_mode():
            start.record()
            self.module(*there)
            end.record()
        end.synchronize()
        return float(start.elapsed_time(end))

    def _there(self, inputs: Sequence[Any]) -> list[Any]:
        """The inputs on the GPU, copied when they are other arrays than before."""
        if len(self.host) != len(inputs) or any(a is not b for a, b in zip(self.host, inputs, strict=True)):
            self.host = list(inputs)
            self.inputs_there = [self.torch.from_numpy(i).cuda() for i in inputs]
        return self.inputs_there
