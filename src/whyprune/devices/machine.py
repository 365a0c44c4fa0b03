"""The machine a number was measured on, as far as the operating system tells."""

from typing import Any

import torch

from whyprune.devices import runner

LIBRARIES = (
    "whyprune",
    "torch",
    "numpy",
    "scipy",
    "onnx",
    "onnxscript",
    "onnxruntime",
    "openvino",
    "executorch",
    "ai-edge-litert",
    "ncnn",
    "transformers",
    "timm",
    "torchvision",
)


def machine_state() -> dict[str, Any]:
    """CPU, cores, threads, load, platform and versions; an entry the system cannot tell is `None`."""
    state = runner.machine(library_versions())
    return {
        **state,
        "usable_cores": state["cores"] if state["affinity"] is None else len(state["affinity"]),
        "torch_threads": torch.get_num_threads(),
        "accelerator": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def library_versions() -> dict[str, str]:
    """The installed version of each library a result depends on."""
    return runner.installed(*LIBRARIES)
