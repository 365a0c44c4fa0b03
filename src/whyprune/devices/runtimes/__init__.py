"""The runtimes, one file each. They import their libraries when they start, and of whyprune only the runner.

So a measuring process holds nothing but the runtime that it measures. To add one: a file with a subclass of
`runner.Library`, an entry below, and its format in `artifacts/`.
"""

from collections.abc import Mapping
from typing import Any

from whyprune.devices import runner
from whyprune.devices.runtimes.compiled import Compiled
from whyprune.devices.runtimes.cuda import Cuda
from whyprune.devices.runtimes.eager import Eager
from whyprune.devices.runtimes.executorch import ExecuTorch
from whyprune.devices.runtimes.litert import LiteRt
from whyprune.devices.runtimes.ncnn import Ncnn
from whyprune.devices.runtimes.openvino import OpenVino
from whyprune.devices.runtimes.ort_gpu import OrtCuda, OrtTensorRt

RUNTIMES: Mapping[str, Any] = {
    r.name: r
    for r in (
        Eager(),
        Compiled(),
        runner.RUNTIMES["ort"],
        OpenVino(),
        ExecuTorch(),
        LiteRt(),
        Ncnn(),
        OrtCuda(),
        OrtTensorRt(),
        Cuda(),
    )
}
"""By the names that device names use."""
