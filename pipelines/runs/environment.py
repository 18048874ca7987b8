"""What a result was made with: versions, machine, code."""

import platform
import sys
from importlib import metadata
from typing import Any

from trunkline._version import __version__

from .machine import cores, cpu_flags, gpu

_PACKAGES = ("torch", "torchvision", "timm", "numpy", "pillow", "safetensors", "pydantic")


def environment() -> dict[str, Any]:
    """Collect the versions of what computes, the processor, its instruction sets, the GPU and the command."""
    versions = {name: _version(name) for name in _PACKAGES}
    card = gpu()
    return {
        "trunkline": __version__,
        "python": platform.python_version(),
        **versions,
        "system": platform.platform(),
        "processor": _processor(),
        "cores": cores(),
        "instructions": " ".join(sorted(f for f in cpu_flags() if f in _INTERESTING)),
        "gpu": card[0] if card else None,
        "command": " ".join(sys.argv),
    }


_INTERESTING = {"avx2", "avx512f", "avx512_bf16", "amx_bf16", "avx512_fp16", "neon", "bf16"}


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:  # noqa: PTH123
            return next(line.partition(":")[2].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
