"""Files of weights, written: each as one step that a crash cannot halve."""

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

import torch
from safetensors.torch import save_file
from torch import Tensor

from trunkline.ground.errors import WeightsError

from .contract import Preprocessing
from .metadata import to_metadata


def save_weights(
    path: "str | Path",
    tensors: Mapping[str, Tensor],
    *,
    arch: str,
    stride_in: str,
    classes: "tuple[str, ...] | list[str] | None",
    preprocessing: Preprocessing,
    info: dict[str, Any] | None = None,
) -> None:
    """Write a `.safetensors` file that `read_weights` reads by its path alone, as one step that a crash cannot halve.

    `tensors` are under torchvision's names (`_orig_mod.` and `module.` are taken off). Raises WeightsError for another
    suffix or values that could not be read back, OSError where the disk refuses.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise WeightsError(f"{path}: weights are saved as .safetensors")
    header = to_metadata(arch, stride_in, classes, preprocessing, info)
    check_classes(tuple(classes) if classes is not None else None, dict(tensors), str(path))

    def write(beside: Path) -> None:
        save_file(_plain(tensors), beside, metadata=header)
        _sort_header(beside)

    _write(path, write)


def save_bundle(
    path: "str | Path",
    tensors: Mapping[str, Tensor],
    arch: str,
    stride_in: str,
    preprocessing: Preprocessing,
    info: dict[str, Any],
) -> None:
    """Write a `.safetensors` file of tensors under a model's own names, as one step; its header states the trunk as others do."""
    header = to_metadata(arch, stride_in, None, preprocessing, info)

    def write(beside: Path) -> None:
        plain = {name: t.detach().cpu().clone(memory_format=torch.contiguous_format) for name, t in tensors.items()}
        save_file(plain, beside, metadata=header)
        _sort_header(beside)

    _write(Path(path), write)


def save_pth(path: "str | Path", tensors: Mapping[str, Tensor]) -> None:
    """Write a file of torch.save that holds `{"params_ema": tensors}`, as BasicSR's tools and spandrel read it.

    It has no header: architecture, settings and scale are read from the tensors, the rest is as published. Raises
    WeightsError for another suffix than .pth, OSError where the disk refuses.
    """
    path = Path(path)
    if path.suffix != ".pth":
        raise WeightsError(f"{path}: a file of torch.save is saved as .pth")
    _write(path, lambda beside: torch.save({"params_ema": _plain(tensors)}, beside))


def _plain(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copy tensors to the CPU, contiguous, without what torch.compile and wrappers put before their names."""
    return {
        name.replace("_orig_mod.", "").removeprefix("module."): t.detach()
        .cpu()
        .clone(memory_format=torch.contiguous_format)
        for name, t in tensors.items()
    }


def _write(path: Path, write: Callable[[Path], None]) -> None:
    """Let `write` make a file beside, and rename it when it is whole and on the disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{uuid4().hex[:8]}.tmp")
    try:
        write(beside)
        beside.chmod(0o644)  # safetensors makes files that only their owner can read
        with beside.open("rb+") as file:
            os.fsync(file.fileno())
        beside.replace(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def _sort_header(path: Path) -> None:
    """Sort the header's metadata, which safetensors writes in any order, so that equal weights make equal files."""
    with path.open("rb+") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        sorted_ = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
        if len(sorted_) <= length:
            file.seek(8)
            file.write(sorted_.ljust(length))


def sync_folder(folder: Path) -> None:
    """Make a rename in this folder durable (where the system can sync folders)."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def check_classes(classes: tuple[str, ...] | None, tensors: Mapping[str, Tensor], label: str) -> None:
    """Raise WeightsError where a classifier has not one output for each class name."""
    if classes is not None and "fc.weight" in tensors and len(tensors["fc.weight"]) != len(classes):
        raise WeightsError(f"{label}: {len(classes)} class names for a classifier of {len(tensors['fc.weight'])}")
