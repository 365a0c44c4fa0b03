"""ncnn on the CPU."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from whyprune.devices.runner import Library, RefusedError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from whyprune.devices.runner import Session


class Ncnn(Library):
    """In single precision. One image per call: ncnn knows no batches."""

    name = "ncnn"
    title = "ncnn"
    format = "ncnn"
    module = "ncnn"
    packages = ("ncnn", "numpy")
    install = "'whyprune[ncnn]'"
    largest_batch = 1

    def load(self, path: Path, threads: int) -> Session:
        """A session on a `.param` file with its `.bin` beside it.

        Raises:
            RefusedError: ncnn has no layer of some kind, or the files are damaged; ncnn itself would go on and crash.
        """
        import numpy as np

        library = self.start()
        network = library.Net()
        network.opt.num_threads = threads
        network.opt.use_vulkan_compute = False
        for option in ("use_fp16_packed", "use_fp16_storage", "use_fp16_arithmetic", "use_bf16_storage"):
            setattr(network.opt, option, False)
        if network.load_param(str(path)) != 0 or network.load_model(str(path.with_suffix(".bin"))) != 0:
            raise self.unreadable(path, "a layer that ncnn does not have, or damaged weights")
        inputs_at, outputs_at = network.input_names(), network.output_names()

        def call(inputs: Sequence[Any]) -> list[Any]:
            extractor = network.create_extractor()
            for name, value in zip(inputs_at, inputs, strict=True):
                extractor.input(name, library.Mat(value[0]).clone())
            found = [extractor.extract(name) for name in outputs_at]
            if any(status != 0 for status, _ in found):
                raise RefusedError("VerificationError", f"ncnn failed in the midst of {path.name}: do not use it")
            return [np.array(value)[None] for _, value in found]

        call.inputs = len(inputs_at)  # type: ignore[attr-defined]
        return call
