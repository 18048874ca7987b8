"""Training: from a resolved recipe to a run's folder."""

import contextlib
import copy
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from trunkline.ground.errors import DataError, EngineError, RecipeError, WeightsError

from ...backbones.contract import remarks_of
from ...backbones.norm import begin_statistics
from ...cluster import checkpoint
from ...cluster.checkpoint import Parts
from ...cluster.config import Launch
from ...cluster.contract import Engine
from ...cluster.workers import Workers
from ...tasks.data.groups import crossing
from ...tasks.samples import Samples
from ..evaluation.changes import CHANGE, with_singles
from ..evaluation.measure import apart
from ..feeding.ahead import sent_ahead
from ..feeding.cache import Cache
from ..feeding.draws import Draws, SharedDraws
from ..feeding.loader import decoding
from ..feeding.mixture import Mixture, Share
from ..feeding.updates import Update, cached_updates, updates
from ..models.assembly import Facts
from ..models.build import build
from ..models.digest import weights_digest
from ..recipe.demo_data import placed
from ..recipe.fields import Phase, Recipe, batches_of, grouped, learning_tasks
from ..recipe.knobs import Resolved, complete
from ..recipe.plain import from_plain, put_at, to_plain
from ..runs.claiming import claim
from ..runs.environment import environment
from ..runs.machine import check_device, resolve_machine, threads_kept
from ..runs.run import STATE, Metrics, Run, locked
from ..show import samples_left_out
from .checks import check_frozen, check_lengths, check_phase, go_on, metric_of, preflight, shared, tell_singles
from .engines import make_engine
from .features import cache
from .finish import finish
from .loop import run_phase
from .memory import fitting_micro_batch, largest_phase, measured_samples, turns_of
from .parts import Part, mixture, orders, read_parts
from .progress import Progress
from .session import Session, listening

MISTAKES = (RecipeError, WeightsError, DataError)


def train(
    resolved: Resolved,
    path: str | Path,
    workers: Workers | None = None,
    launch: Launch | None = None,
    around: Run | None = None,
) -> Run:
    """Begin a run or go on with it, to its end: weights, scores, report.

    Every worker of a group calls this; the one that leads writes the run's folder, which the others read. `around` is the run
    of all folds, where this is one of them (`folds.py`).

    Raises RecipeError, WeightsError, DataError or EngineError for a user's mistake before any training is lost, and
    Stopped where the process is asked to end (the run is saved first).
    """
    run = Run(path)
    try:
        with threads_kept():
            _train(resolved, run, workers or Workers(), launch or Launch(), around)
    except (OSError, SafetensorError) as error:
        raise EngineError(
            f"{getattr(error, 'filename', None) or run.shown}: {error}. What was saved stays: make room, or mend the rights "
            "or the path, and run the same command again"
        ) from error
    finally:
        torch.use_deterministic_algorithms(False)
    return run


def _train(resolved: Resolved, run: Run, workers: Workers, launch: Launch, around: Run | None) -> None:
    with contextlib.ExitStack() as held:
        document = workers.from_lead(lambda: begin(resolved, run, held, launch, around is None), "reading the recipe")
        shared(run, workers)
        recipe = from_plain(document["resolved"])
        session, state = prepare(recipe, run, workers, launch, around)
        check_lengths(session, state)
        tell_singles(session, resolved.recipe)
        if any(session.changed):
            document = note_changes(session, document)
        workers.from_lead(lambda: run.write("recipe.json", document), "writing the recipe")
        workers.from_lead(run.push, "sending the run")
        with listening(session), decoding(int(recipe.machine.loaders)):
            recipe = session.recipe = settle_micro_batches(session)
            for number, phase in enumerate(recipe.phases):
                train_phase(session, number, phase, state)
            if workers.leads:
                assert session.metrics
                session.metrics.close()
                torch.set_num_threads(int(recipe.machine.threads))
                finish(session)
                run.push()


def begin(
    resolved: Resolved, run: Run, held: contextlib.ExitStack, launch: Launch, look: bool = True
) -> dict[str, Any]:
    """Lock the run's folder while `held` is open, and return what its `recipe.json` is to say; see `settle`.

    A mistake at a first start leaves no folder behind.
    """
    patience = 60.0 if launch.launch == "ray" else 0.0  # workers end some seconds after a command that was killed
    there = run.path.exists()
    held.enter_context(locked(run, patience))
    run.pull()
    if not there:  # while the lock is held: a mistake leaves no folder behind
        held.push(lambda kind, *_: run.vanish() if kind and issubclass(kind, MISTAKES) else None)
    return settle(resolved, run, look)


