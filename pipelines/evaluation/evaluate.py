"""Scoring a run or a weights file on a split."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from trunkline.ground import storage
from trunkline.ground.errors import DataError, RecipeError
from trunkline.ground.storage import is_remote

from ...backbones.contract import remarks_of
from ...cluster.config import Launch
from ...tasks.data.fingerprint import compare
from ...tasks.data.repairs import refuse
from ...tasks.images.decode import HOW_TO_GO_ON
from ...tasks.options import belonging
from ...tasks.samples import Samples
from ...tasks.scores import Scores, joined
from ..feeding.draws import Draws
from ..feeding.loader import decoding
from ..feeding.ordered import in_order, ordered_lists
from ..launch.worker import mistakes_as_engine_errors
from ..models.blend import blend_of
from ..models.opened import folder_of
from ..models.ready import Ready, Source, fetched, ready, task_kind, tasks_of
from ..recipe import plugin as plugins
from ..runs.files import new_file, new_folder, write_folder, write_records
from ..runs.machine import threads_kept
from ..runs.run import Run
from ..show import bar, note, samples_left_out
from .measure import checked_result, inference, score

_FEW = 5  # samples that a line names


@dataclass(frozen=True)
class Evaluating:
    """What is scored: a source on a split of its data, or of other data. As JSON it goes to workers."""

    source: Source
    data: str | None = None
    split: str = "val"
    precision: str = "fp32"
    batch: int | None = None
    loaders: int | None = None


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
    task: str = "",
    checkpoint: str = "last",
    ema: bool | None = None,
    precision: Literal["fp32", "bf16", "fp16", "fp64"] = "fp32",
    batch: int | None = None,
    loaders: int | None = None,
    device: str = "auto",
    threads: int | None = None,
    backbone: str | None = None,
    stride_in: Literal["3x3", "1x1"] | None = None,
    weights_key: str = "",
    classes: tuple[str, ...] = (),
    blend: str = "",
    out: str | Path | None = None,
    results: str | Path | None = None,
    plugin: str | Path | None = None,
    launch: Launch | None = None,
    options: dict[str, Any] | None = None,
) -> Scores:
    """Score a run's folder or a weights file on a split of its data, or of other data.

    Any option of the task can be given too (size=, on_bad_sample=, val=, a detector's score=); the message about an
    unknown one lists them all.

    data           another folder than the run's own; a weights file needs one
    split          val or train, under the evaluation transform
    task           which task of a run that has several; by default all, with metrics called task/metric
    checkpoint     last, best or a number such as 000480
    ema            true: averaged weights, false: raw ones; by default averaged where there are any
    precision      of the computation; by default fp32
    batch          samples at once; by default what the task takes (32 of a classifier, 4 of a detector or segmenter)
    loaders        processes that decode
    threads        of a process, for its arithmetic, whose last bits depend on it; by default its cores (on Ray --cpus)
    weights_key    which network of a weights file that holds several: the keys that lead to it, and its prefix
    classes        names for the outputs of a weights file that has none; by default the data's, by position
    out            a JSON lines file for one record a sample
    results        a folder for what the official tools read (COCO's JSON, VOC's comp4 files, masks)
    blend          FILE:0.8 mixes in another run or weights file of the same network: 0.8 of its weights, 0.2 of the source's
    plugin         the recipe file that defines the run's task, if the task is your own
    """
    source = storage.at_home(source)
    if plugin:
        plugins.load(plugin)
    where = Source(absolute(source), task, checkpoint, ema, device, threads, backbone, stride_in, weights_key, classes,
                   options or {}, blend=absolute_blend(blend) if blend else "")  # fmt: skip
    wanted = Evaluating(where, storage.absolute(data) if data else None, split, precision, batch, loaders)
    with threads_kept():
        return _each(wanted, Written(out, results), plugin, launch, str(source))


@dataclass(frozen=True)
class Written:
    """What an evaluation writes besides its scores."""

    out: str | Path | None = None
    results: str | Path | None = None


def _each(
    wanted: Evaluating, written: "Written", plugin: str | Path | None, launch: Launch | None, shown: str
) -> Scores:
    """Score the task that is asked for, or all tasks of a run.

    Raises RecipeError where `data`, files to write or options are given for several tasks at once.
    """
    where = wanted.source
    names = list(tasks_of(where)) if is_remote(where.source) or folder_of(where.source) else [""]
    if len(names) == 1:
        return _one(wanted, written, plugin, launch, shown)
    given = {"data": wanted.data, **asdict(written), **where.options}
    if alone := [f"{key}={value}" for key, value in given.items() if value is not None]:
        raise RecipeError(
            f"{', '.join(alone)}: {shown} has several tasks: say which with task=, one of {', '.join(names)}"
        )
    each = {}
    for name in names:
        each[name] = _one(replace(wanted, source=replace(where, task=name)), written, plugin, launch, shown)
    origins = {name: scores.details.pop("origin") for name, scores in each.items()}
    scores = joined(each)
    first = next(iter(origins.values()))
    scores.details["origin"] = {**first, "task": names, "data": {name: o["data"] for name, o in origins.items()}}
    return scores


def _one(wanted: Evaluating, written: Written, plugin: str | Path | None, launch: Launch | None, shown: str) -> Scores:
    """Score one task, and write the files that were asked for."""
    out, results = written.out, written.results
    if results:
        asked = task_kind(wanted.source).for_results
        wanted = replace(wanted, source=replace(wanted.source, options={**wanted.source.options, **asked}))
    file = new_file(out) if out else None
    folder = new_folder(results, "results") if results else None
    p = prepare(wanted)
    if "checkpoint" not in p.found.origin:
        note(f"weights: {p.found.facts.loaded}")
    if launch:
        scores, records = _from_pool(p, asdict(wanted) | {"plugins": plugins.texts(plugin)}, launch)
    else:
        with decoding(p.loaders):
            batches = in_order(p.draws, p.batch, p.loaders)
            scores, records = score(p.found.model, p.found.task, p.samples, batches, p.precision)
    where = {"data": p.found.options.data, "split": wanted.split, "precision": wanted.precision}
    scores.details |= {"origin": p.found.origin | {"source": shown} | where}
    if wanted.source.blend:
        scores.notes = (*scores.notes, blend_of(wanted.source.blend).said(shown))
    if file:
        write_records(file, records)
    if folder:
        made = getattr(p.found.task.evaluator(p.samples), "results", None)
        if files := made(records) if made else {}:
            write_folder(folder, files)
        else:
            note(
                f"results={results}: the task {p.found.task.name} has no files for official tools; out= writes its records"
            )
    return scores


def absolute(source: str | Path) -> str:
    """Make a file's or folder's path absolute, so that other processes find it; keep a published name as it is."""
    there = Path(source).is_file() or folder_of(source) is not None
    return str(Path(source).absolute()) if there else str(source)


def absolute_blend(blend: str) -> str:
    """Write `FILE:SHARE` as other processes find it: an absolute path, and the number in one form. Raises RecipeError."""
    asked = blend_of(blend)
    return f"{absolute(asked.source)}:{asked.share!r}"


def prepare(wanted: Evaluating) -> Prepared:
    """Check the settings, load the model and read the split that `evaluate` scores; each worker does so for itself.

    Raises RecipeError for wrong settings or missing data, DataError where the run's own data changed since it began.
    """
    batch, loaders, threads, source = wanted.batch, wanted.loaders, wanted.source.threads, wanted.source
    problems = [f"batch={batch}: expected a number above 0"] if batch is not None and batch < 1 else []
    problems += [f"loaders={loaders}: expected 0 or more"] if loaders is not None and loaders < 0 else []
    problems += [f"threads={threads}: expected a number above 0"] if threads is not None and threads < 1 else []
    if problems:
        raise RecipeError(problems)
    given = {"data": wanted.data, **source.options}
    path = fetched(source.source)
    found = ready(replace(source, source=str(path), options={k: v for k, v in given.items() if v is not None}))
    if not found.options.data:
        raise RecipeError(f"{source.source}: a weights file does not say which data: give data=FOLDER")
    processes = int(found.recipe.machine.loaders) if loaders is None else loaders
    samples = _readable(found, wanted, path, max(1, processes))
    remarks = samples.remarks()
    for remark in (*found.task.said(), *remarks_of(found.model.backbone), *remarks):
        note(remark)
    if found.options.strict:
        refuse(remarks)
    _compare(found, wanted, path, samples)
    if wanted.precision == "fp64":
        found.model.double()
    draws = Draws(found.task, samples, 0, training=False)
    return Prepared(found, samples, draws, wanted.precision, batch or found.task.together, processes)


def _folder(found: Ready) -> str:
    """Name the folder of the task's files within a run's: the task where the run has several, else empty."""
    return found.task.name if len(found.recipe.tasks) > 1 else ""


def _readable(found: Ready, wanted: Evaluating, path: Path, loaders: int) -> Samples:
    """Read the split, without the samples that cannot be used where on_bad_sample=skip says so."""
    samples = found.task.samples(wanted.split)
    if found.options.on_bad_sample != "skip":
        return samples
    stored = None if wanted.data or not path.is_dir() else Run(path).excluded(_folder(found))
    reasons = dict(samples.excluded) | found.task.scan(samples, loaders) if stored is None else stored
    samples = samples.without(reasons)
    if samples.excluded:
        first = [f"{name}: {why.partition(f'; {HOW_TO_GO_ON}')[0]}" for name, why in [*samples.excluded.items()][:_FEW]]
        more = " …" if len(samples.excluded) > _FEW else ""
        note(f"{samples_left_out(len(samples.excluded))} that cannot be used: {'; '.join(first)}{more}")
    return samples


def _compare(found: Ready, wanted: Evaluating, path: Path, samples: Samples) -> None:
    """Raise DataError where the run's own data changed since it began."""
    if wanted.data or not path.is_dir() or belonging(found.options, "data") & wanted.source.options.keys():
        return
    stored = Run(path).manifest(wanted.split, _folder(found))
    if stored is not None and stored != (lines := samples.manifest()):
        raise DataError(
            f"the {wanted.split} data of {path} changed since it began: {compare(stored, lines)}. Put it back, or score what "
            f"is there now with data={found.options.data}"
        )


def _from_pool(p: Prepared, settings: dict[str, Any], launch: Launch) -> tuple[Scores, list[dict[str, Any]]]:
    """Score with a pool of workers: send each batch by its number, and keep the records in the data set's order."""
    from ...cluster.launchers.table import pool

    evaluator, kept = p.found.task.evaluator(p.samples), []
    numbers = list(range(len(ordered_lists(p.samples, p.batch))))
    with bar("evaluate", len(p.samples), p.found.task.unit) as advance, \
            pool(f"{__name__}:measurer", settings, launch) as compute:  # fmt: skip
        for records in compute(numbers):
            evaluator.add(records)
            kept += records
            advance(len(records))
    return checked_result(evaluator), kept


def measurer(settings: dict[str, Any]) -> Callable[[int], list[dict[str, Any]]]:
    """Prepare a worker of the pool: return a function from a batch's number to the records of its samples."""
    with mistakes_as_engine_errors():
        plugins.load_all(settings.pop("plugins"))
        p = prepare(Evaluating(**{**settings, "source": Source(**settings["source"])}))
    lists, task = ordered_lists(p.samples, p.batch), p.found.task
    evaluator, device = task.evaluator(p.samples), next(p.found.model.parameters()).device

    def measure(number: int) -> list[dict[str, Any]]:
        with mistakes_as_engine_errors(), inference(p.found.model, p.precision, device):
            batch = p.draws.batch(lists[number]).to(device)
            return evaluator.measure(batch, task.infer(p.found.model, batch))

    return measure


def result_of(scores: Scores) -> dict[str, Any]:
    """Build what `--json` prints: metrics and where they come from at the top level, beside intervals and details."""
    whole = scores.to_json()
    origin = whole["details"].pop("origin", {})
    return {**whole, **origin}
