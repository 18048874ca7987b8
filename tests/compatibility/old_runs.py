"""Runs of an older state of the code, kept without their numbers: what they are, how to lay them down, what they give."""

import json
import platform
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from digests import checkpoint_of, cut, files_of, last_checkpoint, sha
from formulas import outline, write

FIXTURES = Path(__file__).parent / "fixtures"
TEXTS = (".json", ".jsonl", ".tsv", ".txt")
SAME = {"device": "cpu", "threads": 1}
PLAIN: dict[str, Any] = {
    "seed": 5, "machine.device": "cpu", "machine.precision": "fp32", "machine.threads": 1, "machine.workers": 0,
    "log.tensorboard": False, "checkpoints.minutes": 0, "checkpoints.updates": 1, "checkpoints.keep": 9,
    "evaluation.times": 1,
}  # fmt: skip


class Case(NamedTuple):
    """A run: its recipe and settings, where it was interrupted, what it is asked, and what begins from its weights."""

    recipe: str
    settings: dict[str, Any]
    interrupted: int  # after so many updates
    pictures: str  # a pattern below the folder of the scenes
    scored: dict[str, Any]  # how the data is told to a file of weights
    begun: tuple[str, dict[str, Any]]


TINY = {"weights": "none", "backbone": "timm:test_resnet.r160_in1k"}
DETECT = {
    **PLAIN, "data": "demo:boxes:smoke", "head": "faster_rcnn", "size": 32, "limit": 2, "batch": 2, "micro_batch": 1,
    "tasks.detection.detections": 10, "optimizer.lr": 1e-4,
}  # fmt: skip
SEGMENT = {
    **PLAIN, "data": "demo:pixels:smoke", "format": "pairs", "head": "fcn", "crop": 64, "limit": 4, "batch": 4,
    "micro_batch": 2, "ema": 0.9, "tasks.segmentation.aux": 0.4, "optimizer.name": "adamw", "optimizer.lr": 1e-5,
}  # fmt: skip
CASES = {
    "classifier": Case(
        "two_phases.py", {**PLAIN, "data": "demo:smoke"}, 2, "demo-smoke/val/[acs]*/*.jpg", {"data": "demo-smoke"},
        ("transfer", {**PLAIN, "data": "demo:smoke", "size": 32, "batch": 8, "mode": "append", "updates": 2, "lr": 1e-3}),
    ),
    "detector": Case(
        "detect", {**DETECT, **TINY, "updates": 2, "network.norm": "frozen"}, 1, "demo-boxes-smoke/JPEGImages/val_0000[01].jpg",
        {"data": "demo-boxes-smoke", "limit": 2}, ("detect", {**DETECT, "updates": 1}),
    ),
    "segmenter": Case(
        "segment", {**SEGMENT, **TINY, "updates": 4}, 2, "demo-pixels-smoke/images/val/0000[0-3].*",
        {"data": "demo-pixels-smoke", "format": "pairs", "limit": 4}, ("segment", {**SEGMENT, "updates": 1}),
    ),
}  # fmt: skip


def pack(folder: Path, kept: Path, places: Mapping[str, str]) -> None:
    """Keep a run's folder: texts as they are but for the places that they name, and tensors as outlines."""
    for file in sorted(p for p in folder.rglob("*") if p.is_file()):
        to = kept / file.relative_to(folder)
        if file.suffix == ".safetensors":
            to.parent.mkdir(parents=True, exist_ok=True)
            to.with_name(f"{to.name}.json").write_text(json.dumps(outline(file), separators=(",", ":")))
        elif file.suffix in TEXTS or file.name in ("last", "best"):
            to.parent.mkdir(parents=True, exist_ok=True)
            to.write_text(cut(file.read_text(), places))


def unpack(kept: Path, folder: Path, places: Mapping[str, str]) -> None:
    """Lay a kept folder down again: texts with the places of here, and tensors with the numbers of the formula."""
    back = {name: place for place, name in places.items()}
    for file in sorted(p for p in kept.rglob("*") if p.is_file()):
        name = file.relative_to(kept).as_posix()
        to = folder / name
        to.parent.mkdir(parents=True, exist_ok=True)
        if name.endswith(".safetensors.json"):
            write(to.with_suffix(""), json.loads(file.read_text()), f"{kept.parent.name}/{name}")
        else:
            to.write_text(cut(file.read_text(), back))


