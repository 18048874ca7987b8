"""Tensors by formula: the header of a safetensors file is kept, and its numbers are made again from their names."""

import hashlib
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from digests import header_of

INTEGERS = {"I64": "<i8", "I32": "<i4", "U8": "u1", "BOOL": "?"}


def outline(file: Path) -> dict[str, Any]:
    """Give a safetensors file without its numbers: metadata, and each tensor's name, type and shape, in the file's order.

    Whole numbers, and tensors of no dimension (an optimizer's counters), keep their values.
    """
    header, start = header_of(file)
    metadata, content = header.pop("__metadata__", None), file.read_bytes()[start:]
    tensors = []
    for name, told in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        dtype, shape, (first, end) = told["dtype"], told["shape"], told["data_offsets"]
        kept = dtype in INTEGERS or not shape
        values = np.frombuffer(content[first:end], INTEGERS.get(dtype, "<f4")).tolist() if kept else None
        tensors.append([name, dtype, shape, *([values] if kept else [])])
    return {"metadata": metadata, "tensors": tensors}


def write(file: Path, outlined: dict[str, Any], seed: str) -> None:
    """Write a safetensors file from its outline, with the numbers that the formula gives."""
    header: dict[str, Any] = {"__metadata__": outlined["metadata"]} if outlined["metadata"] else {}
    parts, at = [], 0
    for name, dtype, shape, *kept in outlined["tensors"]:
        if kept:
            numbers = np.array(kept[0], INTEGERS.get(dtype, "<f4"))
        else:
            assert dtype == "F32", f"{name}: there is no formula for {dtype}"
            numbers = formula(f"{seed}/{name}", name, shape)
        parts.append(numbers.tobytes())
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + len(parts[-1])]}
        at += len(parts[-1])
    said = json.dumps(header, separators=(",", ":")).encode()
    said += b" " * (-len(said) % 8)
    file.write_bytes(len(said).to_bytes(8, "little") + said + b"".join(parts))


def formula(seed: str, name: str, shape: list[int]) -> np.ndarray:
    """Give the numbers of a tensor: of a size that suits its part in a network or an optimizer, and the same anywhere."""
    share = uniform(seed, math.prod(shape))
    around = share - np.float32(0.5)  # exact
    entry = name.rpartition("|")[2] if "|" in name else ""
    if entry == "exp_avg_sq":
        return share * np.float32(1e-3) + np.float32(1e-5)
    if entry:  # momentum, and the mean of gradients
        return around * np.float32(0.02)
    if name.startswith("map."):
        return share
    if name.endswith("running_var"):
        return share * np.float32(0.25) + np.float32(1.0)
    if len(shape) > 1:  # a standard deviation of 1 over the root of what is summed up
        return around * np.float32(math.sqrt(12 / math.prod(shape[1:])))
    if name.endswith(("weight", "scales")):
        return around * np.float32(0.25) + np.float32(1.0)
    return around * np.float32(0.25)


def uniform(seed: str, count: int) -> np.ndarray:
    """Draw numbers of 24 bits from 0 up to 1 (float32); the generator's raw numbers are the same in every version."""
    number = int.from_bytes(hashlib.sha256(seed.encode()).digest()[:8], "little")
    raw = np.random.PCG64(number).random_raw(count) >> np.uint64(40)
    return raw.astype(np.float32) * np.float32(2**-24)
