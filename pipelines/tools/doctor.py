"""Whether this installation and machine are fit: a line for each thing looked at."""

import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from trunkline.ground.cache import cache_folder

from ...cluster.config import Machine
from ..runs.environment import environment
from ..runs.machine import resolve_machine


@dataclass(frozen=True)
class Finding:
    """One thing looked at: `state` is ok, note or bad."""

    name: str
    state: str
    text: str


@dataclass(frozen=True)
class Findings:
    """All that the doctor saw."""

    lines: list[Finding]

    @property
    def fit(self) -> bool:
        """Whether no finding is bad."""
        return all(line.state != "bad" for line in self.lines)

    def to_json(self) -> dict[str, Any]:
        """Convert the findings to a dict for JSON."""
        return {"fit": self.fit, "findings": [asdict(line) for line in self.lines]}

    def __str__(self) -> str:
        width = max(len(line.name) for line in self.lines)
        return "\n".join(f"{line.state:4}  {line.name:{width}}  {line.text}" for line in self.lines)


def doctor() -> Findings:
    """Check Python, packages, processor, GPU, memory, disk, codecs, determinism and the cache."""
    return Findings([_looked(name, look) for name, look in _LOOKS.items()])


def _looked(name: str, look: Callable[[], tuple[str, str]]) -> Finding:
    try:
        state, text = look()
    except Exception as error:
        state, text = "bad", f"{type(error).__name__}: {error}"
    return Finding(name, state, text)


def _python() -> tuple[str, str]:
    good = (3, 11) <= sys.version_info[:2] <= (3, 13)
    return ("ok" if good else "bad"), f"{sys.version.split()[0]} (3.11 to 3.13 are tried)"


def _packages() -> tuple[str, str]:
    found = environment()
    names = ("trunkline", "torch", "torchvision", "timm", "numpy", "pillow")
    missing = [n for n in names if not found[n]]
    return ("bad" if missing else "ok"), ", ".join(f"{n} {found[n] or 'missing'}" for n in names)


def _operators() -> tuple[str, str]:
    import torch
    import torchvision

    kept = torchvision.ops.nms(torch.tensor([[0.0, 0, 1, 1]]), torch.tensor([1.0]), 0.5)
    return ("ok" if kept.tolist() == [0] else "bad"), "torchvision's compiled operators fit this torch"


def _machine() -> tuple[str, str]:
    found = environment()
    why = resolve_machine(Machine())[1]
    text = f"{found['processor']}, {found['cores']} cores; " + ", ".join(
        f"{key.partition('.')[2]}={value} ({reason})" for key, (value, reason) in why.items()
    )
    return "ok", text


def _device() -> tuple[str, str]:
    import torch

    machine, _ = resolve_machine(Machine())
    if machine.device == "cuda" and not torch.cuda.is_available():
        return "bad", "there is an NVIDIA GPU, but this torch cannot use it: install a torch built for CUDA"
    x = torch.ones(64, 64, device=machine.device)
    return "ok", f"{machine.device}: a product of matrices is {'right' if float((x @ x)[0, 0]) == 64 else 'WRONG'}"


def _memory() -> tuple[str, str]:
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    return ("ok" if pages >= 4 else "note"), f"{pages:.1f} GiB; fine-tuning ResNet-50 at 224 px takes 2 to 4"


def _shared_memory() -> tuple[str, str]:
    path = Path("/dev/shm")
    if not path.is_dir():
        return "ok", "not used on this system"
    free = shutil.disk_usage(path).free / 2**20
    if free < 512:
        return "note", f"{free:.0f} MiB in /dev/shm: raise it (docker run --shm-size=1g) or set machine.loaders=0"
    return "ok", f"{free:.0f} MiB free in /dev/shm for loaders"


def _disk() -> tuple[str, str]:
    free = shutil.disk_usage(Path.cwd()).free / 2**30
    return ("ok" if free > 2 else "note"), f"{free:.0f} GiB free here; a ResNet-50 run keeps about 0.6"


def _cache() -> tuple[str, str]:
    folder = cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder):
        return "ok", f"{folder} can be written (TRUNKLINE_CACHE moves it)"


def _codecs() -> tuple[str, str]:
    import numpy as np
    from PIL import Image

    from ...tasks.images.decode import read_image

    ramp = np.linspace(0, 255, 64 * 64 * 3).reshape(64, 64, 3).astype("uint8")
    with tempfile.TemporaryDirectory() as folder:
        for suffix in ("jpg", "png", "webp"):
            file = Path(folder) / f"ramp.{suffix}"
            Image.fromarray(ramp).save(file)
            with Image.open(file) as picture:
                expected = np.asarray(picture.convert("RGB"))
            if not (read_image(file).permute(1, 2, 0).numpy() == expected).all():
                return "bad", f"{suffix} pictures are not decoded as Pillow does"
    return "ok", "JPEG, PNG and WebP are decoded to Pillow's pixels"


def _determinism() -> tuple[str, str]:
    import torch

    torch.manual_seed(0)
    net, x = torch.nn.Conv2d(8, 16, 3), torch.randn(4, 8, 32, 32)
    first, second = net(x).sum(), net(x).sum()
    return ("ok" if torch.equal(first, second) else "bad"), "the same convolution gives the same bits twice"


_LOOKS: dict[str, Callable[[], tuple[str, str]]] = {
    "python": _python, "packages": _packages, "operators": _operators, "machine": _machine, "device": _device,
    "memory": _memory, "shared memory": _shared_memory, "disk": _disk, "cache": _cache, "codecs": _codecs,
    "determinism": _determinism,
}  # fmt: skip
