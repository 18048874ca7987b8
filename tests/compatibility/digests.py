"""Digests of what a run left: tensors by name, files, and JSON without the places that it names."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def sha(content: bytes) -> str:
    """SHA-256, as text."""
    return hashlib.sha256(content).hexdigest()


def header_of(file: Path) -> tuple[dict[str, Any], int]:
    """Read the header of a safetensors file, and where its tensors begin."""
    with file.open("rb") as stream:
        size = int.from_bytes(stream.read(8), "little")
        return json.loads(stream.read(size)), 8 + size


def tensors_of(file: Path) -> tuple[dict[str, str], dict[str, str]]:
    """Digest every tensor of a safetensors file by its name, sorted, with its type and shape; and read its metadata."""
    header, start = header_of(file)
    metadata = header.pop("__metadata__", {})
    content = memoryview(file.read_bytes())[start:]
    found = {}
    for name in sorted(header):
        first, end = header[name]["data_offsets"]
        found[name] = sha(f"{header[name]['dtype']} {header[name]['shape']} ".encode() + content[first:end])
    return found, metadata


def files_of(folder: Path) -> dict[str, str]:
    """Digest every file below a folder."""
    files = sorted(p for p in folder.rglob("*") if p.is_file()) if folder.is_dir() else []
    return {p.relative_to(folder).as_posix(): sha(p.read_bytes()) for p in files}


def cut(value: Any, places: Mapping[str, str]) -> Any:
    """Put names in place of folders in all texts of a JSON value; `places` is folder to name, inner folders first."""
    if isinstance(value, dict):
        return {key: cut(each, places) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [cut(each, places) for each in value]
    if isinstance(value, str):
        for folder, name in places.items():
            value = value.replace(folder, name)
    return value


def last_checkpoint(run: Path) -> Path:
    """Find the folder of a run's last checkpoint."""
    return run / "checkpoints" / (run / "checkpoints" / "last").read_text().strip()


def checkpoint_of(run: Path) -> dict[str, Any]:
    """Digest a run's last checkpoint: its update, the tensors of each of its files, and what the engine says besides."""
    folder = last_checkpoint(run)
    state = json.loads((folder / "state.json").read_text())
    engine = {key: sha(json.dumps(value, sort_keys=True).encode()) for key, value in state["engine"].items()}
    tensors = {file.stem: tensors_of(file)[0] for file in sorted(folder.glob("*.safetensors"))}
    return {"checkpoint": folder.name, "engine": engine, **tensors}


def updates_of(run: Path) -> list[dict[str, Any]]:
    """Read the numbers of every update from `metrics.jsonl`, without those of the clock."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    kept = ("phase", "update", "loss", "losses", "lr", "grad_norm", "skipped")
    return [{key: line[key] for key in kept if key in line} for line in lines if line["kind"] == "train"]