def settle(resolved: Resolved, run: Run, look: bool = True) -> dict[str, Any]:
    """Settle the machine's `auto` settings, and return what `recipe.json` is to say.

    A run that is there keeps what it settled on. With `look`, the data, the machine and the optimizers are tried before a
    first start. Raises RecipeError for a mistake in the recipe, the machine or the data.
    """
    machine, why = resolve_machine(resolved.recipe.machine)
    recipe = replace(with_singles(placed(resolved.recipe)), machine=machine)
    if look and not run.trained:
        preflight(recipe)
    document = {"recipe": resolved.name, "knobs": resolved.given, "resolved": to_plain(recipe), "auto": why}
    document = claim(run, document, lambda stored: to_plain(complete(from_plain(stored))))
    if not (run.path / "environment.json").is_file():
        run.write("environment.json", environment())
    check_device(document["resolved"]["machine"]["device"])
    return document


def prepare(
    recipe: Recipe, run: Run, workers: Workers, launch: Launch, around: Run | None = None
) -> tuple[Session, dict[str, Any] | None]:
    """Build the session (tasks, model, data), and read the newest checkpoint's state; None where there is none."""
    name = workers.from_lead(lambda: checkpoint.find(run.checkpoints), "looking for a checkpoint")
    state = checkpoint.read_state(run.checkpoints / name, *STATE) if name else None
    if isinstance(recipe.machine.threads, int):
        torch.set_num_threads(recipe.machine.threads)
    tasks, model, facts = build(recipe, Facts(**state["facts"]) if state else None)
    for task in tasks.values():
        task.before_training()
    if not state and workers.leads:
        run.write("load.json", {"report": facts.loaded, "tasks": facts.tasks})
    check_frozen(recipe, model)
    parts = read_parts(tasks, run, recipe, workers, around)
    metric, lower = metric_of(recipe, {n: (p.task, p.validation) for n, p in parts.items()})
    metrics = _metrics(run, recipe, state) if workers.leads else None
    session = Session(
        run, recipe, parts, model, facts, metrics, Progress.of(state), metric, lower, workers, launch,
        done=state["update"] if state else 0, around=around,
    )  # fmt: skip
    if state:
        session.changed = changed_tasks(recipe, session.progress, state)
        for task in session.changed[0]:  # its own statistics, where it has some
            tensors = checkpoint.read_tensors(run.checkpoints / str(name) / "model.safetensors")
            begin_statistics(model, task, tensors, statistics_begun(recipe, state))
    _tell(session, new=state is None)
    if state is None:
        session.watch()
    return session, state


def changed_tasks(recipe: Recipe, progress: Progress, state: dict[str, Any]) -> tuple[list[str], list[str]]:
    """Find the tasks that are new since the checkpoint, and those that are gone; a new one's epochs begin now."""
    before = state["facts"]["tasks"]
    added, removed = [n for n in recipe.tasks if n not in before], [n for n in before if n not in recipe.tasks]
    for name in (*added, *removed):  # a task that comes again begins anew
        for of in (progress.begun, progress.ended, progress.patient, progress.named):
            of.pop(name, None)
    if len(progress.over) == state["phase"]:  # the phase goes on
        progress.begun.update({name: int(state["engine"]["updates"]) for name in added})
    if (added or removed) and progress.best and progress.best["metric"] == CHANGE:
        progress.best = None  # it was the mean over other tasks
    return added, removed


def statistics_begun(recipe: Recipe, state: dict[str, Any]) -> str:
    """Name whose statistics a new task's own begin as: the shared ones (empty), or where no task moved them another's own."""
    kinds = {name: recipe.norms.get(name, "shared") for name in recipe.tasks if name in state["facts"]["tasks"]}
    own = [name for name, kind in kinds.items() if kind == "own"]
    return own[0] if own and "shared" not in kinds.values() else ""


def note_changes(session: Session, document: dict[str, Any]) -> dict[str, Any]:
    """Tell which tasks came and went, and keep it in what `recipe.json` says."""
    added, removed = session.changed
    known = [change for change in document.get("changes", []) if change["update"] < session.done]
    for name in added:
        session.note(
            f"{name}: joins at update {session.done}, where its first epoch begins, with a head of random weights"
        )
    for name in removed:
        session.note(f"{name}: is gone from update {session.done} on; its head stays in the checkpoints before")
    return {**document, "changes": [*known, {"update": session.done, "added": added, "removed": removed}]}


