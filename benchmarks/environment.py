"""What a benchmark ran on, and how it reports."""

import json
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from gazecore.cores import cores

PACKAGES = ("gazecore", "torch", "torchvision", "ncnn", "numpy", "ray", "pyarrow", "pillow")


def environment() -> dict[str, Any]:
    """Machine and versions."""
    cpu = platform.processor()
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            cpu = line.split(":", 1)[1].strip()
            break
    return {
        "cpu": cpu,
        "cores": cores(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "python": platform.python_version(),
        **{name: _version(name) for name in PACKAGES},
    }


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def peak_mb() -> float:
    """The most memory that this process has held. (`ru_maxrss` would count its parent's too.)"""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise OSError("/proc/self/status has no VmHWM")


def report(name: str, **figures: Any) -> None:
    """Print the benchmark's one JSON line."""
    print(json.dumps({"benchmark": name, **figures, "environment": environment()}))
