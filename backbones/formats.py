"""Files of weights: from bytes on disk to plain tensors under torchvision's names. Nothing is ever unpickled."""

import hashlib
import pickle
import re
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from trunkline.ground.errors import WeightsError

SUFFIXES = (".safetensors", ".pth", ".pt", ".th")
_WRAPPERS = ("state_dict", "model_state_dict", "model", "module")  # keys under which training scripts put the tensors
_PREFIXES = ("module.", "model.")
_WHOLE = (
    "backbone.body.",
    "classifier.4.",
    "segmentation_head.",
)  # of detectors and segmenters, all of whose tensors count


def read_file(path: Path) -> tuple[dict[str, Tensor], dict[str, str], list[str]]:
    """Read tensors by torchvision's names (16-bit floats as float32), the header's metadata, and what was left aside.

    Raises WeightsError for a missing, damaged or foreign file, and for one that holds more than tensors.
    """
    if not path.is_file():
        what = "a folder" if path.is_dir() else "no such file"
        raise WeightsError(f"{path}: {what}; expected weights ({', '.join(SUFFIXES)})")
    if path.suffix == ".safetensors":
        tensors, metadata = _read_safetensors(path)
        content: Any = tensors
    elif path.suffix in SUFFIXES:
        content, metadata = _read_torch(path), {}
    else:
        raise WeightsError(f"{path}: a file of weights ends in one of {', '.join(SUFFIXES)}")
    tensors, aside = _unwrap(content, path, "trunkline_task" in metadata)
    return {name: _at_least_32_bits(value) for name, value in tensors.items()}, metadata, aside


def sha256(path: Path) -> str:
    """Compute the file's SHA-256, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path}: not a whole safetensors file ({error})") from error


def _read_torch(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL ([\w.]+)", str(error)) or re.search(
            r"Unsupported (?:class|global)[:\s]+([\w.]+)", str(error)
        )
        needs = f"it asks for {found[1]}" if found else "it is no plain container of tensors, or damaged"
        raise WeightsError(
            f"{path}: holds more than tensors ({needs}) and was not read, as reading it could run code. "
            "Where you trust it, save its state_dict as .safetensors and give that file."
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise WeightsError(f"{path}: not a whole file of torch.save ({_first_line(error)})") from error


def _unwrap(content: Any, path: Path, whole: bool = False) -> tuple[dict[str, Tensor], list[str]]:
    aside: list[str] = []
    while isinstance(content, dict) and not _holds_tensors(content):
        key = next((k for k in _WRAPPERS if isinstance(content.get(k), dict)), None)
        if key is None:
            break
        aside += [str(k) for k in content if k != key]
        content = content[key]
    if not isinstance(content, dict) or not _holds_tensors(content):
        held = ", ".join(map(str, list(content)[:8])) if isinstance(content, dict) else type(content).__name__
        raise WeightsError(f"{path}: no tensors by name in it (found: {held or 'nothing'}); expected a state_dict")
    aside += [str(name) for name, value in content.items() if not isinstance(value, Tensor)]
    tensors = {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
    if "n_averaged" in tensors:  # the counter of torch's AveragedModel
        tensors.pop("n_averaged")
        aside.append("n_averaged")
    tensors, dropped = _strip(tensors, path, whole)
    return tensors, aside + dropped


def _holds_tensors(content: dict) -> bool:
    return any(isinstance(value, Tensor) for value in content.values())


def _strip(tensors: dict[str, Tensor], path: Path, whole: bool) -> tuple[dict[str, Tensor], list[str]]:
    """Remove the prefixes of wrappers; of a model in training, keep the part under `backbone.` and its `*.fc`.

    With `whole`, or where the names are those of a detector or segmenter, keep all tensors. Return the names of those
    that were dropped too. Raises WeightsError where two tensors end with one name.
    """
    names = {name: name.replace("_orig_mod.", "") for name in tensors}
    for _ in range(len(_PREFIXES) * 2):
        for prefix in _PREFIXES:
            if all(name.startswith(prefix) for name in names.values()):
                names = {old: name.removeprefix(prefix) for old, name in names.items()}
    dropped: list[str] = []
    whole = whole or any(name.startswith(_WHOLE) for name in names.values())
    if any(name.startswith("backbone.") for name in names.values()) and not whole:
        names = {old: _of_model(name) for old, name in names.items()}
        dropped = [old for old, name in names.items() if not name]
    stripped: dict[str, Tensor] = {}
    for old, name in names.items():
        if name in stripped:
            raise WeightsError(f"{path}: two tensors are called {name} once wrappers are taken off ({old} is one)")
        if name:
            stripped[name] = tensors[old]
    return stripped, dropped


def _of_model(name: str) -> str:
    if name.startswith("backbone."):
        return name.removeprefix("backbone.")
    tail = ".".join(name.split(".")[-2:])
    return tail if tail in ("fc.weight", "fc.bias") else ""


def _at_least_32_bits(value: Tensor) -> Tensor:
    return value.float() if value.dtype in (torch.float16, torch.bfloat16) else value


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
