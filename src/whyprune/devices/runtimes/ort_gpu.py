"""ONNX Runtime on an NVIDIA GPU, with its CUDA kernels or with TensorRT, timed by CUDA events."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from whyprune.devices.runner import Library

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from whyprune.devices.runner import Session


class OrtCuda(Library):
    """Values stay on the GPU; PyTorch lends the stream and the events."""

    name = "ort-cuda"
    title = "ONNX Runtime with CUDA"
    format = "onnx"
    module = "onnxruntime"
    packages = ("onnxruntime-gpu", "torch", "numpy")
    install = "onnxruntime-gpu"
    provider = "CUDAExecutionProvider"
    place = "gpu"

    def missing(self) -> str | None:
        """Why it cannot run here; None if it can."""
        reason = super().missing()
        if reason:
            return reason
        if self.provider not in import_module("onnxruntime").get_available_providers():
            return f"this ONNX Runtime has no {self.provider}: pip install {self.install} in place of onnxruntime"
        if not import_module("torch").cuda.is_available():
            return "no GPU with CUDA is visible to PyTorch, whose events time it: install a build of torch with CUDA"
        return None

    def load(self, path: Path, threads: int) -> Session:
        """A session on one file.

        Raises:
            RefusedError: ONNX Runtime cannot read the file.
        """
        runtime, torch = self.start(), import_module("torch")
        options = runtime.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = threads, 4
        on_stream = {"device_id": 0, "user_compute_stream": str(torch.cuda.current_stream().cuda_stream)}
        names = dict.fromkeys((self.provider, "CUDAExecutionProvider"))
        try:
            session = runtime.InferenceSession(str(path), options, providers=[(name, on_stream) for name in names])
        except Exception as error:
            raise self.unreadable(path, error) from error
        if self.provider not in session.get_providers():
            raise self.unreadable(path, f"{self.provider} does not start on this machine")
        return _Bound(runtime, torch, session)


class OrtTensorRt(OrtCuda):
    """TensorRT where it has the operation, CUDA kernels elsewhere; its cold start builds the engine."""

    name = "ort-tensorrt"
    title = "ONNX Runtime with TensorRT"
    install = "onnxruntime-gpu tensorrt"
    provider = "TensorrtExecutionProvider"


class _Bound:
    def __init__(self, runtime: Any, torch: Any, session: Any) -> None:
        self.runtime, self.torch, self.session = runtime, torch, session
        self.inputs = len(session.get_inputs())
        self.host: list[Any] = []
        self.binding: Any = None

    def __call__(self, inputs: Sequence[Any]) -> list[Any]:
        names = [i.name for i in self.session.get_inputs()]
        return list(self.session.run(None, dict(zip(names, inputs, strict=True))))

    def time_ms(self, inputs: Sequence[Any]) -> float:
        self._bind(inputs)
        start, end = (self.torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        self.session.run_with_iobinding(self.binding)
        end.record()
        end.synchronize()
        return float(start.elapsed_time(end))

    def _bind(self, inputs: Sequence[Any]) -> None:
        """Inputs and outputs on the GPU, bound anew when the inputs are other arrays than before."""
        if len(self.host) == len(inputs) and all(a is b for a, b in zip(self.host, inputs, strict=True)):
            return
        self.host, self.binding = list(inputs), self.session.io_binding()
        for argument, value in zip(self.session.get_inputs(), inputs, strict=True):
            there = self.runtime.OrtValue.ortvalue_from_numpy(value, "cuda", 0)
            self.binding.bind_ortvalue_input(argument.name, there)
        for result in self.session.get_outputs():
            self.binding.bind_output(result.name, "cuda", 0)
