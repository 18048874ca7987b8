"""Runs in forked processes that are killed at a moment, and what stands in their checkpoints."""

import json
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch

from trunkline.cluster.checkpoint import read_tensors
from trunkline.cluster.launchers.ray_pool import Actor
from trunkline.pipelines.training.session import Stopped
from trunkline.pipelines.training.train import train


def final(run: Path) -> dict[str, torch.Tensor]:
    """Everything in a run's last checkpoint, those of players beside the model too."""
    folder = run / "checkpoints" / (run / "checkpoints" / "last").read_text()
    return {f"{file.relative_to(folder).with_suffix('')}:{name}": tensor
            for file in sorted(folder.rglob("*.safetensors")) for name, tensor in read_tensors(file).items()}  # fmt: skip


def assert_equal(one: Path, other: Path) -> None:
    a, b = final(one), final(other)
    assert a.keys() == b.keys()
    assert [n for n in a if not torch.equal(a[n], b[n])] == []


def files_in(folder: Path) -> dict[str, bytes]:
    """What a folder holds, by path."""
    return {f.relative_to(folder).as_posix(): f.read_bytes() for f in sorted(folder.rglob("*")) if f.is_file()}


def results_of(run: Path) -> dict[str, bytes]:
    """The weights, the scores, the records and the drawn pictures of a run."""
    kept = ("weights.safetensors", "scores.json", "predictions/")
    return {name: content for name, content in files_in(run).items() if name.startswith(kept)}


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class Lost(BaseException):
    """The end of a run that nothing catches and nothing is saved for."""


def lose() -> None:
    raise Lost


def at_call(owner, name: str, number: int, act, after: bool = False):
    """Make the `number`-th call of `owner.name` act before (or after) it runs."""
    original, calls = getattr(owner, name), [0]

    def counted(*args, **kwargs):
        calls[0] += 1
        if calls[0] == number and not after:
            act()
        result = original(*args, **kwargs)
        if calls[0] == number and after:
            act()
        return result

    setattr(owner, name, counted)


def in_child(resolved, run: Path, prepare: Callable[[], None] = lambda: None) -> int:
    """Train in a forked process; its exit status, negative for a signal."""
    return forked(lambda: train(resolved, run), prepare)


def forked(act: Callable[[], object], prepare: Callable[[], None] = lambda: None) -> int:
    """Do something in a forked process; its exit status, negative for a signal."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            torch.set_num_threads(1)
            prepare()
            act()
            code = 0
        except Stopped as stopped:
            code = 128 + stopped.signum
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def several(args, workers) -> None:
    """Train several runs, one after another, in one group of workers: each has a recipe, settings, a folder and a stage.

    One that is `lost` in a step is gone on with by a session and an engine of their own.
    """
    from trunkline.cluster.engines.torch_engine import TorchEngine
    from trunkline.pipelines.launch.launch import launch_of
    from trunkline.pipelines.recipe import plugin
    from trunkline.pipelines.recipe.knobs import resolve

    torch.set_num_threads(1)
    for spec in args["runs"]:
        if spec.get("plugin"):
            plugin.load(spec["plugin"])
        resolved = resolve(spec["recipe"], spec["given"])
        launch, _ = launch_of({} if spec.get("zero") is None else {"zero": spec["zero"]})
        if spec.get("lost"):
            at_call(TorchEngine, "_step", spec["lost"], lose)
            with suppress(Lost):
                train(resolved, spec["run"], workers, launch)
        train(resolved, spec["run"], workers, launch)


@contextmanager
def pool_here(call: str, args: Any, launch: Any) -> Iterator[Callable[[list[Any]], Iterator[Any]]]:
    """A pool of Ray's actors without Ray: they take turns in this process, and all that they are told and say is JSON."""
    actors = [Actor(call, json.loads(json.dumps(args)), 1) for _ in range(launch.workers)]
    yield lambda items: (json.loads(actors[n % len(actors)]({"item": [json.dumps(item)]})["result"][0])["result"]
                         for n, item in enumerate(items))  # fmt: skip
