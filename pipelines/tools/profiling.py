"""Where the time of an update goes."""

import itertools
import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from trunkline.ground.errors import RecipeError

from ...cluster.config import Launch
from ...cluster.contract import PARTS, Engine
from ...cluster.workers import Workers
from ..feeding.ahead import sent_ahead
from ..feeding.draws import Draws
from ..feeding.loader import decoding
from ..feeding.mixture import Mixture
from ..feeding.updates import Update, updates
from ..recipe.fields import Recipe
from ..recipe.knobs import Resolved
from ..recipe.plain import from_plain
from ..runs.files import new_file
from ..runs.run import Run
from ..training.engines import make_engine
from ..training.parts import mixture
from ..training.session import Session
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
        """Convert the profile to a dict for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        lines = [f"{self.seconds:.3f} s an update, {self.images_per_second:.1f} images/s, over {self.updates} updates"]
        lines += [f"  {name:10} {s:8.4f} s  {s / self.seconds:6.1%}" for name, s in self.parts.items()]
        lines += ["dearest operators, own time in an update:"]
        lines += [f"  {name[:48]:48} {s:8.4f} s" for name, s in self.operators]
        return "\n".join(lines + ([f"trace: {self.trace} (chrome://tracing, ui.perfetto.dev)"] if self.trace else []))


def profile(resolved: Resolved, updates: int = 6, out: str | Path | None = None) -> Profile:
    """Run two updates to warm up, then `updates` more under torch's profiler; no run's folder is touched.

    Raises RecipeError where `updates` is below 1, or the trace cannot be written to `out`.
    """
    if updates < 1:
        raise RecipeError(f"profile_updates={updates}: expected a number above 0")
    file = new_file(out) if out else None
    with tempfile.TemporaryDirectory() as folder:
        resolved = replace(
            resolved, recipe=replace(resolved.recipe, log=replace(resolved.recipe.log, tensorboard=False))
        )
        recipe = from_plain(settle(resolved, Run(folder))["resolved"])
        session, _ = prepare(recipe, Run(folder), Workers(), Launch())
        engine, mixed, feed = _ready(session, recipe, updates + 2)
        with decoding(int(recipe.machine.loaders)):
            for update in itertools.islice(feed, 2):
                engine.update(update.micro_batches)
            waited, start = 0.0, time.perf_counter()
            with profiler() as trace:
                for update in feed:
                    waited += update.waited
                    engine.update(update.micro_batches)
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
    return Profile(updates, seconds, parts, parts["wait"] / seconds, mixed.batch / seconds, dear[:8], path)


def profiler() -> torch.profiler.profile:
    """Make torch's profiler, without its own remarks on stderr."""
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    return torch.profiler.profile(acc_events=True)


def _ready(session: Session, recipe: Recipe, count: int) -> tuple[Engine, Mixture, Iterator[Update]]:
    session.model.freeze(recipe.phases[0].frozen, recipe.phases[0].still)
    mixed, parts = mixture(recipe, session.parts, 0), session.parts
    engine = make_engine(session, replace(recipe.phases[0], cached=False), count, mixed.per_epoch)
    draws = {
        s.task: Draws(parts[s.task].task, parts[s.task].training, s.plan.seed, training=True) for s in mixed.shares
    }
    pin = session.device.type == "cuda"
    feed = updates(draws, mixed, 0, count, int(recipe.machine.loaders), pin)
    return engine, mixed, sent_ahead(feed, session.device)
