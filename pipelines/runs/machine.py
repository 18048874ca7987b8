"""What this machine is, and what `auto` becomes on it and why. Imports no torch."""

import contextlib
import functools
import os
import platform
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from trunkline.ground.errors import RecipeError

from ...cluster.config import Machine

Why = dict[str, tuple[Any, str]]


@functools.cache
def cores() -> int:
    """Count the cores that this process may use: as a launcher says, or as the system and a container's limit allow."""
    if os.environ.get("TRUNKLINE_CORES", "").isdigit():
        return max(1, int(os.environ["TRUNKLINE_CORES"]))
    mine = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = Path("/sys/fs/cgroup/cpu.max")
    if quota.is_file():
        limit, _, period = quota.read_text().partition(" ")
        if limit.isdigit() and int(period) > 0:
            mine = min(mine, max(1, int(limit) // int(period)))
    return mine


@functools.cache
def cpu_flags() -> frozenset[str]:
    """Read the processor's features as Linux names them; empty on other systems."""
    info = Path("/proc/cpuinfo")
    text = info.read_text(errors="replace") if info.is_file() else ""
    line = next((line for line in text.splitlines() if line.startswith(("flags", "Features"))), "")
    return frozenset(line.partition(":")[2].split())


@functools.cache
def gpu() -> tuple[str, float] | None:
    """Find the first NVIDIA GPU's name and compute capability; None where there is none."""
    if not Path("/proc/driver/nvidia/version").exists() or os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
        return None
    try:
        command = ["nvidia-smi", "--query-gpu=name,compute_cap", "--format=csv,noheader"]
        out = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout
        name, _, capability = out.splitlines()[0].rpartition(", ")
        return name, float(capability)
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        return None


def resolve_machine(machine: Machine) -> tuple[Machine, Why]:
    """Replace every `auto` of `machine`; return the machine and, for each `auto`, what it became and why."""
    why: Why = {}

    def settle(field: str, value: Any, reason: str) -> None:
        nonlocal machine
        if getattr(machine, field) == "auto":
            machine = replace(machine, **{field: value})
            why[f"machine.{field}"] = (value, reason)

    card = gpu()
    apple = platform.system() == "Darwin" and platform.machine() == "arm64"
    settle("device", "cuda" if card else "mps" if apple else "cpu", card[0] if card else platform.machine())
    kind = machine.device.partition(":")[0]
    settle("precision", *_precision(kind, card))
    settle("channels_last", kind != "mps", "quicker for convolutions there" if kind != "mps" else "slower on MPS")
    settle("deterministic", kind == "cpu", "costs nothing there" if kind == "cpu" else "costs speed there")
    settle("threads", cores() if kind == "cpu" else 1, f"{cores()} cores for this process")
    loaders = (1 if cores() > 1 else 0) if kind == "cpu" else max(1, min(16, cores() - 1))
    settle(
        "loaders", loaders, "decoding is a small share of the work" if kind == "cpu" else "one a core, one left free"
    )
    return machine, why


@contextlib.contextmanager
def threads_kept() -> Iterator[None]:
    """Give torch its number of threads back when this context ends: it is the process's, not of one call."""
    import torch

    before = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(before)


def check_device(device: str) -> None:
    """Raise RecipeError where a device cannot be used: its name is unknown, or this machine has none or not so many."""
    import torch

    kind, _, number = device.partition(":")
    counts = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}
    usable = ", ".join(k for k, n in counts.items() if n)
    if kind not in counts or (number and not number.isdigit()):
        raise RecipeError(f"machine.device={device}: expected cpu, cuda, cuda:N or mps; there is {usable}")
    if int(number or 0) >= counts[kind]:
        raise RecipeError(f"machine.device={device}: this machine, or this torch, has none; there is {usable}")


def _precision(kind: str, card: tuple[str, float] | None) -> tuple[str, str]:
    if kind == "cpu":
        native = cpu_flags() & {"avx512_bf16", "amx_bf16", "bf16"}
        return ("bf16", f"this CPU has {min(native)}") if native else ("fp32", "this CPU has no bf16 arithmetic")
    if kind == "cuda":
        new = card is None or card[1] >= 8
        return ("bf16", "this GPU has it") if new else ("fp16", "this GPU has no bf16")
    return "fp32", "the surest on this device"
