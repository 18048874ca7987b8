"""Files of weights, told apart by their content: from bytes on disk to plain containers. Nothing is ever unpickled."""

import hashlib
import io
import mmap
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from trunkline.ground.errors import WeightsError

from .pickles import BYTES, StorageRef, TensorRef, read_pickle

SUFFIXES = (".safetensors", ".pth", ".pt", ".th", ".ckpt", ".tar", ".bin", ".pkl")
"""Usual ends of the names of such files. What is inside decides; they tell the path of a file that is not there from a name."""
_TORCH = "load it with torch in an environment of your own, save its state_dict as .safetensors, and give that file"
_UNPACK = "unpack it and give the file of weights in it"
_MAGIC = 0x1950A86A20F9469CFC6C  # the first pickle of a file of torch.save before 1.6
_FOREIGN: tuple[tuple[int, bytes, str, str], ...] = (
    (0, b"\x1f\x8b", "compressed by gzip", f"{_UNPACK} (gunzip)"),
    (0, b"BZh", "compressed by bzip2", f"{_UNPACK} (bunzip2)"),
    (0, b"\xfd7zXZ", "compressed by xz", f"{_UNPACK} (unxz)"),
    (0, b"\x28\xb5\x2f\xfd", "compressed by zstd", f"{_UNPACK} (unzstd)"),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive", _UNPACK),
    (257, b"ustar", "a tar archive", f"{_UNPACK} (tar -xf). Where it is of PyTorch before 0.1.10, {_TORCH}"),
    (0, b"\x89HDF", "an HDF5 file, as Keras writes", "give weights of PyTorch"),
    (0, b"version https://git-lfs", "a pointer of Git LFS in the file's place", "fetch the file: git lfs pull"),
    (0, b"<!DOCTYPE", "a web page in the file's place", "download the file itself"),
    (0, b"<!doctype", "a web page in the file's place", "download the file itself"),
    (0, b"<html", "a web page in the file's place", "download the file itself"),
)
"""Position, bytes, what a file with them there is, and what to do."""


@dataclass
class Content:
    """What is in a file: containers with tensors, or with places of tensors that `tensor` reads; the header's metadata."""

    tree: Any
    metadata: dict[str, str] = field(default_factory=dict)
    read: Callable[[StorageRef], Tensor] | None = None
    kept: dict[StorageRef, Tensor] = field(default_factory=dict)

    def tensor(self, value: "Tensor | TensorRef") -> Tensor:
        """Read a tensor: one of 16-bit floats as float32. Raises WeightsError where the file does not hold all of it."""
        if isinstance(value, TensorRef):
            assert self.read is not None
            if value.storage not in self.kept:
                self.kept[value.storage] = self.read(value.storage)
            flat = self.kept[value.storage].view(getattr(torch, value.dtype))
            value = flat.as_strided(value.size, value.stride, value.offset)
        return value.float() if value.dtype in (torch.float16, torch.bfloat16) else value


def read_file(path: Path) -> Content:
    """Read a file of safetensors or of torch.save, whatever its name; tensors of the latter only when they are asked for.

    Raises WeightsError for a missing, damaged or foreign file, which is named for what it is.
    """
    if not path.is_file():
        what = "a folder" if path.is_dir() else "no such file"
        raise WeightsError(f"{path}: {what}; expected a file of weights (of safetensors, or of torch.save)")
    with path.open("rb") as file:
        head = file.read(512)
    for at, magic, what, do in _FOREIGN:
        if head[at:].startswith(magic):
            raise WeightsError(f"{path}: is {what}, no weights as they are: {do}")
    if _is_onnx(head, path):
        raise WeightsError(f"{path}: is an ONNX file, a network and not weights by name; give the weights of PyTorch")
    if head.startswith(b"PK"):
        return _read_zip(path)
    if head[8:9] == b"{":
        return _read_safetensors(path)
    return _read_stream(path)


