"""The training loop."""

import math
import time
from collections.abc import Iterator

from ...cluster.contract import Engine
from ..feeding.mixture import Mixture
from ..feeding.updates import Update
from ..recipe.fields import Evaluation
from ..show import progress
from .checks import in_settings
from .cosines import comparing
from .session import Session


def between(evaluation: Evaluation, per_epoch: int, length: int) -> int:
    """Count the updates from one evaluation to the next, in a phase of `length` updates."""
    step = max(1, round(evaluation.every * per_epoch)) if evaluation.every else length
    return max(step, -(-length // evaluation.times)) if evaluation.times else step


def run_phase(
    session: Session, engine: Engine, feed: Iterator[Update], mixture: Mixture, before: int, length: int
) -> None:
    """Run a phase to its end: update, log, evaluate, save. `before` counts the updates of the phases before it.

    It ends too where a task learns no more. Raises Stopped once the run was asked to end and is saved, EngineError at a
    loss that is not finite.
    """
    ended = len(session.progress.ended)
    step = between(session.recipe.evaluation, mixture.per_epoch, length)
    with progress() as shown:
        title = session.recipe.phases[session.progress.phase].name
        bar = shown.add_task(
            title, total=length, completed=engine.updates, unit=session.unit, scale=mixture.batch, say=""
        )
        compare = comparing(session, engine)
        start = time.perf_counter()
        for update in feed:
            with in_settings():
                aside = time.perf_counter()
                beside = compare(before + engine.updates + 1, update.micro_batches)
                start += time.perf_counter() - aside  # an update's speed is its own
                report = engine.update(update.micro_batches)
            done = before + engine.updates
            now = time.perf_counter()
            session.log(report, update, done, mixture, now - start, beside)
            start = now
            shown.update(bar, advance=1, say=session.loss)
            if done == math.ceil(mixture.per_epoch):
                session.watched(done)

            last, epoch = engine.updates == length, engine.updates / mixture.per_epoch
            saved = False
            if last or engine.updates % step == 0:
                better = session.evaluate(engine, done, epoch, last)
                if better or last or session.out_of_patience():
                    session.save(engine, done, best=better)
                    saved = True
                start = time.perf_counter()
            stopping = session.stopping
            if (session.due(done) or stopping) and not saved:
                session.save(engine, done)
            if stopping:
                raise session.stopped(done)
            if session.out_of_patience() or len(session.progress.ended) > ended:
                break  # a task learns no more: the others go on with another plan
