"""Training: from a resolved recipe to a run's folder."""

import contextlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from trunkline.ground.errors import DataError, EngineError, RecipeError, WeightsError
from trunkline.ground.keys import key

from ...cluster import checkpoint
from ...cluster.config import Launch, Machine
from ...cluster.engines.torch_engine import TorchEngine
from ...cluster.workers import Workers
from ...tasks.contract import Samples, Task
from ...tasks.data.fingerprint import compare
from ..evaluation.measure import apart
from ..feeding.feed import Draws, Plan, cached_turns, decoding, turns
from ..models.build import Facts, build
from ..recipe.demo_data import placed
from ..recipe.fields import Phase, Recipe
from ..recipe.knobs import Resolved, from_plain, to_plain
from ..runs.environment import environment
from ..runs.machine import check_device, resolve_machine
from ..runs.run import STATE, Metrics, Run, claim, locked
from ..show import samples_left_out
from .checks import check_lengths, check_metric, divide, preflight, shared
from .features import cache, weights_digest
from .finish import finish
from .loop import run_phase
from .memory import fitting_micro_batch
from .session import Session, listening

MISTAKES = (RecipeError, WeightsError, DataError)


def train(resolved: Resolved, path: str | Path, workers: Workers | None = None, launch: Launch | None = None) -> Run:
    """Begin a run, or go on with it, and take it to its end: weights, scores, report.

    Every worker of a group calls it; the one that leads writes the run's folder, which the others read.

    Raises RecipeError, WeightsError, DataError or EngineError for a user's mistake before any training is lost, and
    Stopped where the process is asked to end (the run is saved then).
    """
    run, threads = Run(path), torch.get_num_threads()
    try:
        _train(resolved, run, workers or Workers(), launch or Launch())
    except (OSError, SafetensorError) as error:
        raise EngineError(
            f"{getattr(error, 'filename', None) or run.shown}: {error}. What was saved stays: make room, or mend the rights "
            "or the path, and run the same command again"
        ) from error
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(False)
    return run


def _train(resolved: Resolved, run: Run, workers: Workers, launch: Launch) -> None:
    with contextlib.ExitStack() as held:
        document = workers.from_lead(lambda: _begin(resolved, run, held, launch), "reading the recipe")
        shared(run, workers)
        recipe = from_plain(document["resolved"])
        session, state = prepare(recipe, run, workers, launch)
        check_lengths(session, state)
        workers.from_lead(lambda: run.write("recipe.json", document), "writing the recipe")
        workers.from_lead(run.push, "sending the run")
        with listening(session), decoding(int(recipe.machine.workers)):
            recipe = session.recipe = settle_micro_batch(session)
            for number, phase in enumerate(recipe.phases):
                train_phase(session, number, phase, state)
            if workers.leads:
                assert session.metrics
                session.metrics.close()
                torch.set_num_threads(int(recipe.machine.threads))
                finish(session)
                run.push()


def _begin(resolved: Resolved, run: Run, held: contextlib.ExitStack, launch: Launch) -> dict[str, Any]:
    patience = 60.0 if launch.launch == "ray" else 0.0  # a worker outlives a command that was killed by some seconds
    there = run.path.exists()
    held.enter_context(locked(run, patience))
    run.pull()
    if not there:  # while it is held: a mistake leaves no folder behind
        held.push(lambda kind, *_: run.vanish() if kind and issubclass(kind, MISTAKES) else None)
    return settle(resolved, run)


def settle(resolved: Resolved, run: Run) -> dict[str, Any]:
    """What `recipe.json` says: a recipe without any `auto`; a run that is there keeps what it settled on."""
    machine, why = resolve_machine(resolved.recipe.machine)
    recipe = replace(placed(resolved.recipe), machine=machine)
    if not run.trained:
        preflight(recipe)
    document = {"recipe": resolved.name, "knobs": resolved.given, "resolved": to_plain(recipe), "auto": why}
    document = claim(run, document)
    if not (run.path / "environment.json").is_file():
        run.write("environment.json", environment())
    check_device(document["resolved"]["machine"]["device"])
    return document


def settle_micro_batch(session: Session) -> Recipe:
    """The recipe with `batch.micro` as a number: `auto` is found once, at the first start, and stored with the run."""
    recipe = session.recipe
    if recipe.batch.micro != "auto":
        return recipe
    micro = session.workers.from_lead(lambda: _fitting_micro_batch(session), "finding what fits into memory")
    return replace(recipe, batch=replace(recipe.batch, micro=micro))


