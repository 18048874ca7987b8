"""Where the time of an update goes."""

import itertools
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from trunkline.ground.errors import RecipeError
from trunkline.ground.keys import key

from ...cluster.config import Launch
from ...cluster.engines.torch_engine import PARTS, TorchEngine
from ...cluster.workers import Workers
from ...heads.model import losses
from ..feeding.feed import Draws, Plan, Turn, decoding, turns
from ..recipe.knobs import Resolved, from_plain
from ..runs.files import new_file
from ..runs.run import Run
from ..training.train import prepare, settle


@dataclass(frozen=True)
class Profile:
    """Seconds an update by part, the share that the engine waits for data, and the dearest operators."""

    updates: int
    seconds: float
    parts: dict[str, float]
    wait: float
    images_per_second: float
    operators: list[tuple[str, float]] = field(default_factory=list)
    trace: str | None = None

    def to_json(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)

    def __str__(self) -> str:
        lines = [f"{self.seconds:.3f} s an update, {self.images_per_second:.1f} images/s, over {self.updates} updates"]
        lines += [f"  {name:10} {s:8.4f} s  {s / self.seconds:6.1%}" for name, s in self.parts.items()]
        lines += ["dearest operators, own time in an update:"]
        lines += [f"  {name[:48]:48} {s:8.4f} s" for name, s in self.operators]
        return "\n".join(lines + ([f"trace: {self.trace} (chrome://tracing, ui.perfetto.dev)"] if self.trace else []))


def profile(resolved: Resolved, updates: int = 6, out: str | Path | None = None) -> Profile:
    """Run two updates to warm up and `updates` more under torch's profiler; no run folder is touched."""
    if updates < 1:
        raise RecipeError(f"profile_updates={updates}: expected a number above 0")
    file = new_file(out) if out else None
    with tempfile.TemporaryDirectory() as folder:
        resolved = replace(
            resolved, recipe=replace(resolved.recipe, log=replace(resolved.recipe.log, tensorboard=False))
        )
        recipe = from_plain(settle(resolved, Run(folder))["resolved"])
        session, _ = prepare(recipe, Run(folder), Workers(), Launch())
        engine, plan, feed = _ready(session, recipe, updates + 2)
        with decoding(int(recipe.machine.workers)):
            for turn in itertools.islice(feed, 2):
                engine.update(losses, turn.micro_batches)
            waited, start = 0.0, time.perf_counter()
            with torch.profiler.profile(acc_events=True) as trace:
                for turn in feed:
                    waited += turn.waited
                    engine.update(losses, turn.micro_batches)
        seconds = (time.perf_counter() - start) / updates
    events = trace.key_averages()
    kind = "device_time_total" if session.device.type == "cuda" else "cpu_time_total"
    own = "self_device_time_total" if session.device.type == "cuda" else "self_cpu_time_total"
    parts = {"wait": waited / updates}
    parts |= {e.key.partition("::")[2]: getattr(e, kind) / 1e6 / updates for e in events if e.key in PARTS}
    parts["rest"] = max(0.0, seconds - sum(parts.values()))
    dear = sorted(((e.key, getattr(e, own) / 1e6 / updates) for e in events if e.key not in PARTS), key=lambda p: -p[1])
    if file:
        trace.export_chrome_trace(str(file))
        if not file.is_file():
            raise RecipeError(f"out={out}: the trace could not be written there; choose another place")
    path = str(file) if file else None
    return Profile(updates, seconds, parts, parts["wait"] / seconds, plan.batch / seconds, dear[:8], path)


def _ready(session: Any, recipe: Any, count: int) -> tuple[TorchEngine, Plan, Iterator[Turn]]:
    phase = recipe.phases[0]
    session.model.freeze(phase.frozen)
    micro = recipe.batch.size if not isinstance(recipe.batch.micro, int) else recipe.batch.micro
    plan = Plan.over(session.training, recipe.batch.size, micro, key(recipe.seed, "phase", 0))
    engine = TorchEngine(
        session.model, recipe.optimizer, recipe.schedule, recipe.average, recipe.machine,
        total=count, per_epoch=plan.per_epoch,
    )  # fmt: skip
    draws = Draws(session.task, session.training, plan.seed, training=True)
    return engine, plan, turns(draws, plan, 0, count, int(recipe.machine.workers), session.device.type == "cuda")