def _metrics(run: Run, recipe: Recipe, state: dict[str, Any] | None) -> Metrics:
    if state and state["best"]:
        best = f"{state['best']['update']:06d}"
        if (run.checkpoints / best / "state.json").is_file():
            checkpoint.write_text(run.checkpoints / checkpoint.BEST, best)  # where a crash came before this
    return Metrics(run, state["update"] if state else 0, recipe.log.tensorboard)


def _tell(session: Session, new: bool) -> None:
    """Note what the run begins from."""
    session.note(f"weights: {session.facts.loaded}" if new else f"going on from update {session.done}")
    if not new:
        return
    for remark in remarks_of(session.model.backbone):
        session.note(remark)
    for part in session.parts.values():
        named = f"{part.name}: " if part.folder else ""
        if left := list({**part.training.excluded, **part.validation.excluded}):
            session.note(f"{named}{samples_left_out(len(left))}: {', '.join(left[:5])}{' …' if len(left) > 5 else ''}")
        for split, samples in (("train", part.training), ("val", part.validation)):
            for remark in (*samples.remarks(), *_looked(session, part, samples)):
                session.note(f"{named}{split}: {remark}")
        for remark in crossing(part.training, part.validation, getattr(part.task.options, "group", "")):
            session.note(f"{named}{remark}")
    threads = session.run.recipe.get("auto", {}).get("machine.threads")
    if threads and session.device.type == "cpu" and (threads[0] > 1 or session.workers.size > 1):
        session.note(
            f"machine.threads=auto means {threads[0]} here, for each process. Another number of workers gets another number of "
            "threads, and other last bits; machine.threads=1 gives the same weights on any number of workers"
        )
    if idle := [name for name in session.parts if name not in learning_tasks(session.recipe)]:
        session.note(f"{', '.join(idle)}: its loss_weights is 0, so that it learns nothing and is only scored")


def _looked(session: Session, part: Part, samples: Samples) -> list[str]:
    """Let the task look at a split before it is trained on; one of several folds was looked at with the whole."""
    if session.around:
        return []
    loaders = int(session.recipe.machine.loaders)
    return session.workers.from_lead(lambda: part.task.look(samples, loaders), "looking at the data")


def settle_micro_batches(session: Session) -> Recipe:
    """Replace a micro-batch of `auto` by a number, which is found once, at the first start, and stored with the run.

    Tasks that share batches have one number, which is found with the pass that they share.
    """
    recipe = session.recipe
    for names in [g for g in grouped(recipe, recipe.tasks) if batches_of(recipe, g[0]).micro == "auto"]:
        micro = session.workers.from_lead(
            lambda names=names: _fitting_micro_batch(session, names), "finding what fits into memory"
        )
        settled = replace(batches_of(recipe, names[0]), micro=micro)
        if len(recipe.tasks) == 1:
            recipe = replace(recipe, batch=settled)
        else:
            recipe = replace(recipe, batches=recipe.batches | dict.fromkeys(names, settled))
    return recipe


def _fitting_micro_batch(session: Session, names: tuple[str, ...]) -> int:
    recipe, run = session.recipe, session.run
    size = batches_of(recipe, names[0]).size
    learning = [session.parts[name] for name in names if name in learning_tasks(recipe)]
    if all(phase.cached for phase in recipe.phases):
        micro, why = size, "cached maps are small"
    elif not learning:
        micro, why = size, "it learns nothing"
    else:
        tasks, samples = {p.name: p.task for p in learning}, {p.name: p.training for p in learning}
        phase = largest_phase(recipe)
        session.model.freeze(phase.frozen, phase.still)
        twin = apart(session.model)
        twin.beside.update(copy.deepcopy(session.model.beside))
        turns, drawn = turns_of(learning[0].task, twin, phase.players), measured_samples(tasks, samples, recipe.seed)
        micro, why = fitting_micro_batch(turns, drawn, size, recipe.machine)
    document, several = run.recipe, len(recipe.tasks) > 1
    for key in [f"batches.{name}.micro" for name in names] if several else ["batch.micro"]:
        put_at(document["resolved"], key, micro)
        document["auto"][key] = [micro, why]
    run.write("recipe.json", document)
    session.note(f"{'+'.join(names) + ': ' if several else ''}micro-batches of {micro} samples: {why}")
    return micro


