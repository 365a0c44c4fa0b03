"""OpenVINO on the CPU."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from whyprune.devices.runner import Library

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from whyprune.devices.runner import Session


class OpenVino(Library):
    """In single precision: left to itself it takes bfloat16 where the CPU has it, and gives other outputs."""

    name = "openvino"
    title = "OpenVINO"
    format = "openvino"
    module = "openvino"
    packages = ("openvino", "numpy")
    install = "'whyprune[openvino]'"

    def load(self, path: Path, threads: int) -> Session:
        """A session on an `.xml` file with its `.bin` beside it.

        Raises:
            RefusedError: OpenVINO cannot read the files.
        """
        openvino = self.start()
        settings = {
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            "INFERENCE_PRECISION_HINT": "f32",
            "ENABLE_CPU_PINNING": False,  # which cores is the caller's to say
        }
        try:
            compiled = openvino.Core().compile_model(str(path), "CPU", settings)
        except RuntimeError as error:
            raise self.unreadable(path, error) from error
        return _Request(openvino.Tensor, compiled)


class _Request:
    """One request whose inputs are read where they lie, as ONNX Runtime and OpenVINO's own tool do."""

    def __init__(self, tensor: Any, compiled: Any) -> None:
        self.tensor, self.request, self.inputs = tensor, compiled.create_infer_request(), len(compiled.inputs)
        self.outputs = range(len(compiled.outputs))
        self.bound: list[Any] = []

    def __call__(self, inputs: Sequence[Any]) -> list[Any]:
        if len(self.bound) != len(inputs) or any(a is not b for a, b in zip(self.bound, inputs, strict=True)):
            self.bound = list(inputs)
            for i, value in enumerate(inputs):
                self.request.set_input_tensor(i, self.tensor(value, shared_memory=True))
        self.request.infer(share_outputs=True)
        return [self.request.get_output_tensor(i).data.copy() for i in self.outputs]
