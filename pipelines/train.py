"""Training: from a resolved recipe to a run's folder."""

import contextlib
import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from ..cluster import checkpoint
from ..cluster.config import EngineError
from ..cluster.engine import TorchEngine
from ..heads.keys import key
from ..heads.model import Model
from ..tasks.contract import DataError, Samples, Task
from ..tasks.fingerprint import compare
from .build import Facts, build
from .demo_data import placed
from .environment import environment
from .feed import Cache, Draws, Plan, cached_turns, decoding, in_order, turns
from .finish import finish
from .knobs import Resolved, from_plain, to_plain
from .loop import run_phase
from .machine import resolve_machine
from .memory import fitting_micro_batch
from .recipe import Phase, Recipe, RecipeError
from .run import Metrics, Run, claim, locked
from .scoring import apart, inference
from .session import Session, Stopped, listening
from .show import bar, samples_left_out


def train(resolved: Resolved, path: str | Path) -> Run:
    """Begin a run, or go on with it, and take it to its end: weights, scores, report.

    Raises RecipeError, WeightsError, DataError or EngineError for a user's mistake before any training is lost, and
    Stopped where the process is asked to end (the run is saved then).
    """
    run, threads = Run(path), torch.get_num_threads()
    try:
        _train(resolved, run)
    except (OSError, SafetensorError) as error:
        raise EngineError(
            f"{getattr(error, 'filename', None) or run.path}: {error}. What was saved stays: make room, or mend the rights "
            "or the path, and run the same command again"
        ) from error
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(False)
    return run


def _train(resolved: Resolved, run: Run) -> None:
    with locked(run):
        recipe, document = settle(resolved, run)
        session, state = prepare(recipe, run)
        run.write("recipe.json", document)
        with listening(session), decoding(int(recipe.machine.workers)):
            recipe = session.recipe = settle_micro_batch(session)
            for number, phase in enumerate(recipe.phases):
                train_phase(session, number, phase, state)
            session.metrics.close()
            torch.set_num_threads(int(recipe.machine.threads))
            finish(session)


def settle(resolved: Resolved, run: Run) -> tuple[Recipe, dict[str, Any]]:
    """The recipe without any `auto`, and what `recipe.json` says; a run that is there keeps what it settled on."""
    machine, why = resolve_machine(resolved.recipe.machine)
    recipe = replace(placed(resolved.recipe), machine=machine)
    document = {"recipe": resolved.name, "knobs": resolved.given, "resolved": to_plain(recipe), "auto": why}
    document = claim(run, document)
    if not (run.path / "environment.json").is_file():
        run.write("environment.json", environment())
    recipe = from_plain(document["resolved"])
    kind = recipe.machine.device.partition(":")[0]
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not there.get(kind):
        usable = ", ".join(k for k, v in there.items() if v)
        raise RecipeError(
            f"machine.device={recipe.machine.device}: this machine, or this torch, has none; there is {usable}"
        )
    return recipe, document


def settle_micro_batch(session: Session) -> Recipe:
    """The recipe with `batch.micro` as a number: `auto` is found once, at the first start, and stored with the run."""
    recipe, run = session.recipe, session.run
    if recipe.batch.micro != "auto":
        return recipe
    if all(phase.cached for phase in recipe.phases):
        micro, why = recipe.batch.size, "cached maps are small"
    else:
        draws = Draws(session.task, session.training, recipe.seed, training=True)
        sample = session.task.collate([draws.draw((0, 0, 0))])
        session.model.backbone.freeze(min(p.frozen for p in recipe.phases))  # type: ignore[operator]
        micro, why = fitting_micro_batch(apart(session.model), sample, recipe.batch.size, recipe.machine)
    document = run.recipe
    document["resolved"]["batch"]["micro"] = micro
    document["auto"]["batch.micro"] = [micro, why]
    run.write("recipe.json", document)
    session.note(f"micro-batches of {micro} samples: {why}")
    return replace(recipe, batch=replace(recipe.batch, micro=micro))