def sha256(path: Path) -> str:
    """Compute the file's SHA-256, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _is_onnx(head: bytes, path: Path) -> bool:
    return path.suffix == ".onnx" or (head[:1] == b"\x08" and head[2:3] == b"\x12" and b"pytorch" in head[:32])


def _read_safetensors(path: Path) -> Content:
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return Content(tensors, dict(file.metadata() or {}))
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
        raise WeightsError(f"{path}: not a whole safetensors file ({_first_line(error)})") from error


def _read_zip(path: Path) -> Content:
    """Read a file of torch.save since 1.6: a zip archive of `data.pkl` and a record for each storage."""
    try:
        with zipfile.ZipFile(path) as archive:
            records = {info.filename: info for info in archive.infolist()}
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, RuntimeError) as error:
        raise WeightsError(f"{path}: not a whole file of torch.save ({_first_line(error)})") from error
    folder = next((name.removesuffix("data.pkl") for name in records if name.endswith("/data.pkl")), None)
    if folder is None:
        held = ", ".join(list(records)[:4]) or "nothing"
        raise WeightsError(f"{path}: is a zip archive, no file of torch.save (it holds {held}); {_UNPACK}")
    if f"{folder}constants.pkl" in records:
        raise WeightsError(f"{path}: is a TorchScript archive, a program and not weights by name: {_TORCH}")

    def bytes_of(name: str) -> bytearray:
        if folder + name not in records:
            raise WeightsError(f"{path}: not a whole file of torch.save ({name} is missing)")
        return _record(path, records[folder + name])

    swapped = f"{folder}byteorder" in records and bytes(bytes_of("byteorder")) == b"big"
    tree = _tree(path, io.BytesIO(bytes_of("data.pkl")))
    return Content(tree, {}, lambda storage: _storage(path, bytes_of(f"data/{storage.key}"), storage, swapped))


def _record(path: Path, info: zipfile.ZipInfo) -> bytearray:
    """Read a record of a zip archive, which must not be compressed."""
    if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1:
        raise WeightsError(
            f"{path}: its {info.filename} is compressed, as torch.save never writes it; {_UNPACK}, or {_TORCH}"
        )
    with path.open("rb") as file:
        file.seek(max(0, info.header_offset))
        header = file.read(30)
        if len(header) < 30 or header[:4] != b"PK\3\4":
            raise WeightsError(f"{path}: not a whole file of torch.save ({info.filename} is not where it should be)")
        start = (
            info.header_offset + 30 + int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")
        )
        return _bytes(path, file, start, info.file_size)


def _bytes(path: Path, file: io.BufferedReader, start: int, count: int) -> bytearray:
    if not 0 <= start <= start + count <= path.stat().st_size:
        raise WeightsError(f"{path}: not a whole file of torch.save (it ends before its tensors do)")
    found = bytearray(count)
    file.seek(start)
    if file.readinto(found) != count:
        raise WeightsError(f"{path}: not a whole file of torch.save (it ends before its tensors do)")
    return found


def _storage(path: Path, found: bytearray, storage: StorageRef, swapped: bool = False) -> Tensor:
    """Turn bytes into the elements of a storage."""
    width, dtype = BYTES[storage.dtype], getattr(torch, storage.dtype)
    first, last = storage.start * width, (storage.start + storage.count) * width
    if last > len(found):
        raise WeightsError(f"{path}: not a whole file of torch.save (a storage of {last} bytes has {len(found)})")
    if not last - first:
        return torch.empty(0, dtype=dtype)
    flat = torch.frombuffer(found, dtype=torch.uint8, count=last - first, offset=first)
    flat = flat.view(-1, width).flip(1).reshape(-1) if swapped else flat
    return flat.view(dtype)


def _read_stream(path: Path) -> Content:
    """Read a file of torch.save before 1.6 (pickles one after the other, then the storages), or a plain pickle."""
    if not path.stat().st_size:
        raise WeightsError(f"{path}: not a whole file of torch.save, nor of safetensors: it is empty")
    with path.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as file:
        if file[:1] not in (b"\x80", b"(", b"]", b"}", b"c", b"L"):
            raise WeightsError(
                f"{path}: neither safetensors nor a file of torch.save; it begins with {bytes(file[:8])!r}"
            )
        first = _tree(path, file)
        if first != _MAGIC:
            return Content(first)
        for _ in ("version", "machine that wrote it"):
            _tree(path, file)
        widths: dict[str, int] = {}
        tree, keys = _tree(path, file, widths), _tree(path, file)
        places = _places(path, file, keys, widths)

    def read(storage: StorageRef) -> Tensor:
        if storage.key not in places:
            raise WeightsError(f"{path}: not a whole file of torch.save (a storage is missing)")
        with path.open("rb") as again:
            return _storage(path, _bytes(path, again, *places[storage.key]), storage)

    return Content(tree, {}, read)


def _places(path: Path, file: mmap.mmap, keys: Any, widths: dict[str, int]) -> dict[str, tuple[int, int]]:
    """Find position and size, in bytes, of the storages behind the pickles: each has its number of elements before it."""
    found, at = {}, file.tell()
    for key in keys if isinstance(keys, list) else ():
        count = int.from_bytes(file[at : at + 8], "little", signed=True)
        width = widths.get(key, 0) if isinstance(key, str) else 0
        if count < 0 or not width or at + 8 + count * width > len(file):
            raise WeightsError(f"{path}: not a whole file of torch.save (it ends before its tensors do)")
        found[key] = at + 8, count * width
        at += 8 + count * width
    return found


def _tree(path: Path, file: Any, storages: dict[str, int] | None = None) -> Any:
    try:
        return read_pickle(file, storages)
    except ValueError as error:
        raise WeightsError(
            f"{path}: not a whole file of torch.save, nor of safetensors ({_first_line(error)})"
        ) from error


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
