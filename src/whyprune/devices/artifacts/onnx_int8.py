"""Static quantisation to eight bits with ONNX Runtime: weights per channel, activations from calibration images.

Signed on both sides, as quantise and dequantise operations around each operator (QDQ), which ONNX Runtime recommends
for CPUs; the ranges of activations are their least and largest values on the images.
"""

import os
import tempfile
from collections.abc import Iterable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from whyprune.atomic import atomic_file
from whyprune.data.batches import Batch
from whyprune.devices.artifacts.onnx import check_onnx
from whyprune.devices.quiet import cause, silence
from whyprune.errors import FormatError, InputError, MissingDependencyError


def quantize_onnx(source: str | os.PathLike[str], target: str | os.PathLike[str], calibration: Iterable[Batch]) -> None:
    """Writes an ONNX file with weights and activations of eight bits.

    Args:
        source: the file in single precision.
        target: the file to write.
        calibration: inputs, a few hundred images as the network will see; labels play no part.

    Raises:
        MissingDependencyError: the extra `onnx` is not installed.
        InputError: no images, or images that do not fit the file.
        FormatError: the source cannot be read or quantised.
    """
    check_onnx(Path(source))
    try:
        quantization = import_module("onnxruntime.quantization")
        shapes = import_module("onnxruntime.quantization.shape_inference")
    except ImportError as error:
        raise MissingDependencyError(f"quantisation needs {error.name}: pip install 'whyprune[onnx]'") from error
    with atomic_file(target) as temporary, tempfile.TemporaryDirectory() as folder, silence():
        prepared = Path(folder, "prepared.onnx")
        reader = _Reader(source, calibration)
        try:
            shapes.quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
            quantization.quantize_static(
                str(prepared),
                str(temporary),
                reader,
                per_channel=True,
                activation_type=quantization.QuantType.QInt8,
                weight_type=quantization.QuantType.QInt8,
            )
        except InputError:
            raise
        except Exception as error:
            raise FormatError(f"{source} cannot be quantised: {cause(error)}") from error


class _Reader:
    """Feeds the calibration images, as ONNX Runtime asks for them."""

    def __init__(self, source: str | os.PathLike[str], batches: Iterable[Batch]) -> None:
        session = import_module("onnxruntime").InferenceSession(str(source), providers=["CPUExecutionProvider"])
        self.names = [i.name for i in session.get_inputs()]
        self.feeds = self._all(batches)
        self.first = next(self.feeds, None)
        if self.first is None:
            raise InputError("no images to calibrate on: give at least one batch, better a few hundred images")

    def _all(self, batches: Iterable[Batch]) -> Iterator[dict[str, Any]]:
        for batch in batches:
            values = [t.detach().cpu().numpy() for t in batch.tensors()]
            if len(values) != len(self.names):
                raise InputError(f"a calibration batch holds {len(values)} inputs, the network takes {len(self.names)}")
            yield dict(zip(self.names, values, strict=True))

    def get_next(self) -> dict[str, Any] | None:
        """The next inputs by name; None at the end."""
        first, self.first = self.first, None
        return first if first is not None else next(self.feeds, None)
