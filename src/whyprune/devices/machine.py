"""The machine a number was measured on, as far as the operating system tells."""

import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

LIBRARIES = (
    "whyprune",
    "torch",
    "numpy",
    "scipy",
    "onnx",
    "onnxscript",
    "onnxruntime",
    "transformers",
    "timm",
    "torchvision",
)


def machine_state() -> dict[str, Any]:
    """CPU, cores, threads, load, platform and versions; an entry the system cannot tell is `None`."""
    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "usable_cores": _usable_cores(),
        "torch_threads": torch.get_num_threads(),
        "load_average": _load_average(),
        "accelerator": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "platform": platform.platform(),
        "python": platform.python_version(),
        "versions": library_versions(),
    }


def library_versions() -> dict[str, str]:
    """The installed version of each library a result depends on."""
    versions = {}
    for name in LIBRARIES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


def _cpu_model(cpuinfo: Path = Path("/proc/cpuinfo")) -> str | None:
    try:
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith(("model name", "Model"))]
    return next((name for name in names if name), None) or platform.processor() or None


def _usable_cores() -> int | None:
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count()


def _load_average() -> list[float] | None:
    try:
        return [round(value, 2) for value in os.getloadavg()]
    except (AttributeError, OSError):
        return None
