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
        request = compiled.create_infer_request()

        def call(inputs: Sequence[Any]) -> list[Any]:
            return list(request.infer(list(inputs)).to_tuple())

        call.inputs = len(compiled.inputs)  # type: ignore[attr-defined]
        return call