def prepare(recipe: Recipe, run: Run) -> tuple[Session, dict[str, Any] | None]:
    """Task, model and data; with the newest checkpoint's state where there is one."""
    name = checkpoint.find(run.checkpoints)
    state = checkpoint.read_state(run.checkpoints / name) if name else None
    if isinstance(recipe.machine.threads, int):
        torch.set_num_threads(recipe.machine.threads)
    stored = None
    if state:
        facts = state["facts"]
        stored = Facts(**facts)
    tasks, model, facts = build(recipe, stored)
    task = next(iter(tasks.values()))
    if not stored:
        run.write("load.json", {"report": facts.loaded, "tasks": facts.tasks})
    training, validation = splits(task, run, recipe)
    own = {k: state[k] for k in ("phase", "over", "scores", "best", "stale", "total")} if state else None
    own = own or {"phase": 0, "over": [], "scores": [], "best": None, "stale": 0, "total": 0}
    if state and state["best"] and (run.checkpoints / f"{state['best']['update']:06d}" / "state.json").is_file():
        checkpoint.write_text(
            run.checkpoints / checkpoint.BEST, f"{state['best']['update']:06d}"
        )  # a crash came between
    evaluator = task.evaluator(validation)
    names = evaluator.metrics
    if recipe.evaluation.metric not in names:
        raise RecipeError(
            f"evaluation.metric={recipe.evaluation.metric}: the task has no such metric for these "
            f"{len(validation.classes)} classes; there are {', '.join(names)}"
        )
    metrics = Metrics(run, state["update"] if state else 0, recipe.log.tensorboard)
    session = Session(run, recipe, task, model, facts, training, validation, metrics, own)
    session.lower_is_better = recipe.evaluation.metric in evaluator.lower_is_better
    session.done = state["update"] if state else 0
    session.note(f"going on from update {state['update']}" if state else f"weights: {facts.loaded}")
    if not state and (left := list({**training.excluded, **validation.excluded})):
        session.note(f"{samples_left_out(len(left))}: {', '.join(left[:5])}{' …' if len(left) > 5 else ''}")
    return session, state


def splits(task: Task, run: Run, recipe: Recipe) -> tuple[Samples, Samples]:
    """Both splits, what is to be left out left out, and the same data as when the run began (or a DataError)."""
    found = {split: task.samples(split) for split in ("train", "val")}
    listed = run.path / "excluded.json"
    options = next(iter(recipe.tasks.values()))
    if options.on_bad_sample == "skip":
        if listed.is_file():
            reasons = run.read("excluded.json")
        else:
            reasons = {}
            for samples in found.values():
                reasons |= dict(samples.excluded) | task.scan(samples, max(1, int(recipe.machine.workers)))
            run.write("excluded.json", reasons)
        found = {split: samples.without(reasons) for split, samples in found.items()}
    for split, samples in found.items():
        lines = samples.manifest()
        before = run.manifest(split)
        if before is None:
            run.keep_manifest(split, lines)
        elif before != lines:
            raise DataError(
                f"the {split} data changed since {run.path} began: {compare(before, lines)}. Put it back, or start a "
                "new run with another --run (weights=OLD_RUN keeps what was learnt)"
            )
    return found["train"], found["val"]


def train_phase(session: Session, number: int, phase: Phase, state: dict[str, Any] | None) -> None:
    """Run one phase from where the checkpoint stands. Its engine, with optimizer state and average, is its own."""
    recipe, over = session.recipe, session.state["over"]
    session.model.backbone.freeze(phase.frozen)  # type: ignore[operator]
    micro = recipe.batch.size if recipe.batch.micro == "all" else recipe.batch.micro
    assert isinstance(micro, int)
    plan = Plan(len(session.training), recipe.batch.size, micro, key(recipe.seed, "phase", number))
    length = plan.length(phase.epochs, phase.updates)
    before = sum(done for _, done in over[:number])
    if number < len(over):
        if over[number][0] != length:
            raise RecipeError(
                f"phases.{number}: was to be {over[number][0]} updates long, is over, and cannot be {length} long now: "
                "give its old length again, or start a new run with another --run"
            )
        return
    resumed = state is not None and number == state["phase"]
    session.state |= {"total": before + length, "phase": number} | ({} if resumed else {"stale": 0})
    machine = recipe.machine
    if phase.cached:  # what is left is tiny: waking a second thread costs more than it computes
        machine = replace(machine, threads=1)
    engine = TorchEngine(
        session.model, recipe.optimizer, recipe.schedule, recipe.average, machine,
        total=length, per_epoch=plan.per_epoch,
    )  # fmt: skip
    if resumed:
        assert state
        engine.load(session.run.checkpoints / f"{state['update']:06d}", state["engine"])
    if recipe.machine.compile:
        session.model.backbone.compile()
    if engine.updates < length and not session.out_of_patience():
        train_updates(session, engine, plan, before, length)
    engine.close()
    over.append([length, engine.updates])


