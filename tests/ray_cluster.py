"""A Ray cluster of several nodes on this machine, and runs on it that something happens to."""

import json
import os
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import psutil
import torch
from safetensors.torch import load_file

SETTINGS = {"weights": "none", "backbone": "narrow", "size": 32, "batch": 12, "micro_batch": 2, "optimizer.clip": 1,
            "ema": 0.9, "updates": 90, "checkpoints.updates": 8, "evaluation.every": 0, "machine.threads": 1,
            "machine.loaders": 0, "machine.precision": "fp32", "log.tensorboard": "false"}  # fmt: skip


def words(data: Path, run: Path, *more: str, **changed) -> list[str]:
    """The command of a run of 90 updates of six micro-batches."""
    settings = SETTINGS | {"data": data} | {k.replace("__", "."): v for k, v in changed.items()}
    return ["train", "transfer", *(f"{k}={v}" for k, v in settings.items()), "--run", str(run), *more]


@contextmanager
def cluster(workers: int):
    """A head without cores for workers, and nodes of one core each."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112 (so it is called; 15, its own, starves beside another test)
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    try:
        made.own = [made.add_node(num_cpus=1) for _ in range(workers)]
        yield made
    finally:
        made.shutdown()


def on(made, workers: int | str) -> list[str]:
    """Say where a command's workers are."""
    return ["--launch", "ray", "--workers", str(workers), "--address", made.address]


class Started:
    """A command in a process of its own."""

    def __init__(self, words: list[str], run: Path):
        self.run, self.log = run, run.with_suffix(".log")
        self._file = self.log.open("a")
        command = [sys.executable, "-m", "trunkline", *words]
        self.process = subprocess.Popen(command, stdout=self._file, stderr=self._file)

    def updates(self) -> list[dict]:
        file, found = self.run / "metrics.jsonl", []
        for line in file.read_text().splitlines() if file.exists() else ():
            try:
                found.append(json.loads(line))
            except ValueError:
                continue
        return [line for line in found if line["kind"] == "train"]

    def until(self, condition, seconds: float = 180):
        """Wait for it, unless the command ends before."""
        end = time.monotonic() + seconds
        while not (found := condition()):
            assert time.monotonic() < end, self.said()
            assert self.process.poll() is None, self.said()
            time.sleep(0.02)
        return found

    def until_update(self, number: int):
        return self.until(lambda: [u for u in self.updates() if u["update"] >= number])

    def step_after(self, moment: float) -> float:
        """Seconds from a moment to the first update that a new group of workers wrote after it."""
        self.until(lambda: "started again" in self.said())
        seen = time.time()
        return self.until(lambda: [u["time"] for u in self.updates() if u["time"] >= min(seen, moment + 2)])[0] - moment

    def end(self, seconds: float = 240) -> int:
        code = self.process.wait(seconds)
        self._file.close()
        return code

    def said(self) -> str:
        return self.log.read_text()


def workers_of(node) -> list[psutil.Process]:
    """The training workers of a node."""
    (raylet,) = node.all_processes["raylet"]
    children = psutil.Process(raylet.process.pid).children(recursive=True)
    return [p for p in children if "RayTrainWorker" in " ".join(p.cmdline())]


def differ(a: Path, b: Path) -> list[str]:
    """The tensors of the last checkpoint of two runs that are not the same bits."""
    wrong = []
    for part in ("model", "ema", "optimizer"):
        one, other = (
            load_file(run / "checkpoints" / (run / "checkpoints/last").read_text().strip() / f"{part}.safetensors")
            for run in (a, b)
        )
        wrong += sorted(one.keys() ^ other.keys())
        wrong += [name for name in one.keys() & other.keys() if not torch.equal(one[name], other[name])]
    return wrong
