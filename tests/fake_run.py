"""A run folder as training leaves it, without any training: for the tests of the report and for looking at it."""

import json
import math
import os
import random
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw

from trunkline.heads.classification import ClassPrediction
from trunkline.heads.contract import Batch
from trunkline.tasks.classification.evaluator import ClassificationEvaluator
from trunkline.tasks.scores import metrics_of


def fake_run(
    folder: Path, classes: list[str], samples: int = 153, updates: int = 360, skill: float = 2.2, seed: int = 0
) -> Path:
    """Write the run; its scores come from the real evaluator on made-up predictions, better with more `skill`."""
    folder.mkdir(parents=True, exist_ok=True)
    scores, shown = _scored(folder, classes, samples, skill, seed)
    recipe = {
        "recipe": "transfer",
        "knobs": {"data": "data/hymenoptera", "weights": "resnet50_v1.safetensors", "mode": "full", "size": 160,
                  "on_bad_sample": "skip"},
        "resolved": {
            "tasks": {"classification": {"data": "data/hymenoptera", "val": 0.0, "size": 160, "scale": [0.08, 1.0],
                                         "flip": 0.5, "on_bad_sample": "skip"}},
            "network": {"backbone": None, "weights": "resnet50_v1.safetensors", "norm": "batch", "stride_in": "1x1"},
            "batch": {"size": 16, "micro": 8},
            "phases": [{"name": "warm", "epochs": 2, "frozen": 5}, {"name": "full", "epochs": 10, "frozen": 0}],
            "optimizer": {"name": "sgd", "lr": 0.005, "momentum": 0.9, "weight_decay": 0.0001},
            "schedule": {"name": "cosine"},
            "average": {"decay": 0.99},
            "machine": {"device": "cpu", "precision": "bf16", "channels_last": True, "threads": 2, "workers": 2},
            "evaluation": {"metric": "top1", "every": 1.0},
            "log": {"every": 1, "tensorboard": True},
            "seed": seed,
        },
        "auto": {"machine.precision": ["bf16", "this CPU has avx512_bf16"], "machine.threads": [2, "2 cores for this process"]},
    }  # fmt: skip
    documents = {
        "recipe.json": recipe,
        "scores.json": scores,
        "shown.json": {"classification": shown},
        "environment.json": {"trunkline": "0.1.0", "python": "3.11.2", "torch": "2.14.1", "processor": "A processor",
                             "cores": 2, "gpu": None},
        "load.json": {"report": "320 of 320 tensors from resnet50_v1.safetensors",
                      "replaced": [f"classifier: 1000 -> {len(classes)} classes"]},
        "excluded.json": {"train/ants/imageNotFound.gif": "not a photo's suffix (.gif)"},
    }  # fmt: skip
    for name, document in documents.items():
        (folder / name).write_text(json.dumps(document))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in _metrics(updates, scores, seed)))
    return folder


def _scored(folder: Path, classes: list[str], samples: int, skill: float, seed: int) -> tuple[dict, dict]:
    """What `scores.json` says, and what `shown.json` says of the task."""
    random_numbers, k = np.random.default_rng(seed), len(classes)
    label = random_numbers.integers(0, k, samples)
    logits = random_numbers.normal(size=(samples, k))
    logits[np.arange(samples), label] += skill
    p = np.exp(1.6 * logits)
    p = (p / p.sum(1, keepdims=True)).astype(np.float32)
    ids = [f"val/{classes[y]}/{i:06d}.jpg" for i, y in enumerate(label)]
    batch = Batch("classification", ids, targets={"label": torch.from_numpy(label)})
    evaluator = ClassificationEvaluator(classes)
    evaluator.add(evaluator.measure(batch, [ClassPrediction(i, row) for i, row in zip(ids, p, strict=True)]))
    found = evaluator.result()
    for mistake, source in zip(found.details["mistakes"], pictures(folder), strict=False):
        mistake["source"] = str(source)
    document = found.to_json() | {"split": "val", "weights": "ema", "checkpoint": "000360", "update": 360,
                                  "recipe": "transfer", "data": "data/hymenoptera"}  # fmt: skip
    metrics = {name: asdict(metric) for name, metric in metrics_of(evaluator).items()}
    blocks = [block.to_json() for block in evaluator.blocks(found)]
    return document, {"unit": "images", "metrics": metrics, "blocks": blocks}


def pictures(folder: Path) -> list[Path]:
    """Real photos where there are some, drawn ones elsewhere."""
    data = os.environ.get("TRUNKLINE_TEST_DATA")
    if data and (Path(data) / "hymenoptera").is_dir():
        return sorted((Path(data) / "hymenoptera" / "val").glob("*/*.jpg"))[::7]
    made = []
    for i in range(24):
        picture = Image.new("RGB", (200 + 20 * (i % 5), 180), (40 + 8 * i, 120, 200 - 6 * i))
        ImageDraw.Draw(picture).ellipse((30, 30, 120 + i, 140), fill=(240, 200, 20))
        made.append(folder / "pictures" / f"{i}.jpg")
        made[-1].parent.mkdir(exist_ok=True)
        picture.save(made[-1])
    return made


def _metrics(updates: int, scores: dict, seed: int) -> list[dict]:
    chance, lines, time = random.Random(seed), [], 1.7e9
    per_epoch, names = (
        max(1, updates // 12),
        [n for n in ("top1", "mean_per_class", "ece", "nll", "auroc") if n in scores],
    )
    lines.append(
        {"kind": "note", "phase": 0, "update": 0, "text": "15 updates an epoch of 16; 4 samples wait for the next"}
    )
    for update in range(1, updates + 1):
        phase, progress = int(update > updates / 6), update / updates
        at = {"phase": phase, "update": update, "epoch": update / per_epoch}
        loss = 0.25 + 0.6 * math.exp(-5 * progress) + chance.gauss(0, 0.08 * (1.2 - progress))
        rate = 0.01 * (1 - 6 * progress) if not phase else 0.0025 * (1 + math.cos(math.pi * (progress * 1.2 - 0.2)))
        time += 0.5
        lines.append({"kind": "train", **at, "loss": abs(loss), "lr": max(rate, 0), "grad_norm": 1.0,
                      "losses": {"classification/cross_entropy": abs(loss)},
                      "images_per_second": 32 + chance.random(), "wait": 0.05 + 0.02 * chance.random(),
                      "time": time})  # fmt: skip
        if update % per_epoch == 0:
            time += 4
            for weights, noise in (("raw", 0.03), ("ema", 0.008)):
                metrics, intervals = {}, {}
                for name in names:
                    far = (1 - progress) * (0.25 if name not in ("ece", "nll") else -0.3)
                    value = scores[name] - far * progress + chance.gauss(0, noise) - far * 0.6
                    low, high = scores["intervals"][name]
                    metrics[name] = max(0.0, min(value, 1.0))
                    ends = metrics[name] + low - scores[name], metrics[name] + high - scores[name]
                    intervals[name] = [max(0.0, ends[0]), min(1.0, ends[1])]
                lines.append({"kind": "eval", **at, "split": "val", "weights": weights, "metrics": metrics,
                              "intervals": intervals, "time": time})  # fmt: skip
    return lines
