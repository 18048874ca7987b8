"""Scoring a run or a weights file on a split."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from trunkline.ground import storage
from trunkline.ground.errors import DataError, RecipeError

from ...cluster.config import Launch
from ...tasks.contract import Samples, Scores
from ...tasks.data.fingerprint import compare
from ...tasks.options import belonging
from ..feeding.feed import Draws, decoding, in_order, ordered_lists
from ..launch.worker import mistakes_as_engine_errors
from ..models.sources import Ready, fetched, ready, task_kind
from ..recipe import plugin as plugins
from ..runs.files import new_file, new_folder, write_folder
from ..runs.run import Run
from ..show import bar, note, samples_left_out
from ..training.finish import write_records
from .measure import inference, score


@dataclass
class Prepared:
    """A model and a split, ready to be scored."""

    found: Ready
    samples: Samples
    draws: Draws
    precision: str
    batch: int
    loaders: int


def evaluate(
    source: str | Path,
    *,
    data: str | None = None,
    split: Literal["train", "val"] = "val",
    checkpoint: str = "last",
    ema: bool | None = None,
    precision: Literal["fp32", "bf16", "fp16", "fp64"] = "fp32",
    batch: int | None = None,
    loaders: int | None = None,
    device: str = "auto",
    threads: int | None = None,
    backbone: str | None = None,
    stride_in: Literal["3x3", "1x1"] | None = None,
    out: str | Path | None = None,
    results: str | Path | None = None,
    plugin: str | Path | None = None,
    launch: Launch | None = None,
    options: dict[str, Any] | None = None,
) -> Scores:
    """Score a run's folder or a weights file on a split of its data, or of other data.

    Any option of the task can be given too (size=, on_bad_sample=, val=, a detector's score=): what there is, an unknown
    one's message lists.

    data           another folder than the run's own; a weights file needs one
    split          val or train, under the evaluation transform
    checkpoint     last, best or a number such as 000480
    ema            true: averaged weights, false: raw ones; by default averaged where there are any
    precision      what is computed in; fp32 unless asked otherwise
    batch          samples at once; by default 32 of a classifier, 4 of a detector or segmenter
    loaders        processes that decode
    threads        of a process, for its arithmetic, whose last bits depend on it; by default its cores (on Ray --cpus)
    out            a JSON lines file for one record a sample
    results        a folder for what the official tools read (COCO's JSON, VOC's comp4 files, masks)
    plugin         the recipe file that holds the run's task, where that is one of your own
    """
    settings: dict[str, Any] = {
        "source": absolute(source), "data": storage.absolute(data) if data else None, "split": split,
        "checkpoint": checkpoint, "ema": ema, "precision": precision, "batch": batch, "loaders": loaders,
        "device": device, "threads": threads, "backbone": backbone, "stride_in": stride_in, "options": options or {},
    }  # fmt: skip
    if plugin:
        plugins.load(plugin)
    if results:
        settings["options"] = {**settings["options"], **task_kind(settings["source"]).for_results}
    file = new_file(out) if out else None
    folder = new_folder(results, "results") if results else None
    p = prepare(**settings)
    if launch and launch.launch == "ray":
        scores, records = _on_ray(p, settings | {"plugins": plugins.texts(plugin)}, launch)
    else:
        with decoding(p.loaders):
            batches = in_order(p.draws, p.batch, p.loaders)
            scores, records = score(p.found.model, p.found.task, p.samples, batches, p.precision)
    where = {"data": next(iter(p.found.recipe.tasks.values())).data, "split": split, "precision": precision}
    scores.details |= {"origin": p.found.origin | {"source": str(source)} | where}
    if file:
        write_records(file, records)
    if folder:
        made = getattr(p.found.task.evaluator(p.samples), "results", None)
        written = made(records) if made else {}
        if not written:
            note(
                f"results={results}: the task {p.found.task.name} has no files for official tools; out= writes its records"
            )
            return scores
        write_folder(folder, written)
    return scores


def absolute(source: str | Path) -> str:
    """A file's or folder's whole path, a published name as it is: what another process understands too."""
    return str(Path(source).absolute()) if Path(source).exists() else str(source)


def prepare(
    *, source: str, data: str | None, split: str, checkpoint: str, ema: bool | None, precision: str, batch: int | None,
    loaders: int | None, device: str, threads: int | None, backbone: str | None, stride_in: Any, options: dict[str, Any],
) -> Prepared:  # fmt: skip
    """What `evaluate` starts from, on any worker: the settings are its own."""
    problems = [f"batch={batch}: expected a number above 0"] if batch is not None and batch < 1 else []
    problems += [f"loaders={loaders}: expected 0 or more"] if loaders is not None and loaders < 0 else []
    problems += [f"threads={threads}: expected a number above 0"] if threads is not None and threads < 1 else []
    if problems:
        raise RecipeError(problems)
    given = {"data": data, **options}
    source = str(fetched(source))
    found = ready(
        source, checkpoint_name=checkpoint, averaged=ema, device=device, threads=threads, backbone=backbone, stride_in=stride_in,
        options={k: v for k, v in given.items() if v is not None},
    )  # fmt: skip
    own = next(iter(found.recipe.tasks.values()))
    if not own.data:
        raise RecipeError(f"{source}: a weights file does not say which data: give data=FOLDER")
    samples = found.task.samples(split)
    processes = int(found.recipe.machine.workers) if loaders is None else loaders
    if own.on_bad_sample == "skip":
        run = Run(source)
        stored = run.read("excluded.json") if not data and (run.path / "excluded.json").is_file() else None
        reasons = dict(samples.excluded) | found.task.scan(samples, max(1, processes)) if stored is None else stored
        samples = samples.without(reasons)
        if samples.excluded:
            note(f"{samples_left_out(len(samples.excluded))} that cannot be decoded")
    for remark in samples.remarks():
        note(remark)
    as_it_was = not data and not belonging(own, "data") & options.keys() and Path(source).is_dir()
    stored = Run(source).manifest(split) if as_it_was else None
    if stored is not None and stored != (lines := samples.manifest()):
        raise DataError(
            f"the {split} data of {source} changed since it began: {compare(stored, lines)}. Put it back, or score what "
            f"is there now with data={own.data}"
        )
    if precision == "fp64":
        found.model.double()
    return Prepared(
        found,
        samples,
        Draws(found.task, samples, 0, training=False),
        precision,
        batch or found.task.together,
        processes,
    )


def _on_ray(p: Prepared, settings: dict[str, Any], launch: Launch) -> tuple[Scores, list[dict[str, Any]]]:
    """The same from a pool of workers: batches by number, records in their order."""
    from ...cluster.launchers.ray_pool import pool

    evaluator, kept = p.found.task.evaluator(p.samples), []
    numbers = list(range(len(ordered_lists(p.samples, p.batch))))
    with bar("evaluate", len(p.samples)) as advance, pool(f"{__name__}:measurer", settings, launch) as compute:
        for records in compute(numbers):
            evaluator.add(records)
            kept += records
            advance(len(records))
    return evaluator.result(), kept


def measurer(settings: dict[str, Any]) -> Callable[[int], list[dict[str, Any]]]:
    """What a worker of the pool is: from a batch's number to its records."""
    with mistakes_as_engine_errors():
        plugins.load_all(settings.pop("plugins"))
        p = prepare(**settings)
    lists, task = ordered_lists(p.samples, p.batch), p.found.task
    evaluator, device = task.evaluator(p.samples), next(p.found.model.parameters()).device

    def measure(number: int) -> list[dict[str, Any]]:
        with mistakes_as_engine_errors(), inference(p.found.model, p.precision, device):
            batch = p.draws.batch(lists[number]).to(device)
            return evaluator.measure(batch, task.infer(p.found.model, batch))

    return measure


def result_of(scores: Scores) -> dict[str, Any]:
    """What `--json` prints: metrics at the top level, intervals, and where they come from."""
    whole = scores.to_json()
    origin = whole["details"].pop("origin", {})
    return {**whole, **origin}