def take_on(recipe: str, run: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """Take a run to its end, or begin it; give its last checkpoint, its scores, its losses and its predictions."""
    import trunkline

    done = trunkline.train(recipe, run, **{**settings, "checkpoints.updates": 0})
    numbers = [
        [line["update"], line["loss"], line.get("grad_norm")] for line in done.metrics if line["kind"] == "train"
    ]
    lines = [json.loads(line) for line in (run / "predictions" / "val.jsonl").read_text().splitlines()]
    said = {"metrics": metrics_of(done.scores), "updates": numbers, "lines": lines}
    tensors = {**checkpoint_of(run), "features": files_of(run / "features")}
    return {"tensors": tensors, "sketch": sketch(last_checkpoint(run)), "told": said}


def ask(source: Path, case: Case, folder: Path, scenes: Path, **data: Any) -> dict[str, Any]:
    """Score a run or a file of weights on its validation split, and let it say what it sees in pictures."""
    import trunkline

    pictures = sorted(scenes.glob(case.pictures))
    assert pictures
    folder.mkdir()
    scores = trunkline.evaluate(source, out=folder / "records.jsonl", loaders=0, **SAME, **data)
    trunkline.predict(source, pictures, out=folder / "said", **SAME)
    texts = [(folder / name).read_text() for name in ("records.jsonl", "said/predictions.jsonl")]
    records, said = ([json.loads(line) for line in text.splitlines()] for text in texts)
    told = {"metrics": metrics_of(scores.to_json()), "records": records, "said": cut(said, {f"{scenes}/": ""})}
    return {"told": told}


def given(name: str, work: Path, cache: Path) -> dict[str, Any]:
    """Lay a kept run and its published weights down in a folder, and do everything with them that can be done.

    The folder must be the current one, and the cache the one that TRUNKLINE_CACHE names.
    """
    case, places, scenes = CASES[name], places_of(work, cache), cache / "scenes"
    shutil.copy(FIXTURES / "two_phases.py", work)
    unpack(FIXTURES / name / "run", work / "run", places)
    unpack(FIXTURES / name / "published", work / "published", places)
    files = {p.relative_to(work).as_posix(): sha(p.read_bytes()) for p in sorted(work.rglob("*.safetensors"))}
    shutil.copytree(work / "run", work / "longer")
    weights = work / "published" / "weights.safetensors"
    recipe, settings = case.begun
    data = {**case.scored, "data": str(scenes / case.scored["data"])}
    return {
        "the files": {"tensors": files},
        "the run that goes on": take_on(case.recipe, work / "longer", case.settings),
        "the interrupted run": ask(work / "run", case, work / "of run", scenes),
        "the published weights": ask(weights, case, work / "of weights", scenes, **data),
        "a run from the published weights": take_on(recipe, work / "begun", {**settings, "weights": str(weights)}),
    }


def places_of(work: Path, cache: Path) -> dict[str, str]:
    """Name the folders whose paths stand in a run's files."""
    return {str(cache): "CACHE_FOLDER", str(work): "WORK_FOLDER"}


def metrics_of(scores: dict[str, Any]) -> dict[str, Any]:
    """Take the numbers from scores: metrics and their intervals."""
    return {key: value for key, value in scores.items() if isinstance(value, float)} | {
        "intervals": scores["intervals"]
    }


def sketch(folder: Path) -> dict[str, list[float]]:
    """Say roughly what the tensors of a checkpoint are: each one's norm, and four of its numbers."""
    from safetensors.torch import load_file

    found = {}
    for file in sorted(folder.glob("*.safetensors")):
        for name, tensor in load_file(file).items():
            flat = tensor.double().flatten()
            chosen = flat[:: max(1, len(flat) // 4)][:4].tolist()
            found[f"{file.stem}:{name}"] = [float(f"{number:.6g}") for number in (flat.norm().item(), *chosen)]
    return found


def probe() -> str:
    """Digest a little arithmetic of all the kinds that the runs need: equal digests promise equal bits.

    It holds for one kind of processor, one version of torch and one of what it is built with.
    """
    import torch
    from torch.nn import functional as F

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    draw = torch.Generator().manual_seed(0)
    found = [torch.__version__.encode()]
    for channels, size, kernel, stride, groups in ((3, 32, 7, 2, 1), (64, 16, 3, 1, 1), (64, 8, 3, 2, 1), (32, 8, 1, 1, 1),
                                                   (32, 16, 3, 1, 32), (128, 2, 3, 1, 1)):  # fmt: skip
        x = torch.rand(2, channels, size, size, generator=draw, requires_grad=True)
        w = torch.rand(64, channels // groups, kernel, kernel, generator=draw, requires_grad=True)
        y = F.conv2d(x, w, None, stride, kernel // 2, groups=groups)
        y = F.batch_norm(y, None, None, training=True).relu()
        y = F.interpolate(y, scale_factor=2, mode="bilinear", align_corners=False)
        loss = F.cross_entropy(y.mean((2, 3)), torch.tensor([1, 5])) + y.sigmoid().log().sum() + y.exp().norm()
        found += [t.detach().numpy().tobytes() for t in (y, loss, *torch.autograd.grad(loss, (x, w)))]
    for m, k, n in ((2, 512, 10), (37, 300, 65), (256, 12544 // 8, 128)):
        found.append((torch.rand(m, k, generator=draw) @ torch.rand(k, n, generator=draw)).numpy().tobytes())
    torch.set_num_threads(threads)
    return sha(b"".join(found))


def draws() -> str:
    """Digest random numbers of all the kinds that training draws."""
    import torch
    from torch.nn import functional as F

    with torch.random.fork_rng():
        torch.manual_seed(0)
        found = [torch.rand(99), torch.randn(99), torch.randperm(99), F.dropout(torch.ones(9, 99), 0.3), torch.rand(3)]
    return sha(b"".join(each.numpy().tobytes() for each in found))


def about() -> dict[str, str]:
    """Say what computes here."""
    import PIL
    import torch

    capability = torch.backends.cpu.get_cpu_capability()
    return {
        "torch": torch.__version__,
        "pillow": PIL.__version__,
        "instructions": capability,
        "machine": platform.machine(),
    }


def interrupt(run: Path, update: int) -> None:
    """Make of a finished run what a power cut after an update would have left of it."""
    checkpoints = run / "checkpoints"
    for folder in checkpoints.glob("[0-9]*"):
        if int(folder.name) != update:
            shutil.rmtree(folder)
    (checkpoints / "last").write_text(f"{update:06d}")
    (checkpoints / "best").unlink(missing_ok=True)
    for name in ("predictions", "report.html", "scores.json", "weights.safetensors", ".lock"):
        left = run / name
        shutil.rmtree(left) if left.is_dir() else left.unlink(missing_ok=True)
    lines = (run / "metrics.jsonl").read_text().splitlines(keepends=True)
    kept = [line for line in lines if json.loads(line)["update"] <= update + 1 and json.loads(line)["kind"] != "end"]
    (run / "metrics.jsonl").write_text("".join(kept))
