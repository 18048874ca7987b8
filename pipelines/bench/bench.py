"""Trunkline beside plain torchvision loops: interleaved rounds in one run, medians of paired ratios."""

import gc
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from trunkline.ground.cache import cache_folder
from trunkline.ground.errors import RecipeError
from trunkline.ground.names import load_named
from trunkline.ground.storage import at_home

from ..recipe.demo_data import write
from ..runs.environment import environment
from ..show import bar


@dataclass(frozen=True)
class Bench:
    """By row: each side's median speed (`settings["unit"]`, else images a second), and their ratio, ours to theirs.

    A row may have a `unit` of its own.
    """

    what: str
    rows: list[dict[str, Any]]  # {"name", "ours", "theirs", "ratio", "low", "high"}
    settings: dict[str, Any]
    environment: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        """Convert the result to a dict for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        unit = "" if all("unit" in r for r in self.rows) else f"{self.settings.get('unit', 'images/s')}, "
        lines = [f"{self.what}: {unit}median of {self.settings['rounds']} interleaved rounds"]
        lines += [
            f"  {r['name']:54} ours {r['ours']:8.2f}   theirs {r['theirs']:8.2f}   ratio {r['ratio']:.2f} "
            f"({r['low']:.2f} to {r['high']:.2f}){'   ' + r['unit'] if 'unit' in r else ''}"
            for r in self.rows
        ]
        e = self.environment
        return "\n".join([*lines, f"{e['processor']}, {e['cores']} cores, torch {e['torch']}, {self.settings}"])


BENCHES = {
    "train": "bench_train:bench_train",  # a whole update, images decoded before
    "loader": "bench:bench_loader",  # decoding and augmentation
    "scale": "bench_scale:bench_scale",  # workers
    "score": "bench_detect:bench_score",  # COCO's numbers from files
    "masks": "bench_detect:bench_masks",  # predicted masks to run-length codes
    "detect": "bench_detect:bench_detect",  # Mask R-CNN
    "segment": "bench_segment:bench_segment",  # DeepLab
    "upscale": "bench_upscale:bench_upscale",  # super-resolution, by pixels and against a critic
    "video": "bench_video:bench_video",  # frames by number, and R3D-18 on clips
    "joint": "bench_joint:bench_joint",  # several tasks on one trunk, beside a model for each
    "sharing": "bench_sharing:bench_sharing",  # what training together changes, seed by seed
    "gpu": "bench_gpu:bench_gpu",  # all that a GPU is asked: speeds, kernels, idle time, loader, compile
}


def options(what: str) -> Callable[..., Bench]:
    """Return the function that measures `what`; its keyword arguments are the settings.

    Raises RecipeError where `what` is not in BENCHES.
    """
    if what not in BENCHES:
        raise RecipeError(f"{what!r} cannot be measured; expected {', '.join(BENCHES)}")
    return load_named(f"{__package__}.{BENCHES[what]}")


def positive(**numbers: int) -> None:
    """Raise RecipeError naming each number that is not above 0."""
    if wrong := [f"{key}={value}: expected a number above 0" for key, value in numbers.items() if value < 1]:
        raise RecipeError(wrong)


def paired(
    name: str, ours: Callable, theirs: Callable, units: int, rounds: int, steps: int, advance: Any, warm: bool = True
) -> dict:
    """Time interleaved rounds of both sides, and return their row of the result. A step does `units` of work.

    With `warm` each side takes one step before the first round.
    """
    for side in (ours, theirs) if warm else ():
        side()
    speeds = []
    for number in range(rounds):
        pair = {}
        for side in (ours, theirs) if number % 2 else (theirs, ours):
            start = time.perf_counter()
            for _ in range(steps):
                side()
            pair[side] = units * steps / (time.perf_counter() - start)
        speeds.append((pair[ours], pair[theirs]))
        advance()
    return row(name, speeds)


def by_precision(
    what: str,
    machine: Any,
    units: int,
    rounds: int,
    sides: Callable[[Any], tuple[Any, Any]],
    difference: Callable[[Any, Any], Any],
) -> tuple[list[dict[str, Any]], Any]:
    """Measure prediction and training, at equal settings (fp32) and with our defaults against theirs.

    `sides` makes ours and theirs for a machine, each a `predict` and a `train` to call; a call does `units` of work.
    Returns the rows, and the `difference` between both sides' predictions at equal settings.
    """
    pairs = [
        ("fp32, NCHW, both", "fp32", False),
        (f"our defaults ({machine.precision}) against theirs (fp32)", machine.precision, machine.channels_last is True),
    ]
    rows, found = [], None
    with bar(f"bench {what}", 2 * len(pairs) * rounds, "rounds") as advance:
        for name, precision, channels_last in pairs:
            own, other = sides(replace(machine, precision=precision, channels_last=channels_last))
            if precision == "fp32" and not channels_last:
                found = difference(own["predict"](), other["predict"]())
            for part in ("predict", "train"):
                rows.append(paired(f"{part}: {name}", own[part], other[part], units, rounds, 1, advance))
            del own, other
            gc.collect()
    return rows, found


def as_usual(step: Callable[[], Any]) -> Callable[[], Any]:
    """Wrap a step of others to run as their users run it: without the deterministic kernels of our engine."""
    import torch

    def take() -> Any:
        before = torch.are_deterministic_algorithms_enabled()
        torch.use_deterministic_algorithms(False)
        try:
            return step()
        finally:
            torch.use_deterministic_algorithms(before)

    return take


def row(name: str, speeds: list[tuple[float, float]]) -> dict[str, Any]:
    """Build a row from pairs of speeds (ours, theirs): both medians, and the median, lowest and highest ratio."""
    ratios = sorted(ours / theirs for ours, theirs in speeds)
    return {
        "name": name,
        "ours": statistics.median(ours for ours, _ in speeds),
        "theirs": statistics.median(theirs for _, theirs in speeds),
        "ratio": statistics.median(ratios),
        "low": ratios[0],
        "high": ratios[-1],
    }


def bench_loader(
    *, data: str | None = None, size: int = 224, batch: int = 32, loaders: int = 1, rounds: int = 7, images: int = 256
) -> Bench:
    """Measure decoding and augmentation (images a second) beside `ImageFolder` with torchvision's reference transforms.

    data           a folder of class folders (its train/ where it has one); by default generated ones of 384 x 384 pixels
    loaders        processes on both sides; 0 decodes in this one
    images         decoded in each round
    """
    from .plain import loader

    positive(size=size, batch=batch, rounds=rounds, images=images)
    if loaders < 0:
        raise RecipeError(f"loaders={loaders}: expected 0 or more")
    root = Path(at_home(data)) if data else _photos()
    folder = root / "train" if (root / "train").is_dir() else root
    ours = _our_loader(root, size, batch, loaders, images)

    def theirs() -> int:
        seen, batches = 0, loader(folder, size, batch, loaders)
        while seen < images:
            for x, _ in batches:
                seen += len(x)
                if seen >= images:
                    break
            else:
                batches = loader(folder, size, batch, loaders)
        return seen

    speeds = []
    with bar("bench loader", rounds + 1, "rounds") as advance:
        for number in range(rounds + 1):
            pair = {}
            for side in (ours, theirs) if number % 2 else (theirs, ours):
                start = time.perf_counter()
                pair[side] = side() / (time.perf_counter() - start)
            if number:  # the first round reads the files into memory
                speeds.append((pair[ours], pair[theirs]))
            advance()
    measured = row(f"{size} px, batch {batch}, {loaders} loaders", speeds)
    settings = {"data": str(root), "size": size, "batch": batch, "loaders": loaders, "rounds": rounds, "images": images}
    return Bench("loader", [measured], settings, environment())


def _our_loader(root: Path, size: int, batch: int, loaders: int, images: int) -> Callable[[], int]:
    from ...backbones.contract import Preprocessing
    from ...tasks.classification.options import Options
    from ...tasks.classification.task import Classification
    from ..feeding.draws import Draws
    from ..feeding.mixture import Mixture, Share
    from ..feeding.plan import Plan
    from ..feeding.updates import updates

    val = 0.0 if (root / "train").is_dir() else 0.1
    task = Classification(Options(data=str(root), val=val, size=size, on_bad_sample="skip"), Preprocessing())
    samples = task.samples("train")
    samples = samples.without(dict(samples.excluded))
    plan = Plan.over(samples, batch, batch, 0)
    draws, mixture = {task.name: Draws(task, samples, 0, training=True)}, Mixture((Share(task.name, plan),))
    return lambda: sum(len(t.micro_batches[0]) for t in updates(draws, mixture, 0, -(-images // batch), loaders))


def _photos() -> Path:
    """Write generated JPEG pictures of 384 x 384 pixels into the cache, for want of data; return their folder."""

    folder = cache_folder() / "scenes" / "bench-384"
    write("demo:smoke", folder, train=256, size=384)
    return folder
