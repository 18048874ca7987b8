"""What travels with weights in a file's header: architecture, stride, class names, preprocessing."""

import json
from typing import Any

from trunkline.ground.errors import WeightsError

from .contract import Preprocessing
from .table import STRIDE_IN, is_known

INTERPOLATIONS = ("nearest", "box", "bilinear", "hamming", "bicubic", "lanczos")  # Pillow's
KEYS = ("arch", "stride_in_1x1", "classes", "mean", "std", "size", "resize", "resize_width", "interpolation")


def to_metadata(
    arch: str,
    stride_in: str,
    classes: tuple[str, ...] | list[str] | None,
    preprocessing: Preprocessing,
    info: dict[str, Any] | None,
) -> dict[str, str]:
    """Build the header of a file, strings only. Raises WeightsError for values that could not be read back."""
    if not is_known(arch) or stride_in not in STRIDE_IN:
        raise WeightsError(f"arch={arch}, stride_in={stride_in}: expected a name of the table, and one of {STRIDE_IN}")
    taken = sorted(set(KEYS) & set(info or {}))
    if taken:
        raise WeightsError(f"info holds {', '.join(taken)}, which the header states itself; leave it out of info")
    header = {
        "arch": arch,
        "stride_in_1x1": "true" if stride_in == "1x1" else "false",
        "mean": ",".join(map(repr, preprocessing.mean)),
        "std": ",".join(map(repr, preprocessing.std)),
        "size": str(preprocessing.size),
        "resize": str(preprocessing.resize),
        "interpolation": preprocessing.interpolation,
        "bn_eps": "1e-5",
    }
    if preprocessing.resize_width:
        header["resize_width"] = str(preprocessing.resize_width)
    if classes is not None:
        header["classes"] = json.dumps(list(classes), ensure_ascii=False)
    for key, value in (info or {}).items():
        if key != "assumed":  # what was assumed on reading is stated from now on
            header[key] = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return header


def from_metadata(metadata: dict[str, str], source: str) -> dict[str, Any]:
    """Read what a header states, by field of `Weights`. A field that it lacks is left out; other keys are under `info`.

    Raises WeightsError that names each key which cannot be read, with its value.
    """
    problems: list[str] = []
    stated: dict[str, Any] = {}

    def read(key: str, parse, expected: str) -> Any:
        if key not in metadata:
            return None
        try:
            return parse(metadata[key])
        except (ValueError, KeyError, TypeError):
            problems.append(f"{key}={metadata[key][:60]!r}: expected {expected}")

    stated["arch"] = metadata.get("arch")
    stated["stride_in"] = read("stride_in_1x1", {"true": "1x1", "false": "3x3"}.__getitem__, "true or false")
    stated["classes"] = read("classes", _names, "a JSON list of names")
    parts = {
        "mean": read("mean", _numbers, "numbers with commas between"),
        "std": read("std", _numbers, "numbers with commas between"),
        "size": read("size", _positive, "a whole number of pixels"),
        "resize": read("resize", _positive, "a whole number of pixels"),
        "resize_width": read("resize_width", _positive, "a whole number of pixels"),
        "interpolation": read("interpolation", _interpolation, f"one of {', '.join(INTERPOLATIONS)}"),
    }
    parts = {key: value for key, value in parts.items() if value is not None}
    if parts:
        stated["preprocessing"] = Preprocessing(**parts)
    if problems:
        raise WeightsError(f"{source}: its header cannot be read: " + "; ".join(problems))
    stated["info"] = {key: value for key, value in metadata.items() if key not in KEYS}
    return {key: value for key, value in stated.items() if value is not None}


def _names(text: str) -> tuple[str, ...]:
    names = json.loads(text)
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError
    return tuple(names)


def _numbers(text: str) -> tuple[float, ...]:
    return tuple(float(part) for part in text.split(","))


def _positive(text: str) -> int:
    if int(text) < 1:
        raise ValueError
    return int(text)


def _interpolation(text: str) -> str:
    if text not in INTERPOLATIONS:
        raise ValueError
    return text