def _fitting_micro_batch(session: Session) -> int:
    recipe, run = session.recipe, session.run
    if all(phase.cached for phase in recipe.phases):
        micro, why = recipe.batch.size, "cached maps are small"
    else:
        draws = Draws(session.task, session.training, recipe.seed, training=True)
        sample = session.task.collate([draws.draw((0, 0, 0))])
        session.model.freeze(min(p.frozen for p in recipe.phases))
        micro, why = fitting_micro_batch(apart(session.model), sample, recipe.batch.size, recipe.machine)
    document = run.recipe
    document["resolved"]["batch"]["micro"] = micro
    document["auto"]["batch.micro"] = [micro, why]
    run.write("recipe.json", document)
    session.note(f"micro-batches of {micro} samples: {why}")
    return micro


def prepare(recipe: Recipe, run: Run, workers: Workers, launch: Launch) -> tuple[Session, dict[str, Any] | None]:
    """Task, model and data; with the newest checkpoint's state where there is one."""
    name = workers.from_lead(lambda: checkpoint.find(run.checkpoints), "looking for a checkpoint")
    state = checkpoint.read_state(run.checkpoints / name, *STATE) if name else None
    if isinstance(recipe.machine.threads, int):
        torch.set_num_threads(recipe.machine.threads)
    stored = None
    if state:
        facts = state["facts"]
        stored = Facts(**facts)
    tasks, model, facts = build(recipe, stored)
    task = next(iter(tasks.values()))
    if not stored and workers.leads:
        run.write("load.json", {"report": facts.loaded, "tasks": facts.tasks})
    training, validation = splits(task, run, recipe, workers)
    own = {k: state[k] for k in ("phase", "over", "scores", "best", "stale", "total")} if state else None
    own = own or {"phase": 0, "over": [], "scores": [], "best": None, "stale": 0, "total": 0}
    check_metric(recipe, task, validation)
    metrics = None
    if workers.leads:
        if state and state["best"] and (run.checkpoints / f"{state['best']['update']:06d}" / "state.json").is_file():
            checkpoint.write_text(
                run.checkpoints / checkpoint.BEST, f"{state['best']['update']:06d}"
            )  # a crash came between
        metrics = Metrics(run, state["update"] if state else 0, recipe.log.tensorboard)
    session = Session(run, recipe, task, model, facts, training, validation, metrics, own, workers, launch)
    session.lower_is_better = recipe.evaluation.metric in task.evaluator(validation).lower_is_better
    session.done = state["update"] if state else 0
    session.note(f"going on from update {state['update']}" if state else f"weights: {facts.loaded}")
    if not state and (left := list({**training.excluded, **validation.excluded})):
        session.note(f"{samples_left_out(len(left))}: {', '.join(left[:5])}{' …' if len(left) > 5 else ''}")
    if not state:
        for split, samples in (("train", training), ("val", validation)):
            for remark in samples.remarks():
                session.note(f"{split}: {remark}")
    return session, state


def splits(task: Task, run: Run, recipe: Recipe, workers: Workers) -> tuple[Samples, Samples]:
    """Both splits, what is to be left out left out, and the same data as when the run began (or a DataError)."""
    found = {split: task.samples(split) for split in ("train", "val")}
    options = next(iter(recipe.tasks.values()))
    if options.on_bad_sample == "skip":
        decoders = max(1, int(recipe.machine.workers))
        reasons = workers.from_lead(lambda: _excluded(task, run, list(found.values()), decoders), "decoding the data")
        found = {split: samples.without(reasons) for split, samples in found.items()}
    workers.alike({split: samples.fingerprint()["digest"] for split, samples in found.items()}, "the data that is read")
    workers.from_lead(lambda: _compare_data(run, found), "comparing the data")
    return found["train"], found["val"]


def _excluded(task: Task, run: Run, splits: list[Samples], decoders: int) -> dict[str, str]:
    """What cannot be decoded, and why: found once, and part of the run."""
    if (run.path / "excluded.json").is_file():
        return run.read("excluded.json")
    reasons: dict[str, str] = {}
    for samples in splits:
        reasons |= dict(samples.excluded) | task.scan(samples, decoders)
    run.write("excluded.json", reasons)
    return reasons