def train_updates(session: Session, engine: TorchEngine, plan: Plan, before: int, length: int) -> None:
    """The updates of a phase that are still to be done, from decoded pictures or from cached maps."""
    recipe, machine = session.recipe, engine.machine
    if recipe.phases[session.state["phase"]].cached:
        torch.set_num_threads(int(recipe.machine.threads))
        session.caches = {
            "train": cache(session, "train", session.training, recipe.machine.precision),
            "val": cache(session, "val", session.validation, recipe.evaluation.precision),
        }
        torch.set_num_threads(int(machine.threads))
        feed = cached_turns(session.caches["train"], plan, engine.updates, length)
    else:
        session.caches = {}
        draws = Draws(session.task, session.training, plan.seed, training=True)
        pin = session.device.type == "cuda"
        feed = turns(draws, plan, engine.updates, length, int(recipe.machine.workers), pin)
    if plan.dropped and not engine.updates:
        session.note(
            f"{plan.per_epoch} updates an epoch of {plan.batch}; {plan.dropped} samples (others each time) wait for the next"
        )
    run_phase(session, engine, feed, plan, before, length)
    if engine.updates < length:
        session.note(f"stopped early: {session.state['stale']} evaluations without a better {recipe.evaluation.metric}")


def cache(session: Session, split: str, samples: Samples, precision: str) -> Cache:
    """The maps of the frozen trunk for a split, computed once and kept in the run's folder."""
    file = session.run.path / "features" / f"{split}.safetensors"
    digest = f"{samples.fingerprint()['digest']} {weights_digest(session.model.backbone)} {precision}"
    ids = [samples.id(i) for i in range(len(samples))]
    name = session.task.name
    # what is not there, or damaged, is computed again
    with contextlib.suppress(OSError, SafetensorError), safe_open(str(file), "pt") as stored:
        if (stored.metadata() or {}).get("data") == digest:
            tensors = {k: stored.get_tensor(k) for k in stored.keys()}  # noqa: SIM118
            maps = {k.removeprefix("map."): v for k, v in tensors.items() if k.startswith("map.")}
            return Cache(name, ids, maps, {k[7:]: v for k, v in tensors.items() if k.startswith("target.")})
    maps, targets = compute_maps(session, samples, precision, f"features of {split}")
    file.parent.mkdir(exist_ok=True)
    flat = {f"map.{k}": v for k, v in maps.items()} | {f"target.{k}": v for k, v in targets.items()}
    beside = file.with_suffix(".tmp")
    try:
        save_file(flat, str(beside), {"data": digest})
        beside.replace(file)
    finally:
        beside.unlink(missing_ok=True)  # what a full disk cut off
    return Cache(name, ids, maps, targets)


def weights_digest(module: torch.nn.Module) -> str:
    """BLAKE2b over a module's tensors: the features of other weights are other features."""
    total = hashlib.blake2b(digest_size=16)
    for name, tensor in sorted(module.state_dict().items()):
        total.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
    return total.hexdigest()


def compute_maps(session: Session, samples: Samples, precision: str, title: str) -> tuple[dict, dict]:
    """The maps that the head needs, condensed, and the targets; tensors with one row a sample, on the CPU."""
    model: Model = session.model
    head: Any = model.heads[session.task.name]
    draws = Draws(session.task, samples, session.recipe.seed, training=False)
    maps: dict[str, list[torch.Tensor]] = {}
    targets: dict[str, list[torch.Tensor]] = {}
    workers = int(session.recipe.machine.workers)
    with inference(model, precision, session.device), bar(title, len(samples)) as advance:
        for batch in in_order(draws, session.recipe.evaluation.batch, workers):
            found = model.maps(batch.to(session.device))
            for k, v in head.condense({n: found[n] for n in head.needs}).items():
                maps.setdefault(k, []).append(v.to(torch.promote_types(v.dtype, torch.float32)).cpu())
            for k, v in batch.targets.items():
                targets.setdefault(k, []).append(v)
            advance(len(batch))
            if session.asked_to_stop:
                raise Stopped(session.asked_to_stop, session.run, session.done)
    return {k: torch.cat(v) for k, v in maps.items()}, {k: torch.cat(v) for k, v in targets.items()}
