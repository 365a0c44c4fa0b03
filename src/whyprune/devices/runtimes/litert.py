"""LiteRT, once TensorFlow Lite."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from whyprune.devices.runner import Library

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from whyprune.devices.runner import Session


class LiteRt(Library):
    """The interpreter, with the delegate to XNNPACK that it takes by itself."""

    name = "litert"
    title = "LiteRT"
    format = "litert"
    module = "ai_edge_litert.interpreter"
    packages = ("ai-edge-litert", "numpy")
    install = "'whyprune[litert]'"

    def load(self, path: Path, threads: int) -> Session:
        """A session on a `.tflite` file.

        Raises:
            RefusedError: LiteRT cannot read the file.
        """
        library = self.start()
        try:
            interpreter = library.Interpreter(model_path=str(path), num_threads=threads)
            interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            raise self.unreadable(path, error) from error
        inputs_at, outputs_at = _indices(interpreter)

        def call(inputs: Sequence[Any]) -> list[Any]:
            for index, value in zip(inputs_at, inputs, strict=True):
                interpreter.set_tensor(index, value)
            interpreter.invoke()
            return [interpreter.get_tensor(index) for index in outputs_at]

        call.inputs = len(inputs_at)  # type: ignore[attr-defined]
        return call


def _indices(interpreter: Any) -> tuple[list[int], list[int]]:
    """Where inputs and outputs lie, in the network's order: the signature numbers them, `args_0`, `output_0`, ..."""
    if not interpreter.get_signature_list():
        details = interpreter.get_input_details(), interpreter.get_output_details()
        return [d["index"] for d in details[0]], [d["index"] for d in details[1]]
    signature = interpreter.get_signature_runner()

    def ordered(named: dict[str, dict[str, Any]]) -> list[int]:
        return [named[n]["index"] for n in sorted(named, key=lambda n: int("0" + "".join(filter(str.isdigit, n))))]

    return ordered(signature.get_input_details()), ordered(signature.get_output_details())