def _compare_data(run: Run, found: dict[str, Samples]) -> None:
    for split, samples in found.items():
        lines = samples.manifest()
        before = run.manifest(split)
        if before is None:
            run.keep_manifest(split, lines)
        elif before != lines:
            raise DataError(
                f"the {split} data changed since {run.shown} began: {compare(before, lines)}. Put it back, or start a "
                "new run with another --run (weights=OLD_RUN keeps what was learnt)"
            )


def train_phase(session: Session, number: int, phase: Phase, state: dict[str, Any] | None) -> None:
    """Run one phase from where the checkpoint stands. Its engine, with optimizer state and average, is its own."""
    recipe, over = session.recipe, session.state["over"]
    if number < len(over):
        return
    session.model.freeze(phase.frozen)
    micro = recipe.batch.size if recipe.batch.micro == "all" else recipe.batch.micro
    assert isinstance(micro, int)
    plan = Plan.over(session.training, recipe.batch.size, micro, key(recipe.seed, "phase", number))
    divide(session, recipe.batch.size // micro)
    length = plan.length(phase.epochs, phase.updates)
    before = sum(done for _, done in over[:number])
    resumed = state is not None and number == state["phase"]
    if state and resumed and state["total"] != before + length:
        session.note(
            f"{before + length} updates in place of {state['total']}: the learning rates of the {session.done} that are done "
            "followed the old length, so a new run of the new length would end elsewhere"
        )
    session.state |= {"total": before + length, "phase": number} | ({} if resumed else {"stale": 0})
    machine = recipe.machine
    if phase.cached:  # what is left is tiny: waking a second thread costs more than it computes
        machine = replace(machine, threads=1)
    engine = make_engine(session, machine, length, plan.per_epoch)
    if resumed:
        assert state
        engine.load(session.run.checkpoints / f"{state['update']:06d}", state["engine"])
    if session.workers.size > 1:
        session.workers.alike(weights_digest(session.model), "the weights that training begins from")
    if recipe.machine.compile:
        session.model.backbone.compile()
    if engine.updates < length and not session.out_of_patience():
        train_updates(session, engine, plan, before, length)
    engine.close()
    over.append([length, engine.updates])


def make_engine(session: Session, machine: Machine, total: int, per_epoch: int) -> TorchEngine:
    """The engine that the launch names."""
    recipe, zero = session.recipe, session.launch.zero
    settings = (session.model, recipe.optimizer, recipe.schedule, recipe.average, machine)
    if zero is None or zero == "none":
        return TorchEngine(*settings, total=total, per_epoch=per_epoch, workers=session.workers)
    from ...cluster.engines.zero import DeepSpeedEngine

    session.apart_from()  # while the weights are whole
    units = [f"heads.{name}." for name in recipe.tasks]
    return DeepSpeedEngine(
        *settings, total=total, per_epoch=per_epoch, workers=session.workers, zero=zero, offload=session.launch.offload,
        units=units if len(units) > 1 else (),
    )  # fmt: skip


def train_updates(session: Session, engine: TorchEngine, plan: Plan, before: int, length: int) -> None:
    """The updates of a phase that are still to be done, from decoded pictures or from cached maps."""
    recipe, machine = session.recipe, engine.machine
    if recipe.phases[session.state["phase"]].cached:
        torch.set_num_threads(int(recipe.machine.threads))
        model = session.apart_from(engine)
        session.caches = {
            "train": cache(session, model, "train", session.training, recipe.machine.precision),
            "val": cache(session, model, "val", session.validation, recipe.evaluation.precision),
        }
        torch.set_num_threads(int(machine.threads))
        feed = cached_turns(session.caches["train"], plan, engine.updates, length, session.workers)
    else:
        session.caches = {}
        draws = Draws(session.task, session.training, plan.seed, training=True)
        pin = session.device.type == "cuda"
        feed = turns(draws, plan, engine.updates, length, int(recipe.machine.workers), pin, session.workers)
    if plan.dropped and not engine.updates:
        session.note(
            f"{plan.per_epoch} updates an epoch of {plan.batch}; {plan.dropped} samples (others each time) wait for the next"
        )
    run_phase(session, engine, feed, plan, before, length)
    if engine.updates < length:
        session.note(f"stopped early: {session.state['stale']} evaluations without a better {recipe.evaluation.metric}")