def train_phase(session: Session, number: int, phase: Phase, state: dict[str, Any] | None) -> None:
    """Run one phase from where the checkpoint stands. Every phase has a new engine, optimizer state and average."""
    recipe, progress = session.recipe, session.progress
    if number < len(progress.over):
        return
    session.model.freeze(phase.frozen, phase.still)
    mixed = mixture(recipe, session.parts, number, progress)
    check_phase(session, number, phase, mixed)
    length = mixed.length(phase.epochs, phase.updates)
    before = sum(done for _, done in progress.over[:number])
    resumed = state is not None and number == state["phase"]
    if state and resumed and state["total"] != before + length:
        session.note(
            f"{before + length} updates in place of {state['total']}: the learning rates of the {session.done} that are done "
            "followed the old length, so a new run of the new length would end elsewhere"
        )
    progress.total, progress.phase = before + length, number
    if not resumed:
        progress.stale, progress.begun, progress.ended, progress.patient, progress.named = 0, {}, {}, {}, {}
    progress.named = orders(recipe, progress)
    engine = make_engine(session, phase, length, mixed.per_epoch)
    if state and resumed:
        parts = Parts(*(session.model.of_tasks(names) for names in session.changed))
        engine.load(session.run.checkpoints / f"{state['update']:06d}", state["engine"], parts)
    if session.workers.size > 1:
        session.workers.alike(
            [weights_digest(m) for m in session.modules.values()], "the weights that training begins from"
        )
    if recipe.machine.compile:
        session.model.backbone.compile()
    if engine.updates < length and not session.out_of_patience():
        train_updates(session, engine, mixed, before, length)
    engine.close()
    progress.over.append([length, engine.updates])


def train_updates(session: Session, engine: Engine, mixed: Mixture, before: int, length: int) -> None:
    """Make the updates of a phase that are still to be done, from decoded pictures or from cached maps.

    Where a task learns no more, the others go on without it, from a new plan of the updates.
    """
    _tell_shares(session, engine, mixed, length)
    session.caches = {}
    if session.recipe.phases[session.progress.phase].cached:
        session.caches = _caches(session, engine)
    while True:
        run_phase(session, engine, _feed(session, engine, mixed, length), mixed, before, length)
        if engine.updates >= length or session.out_of_patience():
            break
        before_it, mixed = mixed, mixture(session.recipe, session.parts, session.progress.phase, session.progress)
        go_on(session, before_it, mixed)
    if engine.updates < length:
        why = f"{session.progress.stale} evaluations without a better {session.metric}"
        session.note(f"stopped early: {'no task learns any more' if session.all_ended else why}")


def _feed(session: Session, engine: Engine, mixed: Mixture, length: int) -> Iterator[Update]:
    """Begin to make the micro-batches of the updates that are still to be done."""
    if session.caches:
        training = {s.task: session.caches[s.task, "train"] for s in mixed.shares}
        return cached_updates(training, mixed, engine.updates, length, session.workers)
    draws = {share.task: drawing(share, session.parts) for share in mixed.shares}
    loaders, pin = int(session.recipe.machine.loaders), session.device.type == "cuda"
    feed = updates(draws, mixed, engine.updates, length, loaders, pin, session.workers)
    return sent_ahead(feed, session.device)


def _tell_shares(session: Session, engine: Engine, mixed: Mixture, length: int) -> None:
    """Note at the beginning of a phase which tasks get nothing in it, and what of each epoch is left over."""
    for s in mixed.shares if not engine.updates else ():
        first = s.task.partition("+")[0]
        if not s.before(length):
            session.note(
                f"{s.task}: mix.{first}={session.recipe.mix.get(first, 1.0):g} gives it no batch in {length} updates: it "
                "learns nothing here"
            )
        if s.plan.dropped:
            session.note(
                f"{s.task + ': ' if len(mixed.shares) > 1 else ''}{s.plan.per_epoch} updates an epoch of {s.plan.batch}; "
                f"{s.plan.dropped} samples (others each time) wait for the next"
            )


def drawing(share: Share, parts: dict[str, Part]) -> Draws | SharedDraws:
    """Make what draws the samples of a share, of one task or of several that share batches."""
    if not share.members:
        part = parts[share.task]
        return Draws(part.task, part.training, share.plan.seed, training=True)
    own = [parts[member.task] for member in share.members]
    tasks, samples = {p.name: p.task for p in own}, {p.name: p.training for p in own}
    return SharedDraws(tasks, samples, share.members, share.task, share.plan.seed)


def _caches(session: Session, engine: Engine) -> dict[tuple[str, str], Cache]:
    """Read or compute the maps of the frozen trunk for every task's splits, with all of the machine's threads."""
    recipe, model, found = session.recipe, session.apart_from(engine), {}
    with threads_kept():
        torch.set_num_threads(int(recipe.machine.threads))
        for name, part in session.parts.items():
            found[name, "train"] = cache(session, model, part, "train", recipe.machine.precision)
            found[name, "val"] = cache(session, model, part, "val", recipe.evaluation.precision)
    return found
