"""Pair the speed of one state of the code with another's: updates, predictions, and updates of two workers.

    python tests/compatibility/same_speed.py BEFORE AFTER [--rounds N] [--only NAME] [--row PART]

BEFORE and AFTER are the Python of an environment each in which that state's `trunkline` is installed. Both take turns in
one run, and are started anew three times, as where a process has its memory makes some per cent. The number of a row is the
median of the paired ratios, after to before, above 1 where the new state is faster.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

TURN, STARTS = 1.5, 3
NAMES = ("train", "segment", "detect", "scale", "data")
SCALES = ("engine", "zero0", "exact")  # fp32 sums, ZeRO 0, exact sums


def steps_of(name: str) -> dict[str, Any]:
    """Build what is measured, by row: functions that take one step each."""
    if name == "data":
        from data_speed import steps

        return steps()
    import torch

    from trunkline.backbones import backbone
    from trunkline.backbones.contract import Preprocessing
    from trunkline.backbones.pyramid import Pyramid
    from trunkline.cluster.config import Average, Learning, Machine, Optimizer, Schedule
    from trunkline.cluster.engines.torch_engine import TorchEngine
    from trunkline.heads.classification import ClassificationHead
    from trunkline.heads.contract import Batch
    from trunkline.heads.model import Model, losses
    from trunkline.heads.pixels.segmentation import SegmentationHead
    from trunkline.heads.rcnn import RCNNHead
    from trunkline.pipelines.evaluation.measure import inference

    torch.manual_seed(0)
    sizes = {"train": (8, 224), "segment": (4, 256), "detect": (2, 320)}
    count, side = sizes[name]
    images = torch.randint(0, 256, (count, 3, side, side), dtype=torch.uint8)
    mask = torch.randint(0, 21, (count, side, side), dtype=torch.uint8)
    corner = torch.rand(count, 8, 2) * side * 0.6
    boxes = [*torch.cat([corner, corner + 8 + torch.rand(count, 8, 2) * side * 0.3], 2)]
    planes = [torch.zeros(8, side, side, dtype=torch.uint8) for _ in range(count)]
    for plane, own in zip(planes, boxes, strict=True):
        for one, (x0, y0, x1, y1) in zip(plane, own.int().tolist(), strict=True):
            one[y0:y1, x0:x1] = 1

    def made(precision: str, channels_last: bool) -> dict[str, Any]:
        if name == "train":
            trunk, targets = backbone("resnet50"), {"label": torch.arange(count)}
            model = Model(trunk, {"task": ClassificationHead(2048, 100)}, Preprocessing())
        elif name == "segment":
            trunk, targets = backbone("resnet50", output_stride=16), {"mask": mask}
            head = SegmentationHead("deeplabv3plus", trunk.channels, 21, output_stride=16)
            model = Model(trunk, {"task": head}, Preprocessing())
        else:
            trunk = Pyramid(backbone("resnet50", norm="frozen"))
            targets = {"boxes": boxes, "labels": [torch.arange(8)] * count, "masks": planes}
            model = Model(trunk, {"task": RCNNHead(256, trunk.strides, 80, masks=True)}, Preprocessing())
            model.freeze(2)
        machine = Machine("cpu", precision, channels_last, deterministic=True, threads=os.cpu_count() or 1)
        learning = Learning(Optimizer("momentum", lr=1e-4), Schedule("constant"), Average(), 10**6, 100)
        engine = TorchEngine(model, losses, learning, machine)
        batch = Batch("task", [str(i) for i in range(count)], images, targets=targets)

        def predict() -> None:
            with inference(model, precision, torch.device("cpu")):
                model.predict(batch)

        return {"train": lambda: engine.update([batch]), "predict": predict}

    found: dict[str, Any] = {}
    for title, setting in (("fp32", ("fp32", False)), ("bf16, channels_last", ("bf16", True))):
        found |= {f"{part}, {title}": step for part, step in made(*setting).items()}
    return found


def serve(name: str) -> None:
    """Build the steps; then, for every row named on stdin, take that step for TURN seconds or so, and say the mean of them."""
    steps = steps_of(name)
    repeat: dict[str, int] = {}
    print(json.dumps(list(steps)), flush=True)
    for line in sys.stdin:
        row, start = line.strip(), time.perf_counter()
        for _ in range(repeat.get(row, 1)):
            steps[row]()
        mean = (time.perf_counter() - start) / repeat.get(row, 1)
        repeat.setdefault(row, max(1, round(TURN / mean)))
        print(mean, flush=True)


def turns(name: str, pythons: list[str], rounds: int, part: str) -> dict[str, list[tuple[float, float]]]:
    """Start both states and let them take turns; return the seconds (before, after) of each round, by row."""
    sides = [subprocess.Popen([python, __file__, "serve", name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
             for python in pythons]  # fmt: skip

    def ask(side: Any, row: str) -> float:
        side.stdin.write(row + "\n")
        side.stdin.flush()
        return float(side.stdout.readline())

    rows, _ = (json.loads(side.stdout.readline()) for side in sides)
    rows = [row for row in rows if part in row]
    found: dict[str, list[tuple[float, float]]] = {row: [] for row in rows}
    for number in range(rounds + 1):
        for row in rows:
            order = (0, 1) if number % 2 else (1, 0)
            took = {at: ask(sides[at], row) for at in order}
            if number:  # the first round warms up
                found[row].append((took[0], took[1]))
    for side in sides:
        side.stdin.close()
        side.wait()
    return found


def scale(pythons: list[str], rounds: int) -> dict[str, list[tuple[float, float]]]:
    """Let two workers of each state take turns, as `bench scale` does."""
    groups = [(group, name) for name in SCALES for group in ("before", "after")]
    schedule = [each for r in range(rounds + 1) for each in (groups if r % 2 else groups[::-1])]
    with tempfile.TemporaryDirectory() as folder:
        args = {"folder": folder, "schedule": schedule, "steps": 2, "size": 64, "wide": 112}
        running = []
        for group, python in zip(("before", "after"), pythons, strict=True):
            code = ("import json, sys, pathlib; from trunkline.cluster.launchers.local import run_local; "
                    "from trunkline.cluster.launchers.worker import Job; args = json.loads(sys.argv[1]); "
                    "run_local(Job('trunkline.pipelines.bench.bench_scale:measure', args, 600.0), 2, "
                    "pathlib.Path(args['folder']) / ('logs-' + args['group']), 2)")  # fmt: skip
            running.append(subprocess.Popen([python, "-c", code, json.dumps({**args, "group": group})]))
        assert [process.wait() for process in running] == [0, 0]
        seconds = [float((Path(folder) / str(n)).read_text()) for n in range(len(schedule))]
    found: dict[str, dict[str, list[float]]] = {name: {"before": [], "after": []} for name in SCALES}
    for (group, name), took in list(zip(schedule, seconds, strict=True))[len(groups) :]:
        found[name][group].append(took)
    return {f"two workers, {name}": list(zip(own["before"], own["after"], strict=True)) for name, own in found.items()}


def main() -> None:
    if sys.argv[1] == "serve":
        return serve(sys.argv[2])
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before")
    parser.add_argument("after")
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--only", choices=NAMES)
    parser.add_argument("--row", default="", help="a part of the rows' names")
    given = parser.parse_args()
    for name in [given.only] if given.only else NAMES:
        pythons = [given.before, given.after]
        found: dict[str, list[tuple[float, float]]] = {}
        for _ in range(STARTS):
            each = -(-given.rounds // STARTS)
            took = scale(pythons, each) if name == "scale" else turns(name, pythons, each, given.row)
            for row, pairs in took.items():
                found.setdefault(row, []).extend(pairs)
        for row, pairs in found.items():
            ratios = sorted(before / after for before, after in pairs)
            print(
                f"{name + ': ' + row:38} {statistics.median(ratios):.3f} ({ratios[0]:.2f} to {ratios[-1]:.2f})",
                flush=True,
            )


if __name__ == "__main__":
    main()
