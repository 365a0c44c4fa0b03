"""An ONNX file as a callable, for accuracy and comparisons."""

import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from whyprune.data.outputs import tensors_of
from whyprune.devices.artifacts.onnx import check_onnx
from whyprune.devices.runner import RUNTIMES, RefusedError, first_outputs
from whyprune.errors import FormatError, VerificationError


class OnnxNetwork:
    """Runs a file in ONNX Runtime: `accuracy(OnnxNetwork("model.onnx"), batches)`.

    Args:
        path: the file.
        threads: of ONNX Runtime.

    Raises:
        FormatError: the file cannot be read, or must not be.
    """

    def __init__(self, path: str | os.PathLike[str], threads: int = 1) -> None:
        self.path = Path(path)
        check_onnx(self.path)
        try:
            self._session = RUNTIMES["ort"].load(self.path, threads)
        except RefusedError as error:
            raise FormatError(str(error)) from error

    def __call__(self, *args: Any, **kwargs: Any) -> Tensor | tuple[Tensor, ...]:
        """The outputs for tensors, in the order of the file's inputs; one tensor if there is one output.

        Raises:
            VerificationError: the outputs are not finite, or the inputs do not fit the file.
        """
        inputs = [t.detach().cpu().numpy() for t in tensors_of([*args, *kwargs.values()])]
        try:
            outputs = [torch.from_numpy(o) for o in first_outputs(self.path.stem, self._session, inputs)]
        except RefusedError as error:
            raise VerificationError(str(error)) from error
        return outputs[0] if len(outputs) == 1 else tuple(outputs)
