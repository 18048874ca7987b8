"""All that a GPU is asked, in one command: speeds beside plain loops, kernels, idle time, the loader, compilation."""

import gc
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from trunkline.ground.errors import RecipeError

from ..runs.environment import environment
from ..show import bar
from . import bench_detect, bench_segment, bench_train
from .bench import Bench, paired, positive

FP32 = ("fp32", False)  # and the order of elements: the plain loops'
Sides = Callable[[Any], tuple[dict[str, Callable[[], Any]], dict[str, Callable[[], Any]]]]
"""Ours and theirs for a machine, each a `predict` and a `train` to call."""
FEW_PHOTOS = 8
ONE_PLACE = 32  # a picture of this size is one place of the coarsest map
PHOTO = (500, 375)  # width and height of most photos of ImageNet and VOC


@dataclass(frozen=True)
class Launches:
    """What a step starts: kernels on a GPU (elsewhere operators), and the share of its time that the GPU idles."""

    count: int
    idle: float | None


def bench_gpu(
    *,
    rounds: int = 5,
    batch: int = 128,
    size: int = 224,
    crop_batch: int = 32,
    crop: int = 512,
    boxes_batch: int = 8,
    longest: int = 800,
    photos: int = 2048,
    compiled: bool = True,
    device: str = "auto",
) -> Bench:
    """Measure ResNet-50, DeepLabV3+ and Mask R-CNN beside plain loops, and where the time of an update goes.

    For each network: prediction and training at equal settings (fp32) and with our defaults against theirs; the kernels
    of a step on both sides; the share of an update in which the GPU idles, its batch on the device. For ResNet-50 also
    training with a compiled trunk beside the same without, and the share of an update that waits for the loader. On a CPU
    operators are counted in place of kernels.

    batch, size          of ResNet-50
    crop_batch, crop     of DeepLabV3+
    boxes_batch, longest of Mask R-CNN, whose pictures are square
    photos               generated JPEGs of 500 x 375 pixels, decoded by all cores (0: the loader is not measured)
    compiled             measure compilation, which takes minutes
    """
    sizes = {"rounds": rounds, "batch": batch, "size": size, "crop_batch": crop_batch, "crop": crop,
             "boxes_batch": boxes_batch, "longest": longest}  # fmt: skip
    _check(sizes, photos)
    from ..recipe.fields import Machine
    from ..runs.machine import check_device, resolve_machine

    machine, _ = resolve_machine(Machine(device=device))
    check_device(machine.device)
    pictures = bench_train.Work.random("resnet50", size, batch, False, machine.device)
    pixels = bench_segment.Work.random(crop, crop_batch, machine.device)
    boxes = bench_detect.Work(longest, boxes_batch, 8, True, machine.device)
    networks: dict[str, tuple[int, Sides]] = {
        "ResNet-50": (batch, lambda s: bench_train.sides(pictures, machine, (s.precision, s.channels_last), FP32)),
        "DeepLabV3+": (crop_batch, lambda s: bench_segment.sides(pixels, "deeplabv3plus", s, False)),
        "Mask R-CNN": (boxes_batch, lambda s: bench_detect.sides(boxes, s, False)),
    }
    settings: dict[str, Any] = {**sizes, "device": machine.device}
    if photos:  # first: where it cannot be measured, nothing else is lost
        settings |= _loader(photos, min(batch, photos // 2), size, machine.device)
    rows: list[dict[str, Any]] = []
    with bar("bench gpu", (4 * len(networks) + compiled) * rounds, "rounds") as advance:
        for name, (units, sides) in networks.items():
            rows += _of_a_network(name, units, sides, machine, rounds, compiled and name == "ResNet-50", advance)
    return Bench("gpu", rows, settings, environment())


def _check(sizes: dict[str, int], photos: int) -> None:
    positive(**sizes)
    if sizes["crop_batch"] == 1:
        one = "crop_batch=1: DeepLabV3+"
    else:
        one = (
            f"batch=1 with size={sizes['size']}: ResNet-50"
            if sizes["batch"] == 1 and sizes["size"] <= ONE_PLACE
            else ""
        )
    if one:
        raise RecipeError(f"{one} has a batch norm that sees a single value per channel; expected a batch of 2 or more")
    if photos and photos < FEW_PHOTOS:
        raise RecipeError(f"photos={photos}: expected {FEW_PHOTOS} or more, or 0 to leave the loader out")


def _of_a_network(
    name: str, units: int, sides: Sides, machine: Any, rounds: int, compiled: bool, advance: Callable[[], Any]
) -> list[dict[str, Any]]:
    """Measure one network at equal settings and with our defaults; with `compiled`, compile its trunk too."""
    rows = []
    equal = replace(machine, precision="fp32", channels_last=False)
    for what, setting in (("equal settings, fp32", equal), (f"our defaults ({machine.precision}) to fp32", machine)):
        ours, theirs = sides(setting)
        for part in ("predict", "train"):
            title = f"{name}: {part}, {what}"
            rows.append(paired(title, ours[part], theirs[part], units, rounds, 1, advance))
            rows += _launches(title, ours[part], theirs[part], machine.device)
        if compiled and setting is machine:
            plain, _ = sides(setting)
            ours["compile"]()
            title = f"{name}: train, compiled to not compiled"
            rows.append(paired(title, ours["train"], plain["train"], units, rounds, 1, advance))
            del plain
        del ours, theirs
        gc.collect()
    return rows


def _launches(title: str, ours: Callable[[], Any], theirs: Callable[[], Any], device: str) -> list[dict[str, Any]]:
    """Count both sides' launches of one step, and say how long the GPU idles in it."""
    a, b = launches(ours, device), launches(theirs, device)
    what = "kernels" if a.idle is not None else "operators"
    rows = [_one_row(f"{title}: {what} a step", a.count, b.count, what)]
    if a.idle is not None and b.idle is not None:
        rows.append(_one_row(f"{title}: share of the time that the GPU idles", a.idle, b.idle, "of 1"))
    return rows


def _one_row(name: str, ours: float, theirs: float, unit: str) -> dict[str, Any]:
    ratio = ours / theirs if theirs else float("nan")
    return {"name": name, "ours": ours, "theirs": theirs, "ratio": ratio, "low": ratio, "high": ratio, "unit": unit}


def launches(step: Callable[[], Any], device: str) -> Launches:
    """Run a step three times, the third under torch's profiler, and count what it starts."""
    import torch

    from ..tools.profiling import profiler

    step()
    step()
    with profiler() as trace:
        step()
        if torch.device(device).type == "cuda":
            torch.cuda.synchronize()
    events = [e for e in trace.events() or [] if not e.is_user_annotation]
    if torch.device(device).type != "cuda":
        return Launches(sum(e.name.startswith("aten::") for e in events), None)
    there = [e for e in events if e.device_type.name == "CUDA"]
    kernels = sum(not e.name.startswith(("Memcpy", "Memset")) for e in there)
    spans = sorted((e.time_range.start, e.time_range.end) for e in there)
    return Launches(kernels, idle_share(spans))


def idle_share(spans: list[tuple[float, float]]) -> float:
    """Compute the share of the time from the first beginning to the last end that no span covers; spans are sorted."""
    if not spans:
        return 0.0
    busy, until = 0.0, spans[0][0]
    for start, end in spans:
        busy += max(0.0, end - max(start, until))
        until = max(until, end)
    return 1 - busy / max(until - spans[0][0], 1e-9)


def _loader(photos: int, batch: int, size: int, device: str) -> dict[str, Any]:
    """Train ResNet-50 on JPEG photos for some updates; return its speed, and the share that it waited for the loader."""
    from ..recipe.knobs import resolve
    from ..tools.profiling import profile

    with tempfile.TemporaryDirectory() as scratch:
        folder = _photos(Path(scratch) / "photos", photos)
        updates = max(1, photos // batch)
        given = {"data": str(folder), "val": 0.1, "weights": "none", "backbone": "resnet50", "size": size, "batch": batch,
                 "mode": "full", "machine.device": device}  # fmt: skip
        found = profile(resolve("transfer", given), updates=updates)
    return {"from JPEGs, pictures a second": found.images_per_second, "share that waits for the loader": found.wait}


def _photos(folder: Path, count: int) -> Path:
    """Write photos of noise on shades, 150 KiB each as real ones, in two class folders."""
    import numpy as np
    from PIL import Image

    draw = np.random.default_rng(0)
    width, height = PHOTO
    for number in range(count):
        small = Image.fromarray(draw.integers(0, 256, (12, 16, 3), np.uint8)).resize(PHOTO, Image.Resampling.BICUBIC)
        noisy = np.asarray(small, np.int16) + draw.integers(-12, 13, (height, width, 3), np.int16)
        to = folder / ("one", "two")[number % 2] / f"{number:05d}.jpg"
        to.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(to, quality=92)
    return folder
