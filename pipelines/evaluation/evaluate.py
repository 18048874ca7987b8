"""Scoring a run or a weights file on a split."""

from collections.abc import Callable, Mapping
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
from ..models.assembly import Ready
from ..models.blend import blend_of
from ..models.opened import folder_of
from ..models.ready import Source, chosen, fetched, options_of, ready, tasks_of
from ..recipe import plugin as plugins
from ..runs.files import new_file, new_folder, write_folder, write_records
from ..runs.machine import threads_kept
from ..runs.run import Run
from ..show import bar, note, samples_left_out
from .measure import inference, score
from .together import Collected, Evaluated, Together, circles, measured, score_together

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
    tasks: tuple[str, ...] = (),
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
    tasks          or which of them, a,b: where they see the same pixels of a picture, the trunk runs once; options of one are
                   given as TASK.KEY=
    checkpoint     last, best or a number such as 000480
    ema            true: averaged weights, false: raw ones; by default averaged where there are any
    precision      of the computation; by default fp32
    batch          samples at once; by default what the task takes (32 of a classifier, 4 of a detector or segmenter)
    loaders        processes that decode
    threads        of a process, for its arithmetic, whose last bits depend on it; by default its cores (on Ray --cpus)
    weights_key    which network of a weights file that holds several: the keys that lead to it, and its prefix
    classes        names for the outputs of a weights file that has none; by default the data's, by position
    out            a JSON lines file for one record a sample; of several tasks a folder, with a file each
    results        a folder for what the official tools read (COCO's JSON, VOC's comp4 files, masks); of several, one each
    blend          FILE:0.8 mixes in another run or weights file of the same network: 0.8 of its weights, 0.2 of the source's
    plugin         the recipe file that defines the run's task, if the task is your own
    """
    source = storage.at_home(source)
    if plugin:
        plugins.load(plugin)
    where = Source(absolute(source), task, checkpoint, ema, device, threads, backbone, stride_in, weights_key, classes,
                   options or {}, blend=absolute_blend(blend) if blend else "", tasks=tasks)  # fmt: skip
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
    """Score the tasks that are asked for: all of a run where none is named. Several write into a folder, a file each."""
    where = wanted.source
    is_run = is_remote(where.source) or folder_of(where.source) is not None
    if is_run and not where.task and not where.tasks:
        where = replace(where, tasks=("all",))
    names = chosen(where) if is_run or where.tasks else [""]
    if len(names) == 1 and where.tasks:
        where = replace(where, task=names[0] if len(tasks_of(replace(where, tasks=()))) > 1 else "", tasks=())
    wanted = replace(wanted, source=where)
    if len(names) > 1 and wanted.data:
        said = " or ".join(f"{name}.data=" for name in names)
        raise RecipeError(f"data={wanted.data}: {shown} has several tasks, each with its own; give {said}, or task=")
    if written.results:
        kinds, own = tasks_of(where), where.options
        for name in names:
            start = f"{name}." if len(names) > 1 else ""
            own = own | {start + key: value for key, value in kinds[name or next(iter(kinds))].for_results.items()}
        wanted = replace(wanted, source=replace(where, options=own))
    file = new_file(written.out) if written.out and len(names) == 1 else None
    folder = new_folder(written.out, "out") if written.out and len(names) > 1 else None
    results = new_folder(written.results, "results") if written.results else None
    each = prepare(wanted)
    names = list(each)
    first = next(iter(each.values())).found
    if "checkpoint" not in first.origin:
        note(f"weights: {first.facts.loaded}")
    pooled = (asdict(wanted) | {"plugins": plugins.texts(plugin)}, launch) if launch else None
    found = scored(each, pooled)
    for name, p in each.items():
        scores, records = found[name]
        of = {"data": p.found.options.data, "split": wanted.split, "precision": wanted.precision}
        scores.details |= {"origin": p.found.origin | {"source": shown} | of}
        if wanted.source.blend:
            scores.notes = (*scores.notes, blend_of(wanted.source.blend).said(shown))
        if out := file or (folder and folder / f"{name}.jsonl"):
            write_records(out, records)
        if results:
            _write_results(results / name if len(names) > 1 else results, p, records)
    if len(names) == 1:
        return found[names[0]][0]
    origins = {name: scores.details.pop("origin") for name, (scores, _) in found.items()}
    scores = joined({name: scores for name, (scores, _) in found.items()})
    data = {name: origin["data"] for name, origin in origins.items()}
    scores.details["origin"] = {**next(iter(origins.values())), "task": names, "data": data}
    return scores


def _write_results(folder: Path, p: Prepared, records: list[dict[str, Any]]) -> None:
    made = getattr(p.found.task.evaluator(p.samples), "results", None)
    if files := made(records) if made else {}:
        write_folder(folder, files)
    else:
        note(f"results={folder}: the task {p.found.task.name} has no files for official tools; out= writes its records")


def scored(each: Mapping[str, Prepared], pooled: tuple[dict[str, Any], Launch] | None) -> Evaluated:
    """Score the tasks: those that have pictures in common together, with one pass of the trunk where they see the same.

    `pooled` are the settings and the launch of a pool of workers that does it.
    """
    found: Evaluated = {}
    for names in circles({name: p.samples for name, p in each.items()}):
        one = {name: each[name] for name in names}
        if pooled:
            found |= _from_pool(one, *pooled)
            continue
        first = next(iter(one.values()))
        with decoding(first.loaders):
            if len(one) > 1:
                together = together_of(one)
                batches = together.in_order(first.loaders)
                found |= score_together(first.found.model, together, batches, first.precision)
            else:
                batches = in_order(first.draws, first.batch, first.loaders)
                found[names[0]] = score(first.found.model, first.found.task, first.samples, batches, first.precision)
    return {name: found[name] for name in each}


def together_of(each: Mapping[str, Prepared]) -> Together:
    """Put tasks together that have pictures in common; their batches are as large as the one that takes least."""
    tasks, samples = {n: p.found.task for n, p in each.items()}, {n: p.samples for n, p in each.items()}
    return Together(tasks, samples, 0, min(p.batch for p in each.values()))


def absolute(source: str | Path) -> str:
    """Make a file's or folder's path absolute, so that other processes find it; keep a published name as it is."""
    there = Path(source).is_file() or folder_of(source) is not None
    return str(Path(source).absolute()) if there else str(source)


def absolute_blend(blend: str) -> str:
    """Write `FILE:SHARE` as other processes find it: an absolute path, and the number in one form. Raises RecipeError."""
    asked = blend_of(blend)
    return f"{absolute(asked.source)}:{asked.share!r}"


def prepare(wanted: Evaluating) -> dict[str, Prepared]:
    """Check the settings, load the model and read the split of each task that is scored; each worker does so for itself.

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
    source = replace(source, source=str(path), options={k: v for k, v in given.items() if v is not None})
    found = ready(source)
    names = chosen(source) if found.tasks else [found.task.name]
    if without := [name for name in names if not found.recipe.tasks[name].data]:
        wanted_data = [f"{name}.data=FOLDER" if len(names) > 1 else "data=FOLDER" for name in without]
        raise RecipeError(f"{source.source}: a weights file does not say which data: give {' and '.join(wanted_data)}")
    each = {name: found.of(name) if len(names) > 1 else found for name in names}
    own = options_of(source.options, {name: found.recipe.tasks[name] for name in names}, found.recipe.tasks)
    prepared = {
        name: _split(each[name], replace(wanted, data=own[name].get("data")), own[name], path) for name in names
    }
    if wanted.precision == "fp64":
        found.model.double()
    for remark in remarks_of(found.model.backbone):
        note(remark)
    return prepared


def _split(found: Ready, wanted: Evaluating, own: dict[str, Any], path: Path) -> Prepared:
    """Read the split of one task, which was given its `own` options."""
    processes = int(found.recipe.machine.loaders) if wanted.loaders is None else wanted.loaders
    samples = _readable(found, wanted, path, max(1, processes))
    remarks = samples.remarks()
    named = f"{_folder(found)}: " if wanted.source.tasks else ""
    for remark in (*found.task.said(), *remarks):
        note(f"{named}{remark}")
    if found.options.strict:
        refuse(remarks)
    _compare(found, wanted, own, path, samples)
    draws = Draws(found.task, samples, 0, training=False)
    return Prepared(found, samples, draws, wanted.precision, wanted.batch or found.task.together, processes)


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


def _compare(found: Ready, wanted: Evaluating, own: dict[str, Any], path: Path, samples: Samples) -> None:
    """Raise DataError where the run's own data changed since it began."""
    if wanted.data or not path.is_dir() or belonging(found.options, "data") & own.keys():
        return
    stored = Run(path).manifest(wanted.split, _folder(found))
    if stored is not None and stored != (lines := samples.manifest()):
        raise DataError(
            f"the {wanted.split} data of {path} changed since it began: {compare(stored, lines)}. Put it back, or score what "
            f"is there now with data={found.options.data}"
        )


def _from_pool(each: Mapping[str, Prepared], settings: dict[str, Any], launch: Launch) -> Evaluated:
    """Score with a pool of workers: send each batch by its number, and keep the records in the data set's order."""
    from ...cluster.launchers.table import pool

    evaluators = {name: Collected(p.found.task.evaluator(p.samples)) for name, p in each.items()}
    parts = [{name: rows for name, rows in rows_of.items() if rows} for rows_of in _rows(each)]
    unit = next(iter(each.values())).found.task.unit
    with bar("evaluate", sum(max(map(len, part.values())) for part in parts), unit) as advance, \
            pool(f"{__name__}:measurer", {**settings, "together": list(each)}, launch) as compute:  # fmt: skip
        for part, records in zip(parts, compute(list(range(len(parts)))), strict=True):
            for name, own in records.items():
                evaluators[name].add(part[name], own)
            advance(max(map(len, part.values())))
    return {name: (own.result(), own.kept) for name, own in evaluators.items()}


def _rows(each: Mapping[str, Prepared]) -> list[dict[str, list[int]]]:
    """List, for each batch, which of its samples every task has in it."""
    if len(each) > 1:
        together = together_of(each)
        return [{name: together.rows_of(name, n) for name in each} for n in range(len(together.lists))]
    ((name, p),) = each.items()
    return [{name: [index for _, index, _ in at]} for at in ordered_lists(p.samples, p.batch)]


def measurer(settings: dict[str, Any]) -> Callable[[int], dict[str, list[dict[str, Any]]]]:
    """Prepare a worker of the pool: return a function from a batch's number to each task's records of its samples."""
    with mistakes_as_engine_errors():
        plugins.load_all(settings.pop("plugins"))
        names = settings.pop("together")
        prepared = prepare(Evaluating(**{**settings, "source": Source(**settings["source"])}))
    each = {name: prepared[name] for name in names}
    first = next(iter(each.values()))
    model, device = first.found.model, next(first.found.model.parameters()).device
    tasks = {name: p.found.task for name, p in each.items()}
    evaluators = {name: p.found.task.evaluator(p.samples) for name, p in each.items()}
    together = together_of(each) if len(each) > 1 else None
    lists = together.lists if together else ordered_lists(first.samples, first.batch)

    def measure(number: int) -> dict[str, list[dict[str, Any]]]:
        with mistakes_as_engine_errors(), inference(model, first.precision, device):
            if together:
                return measured(model, tasks, evaluators, together.batch(lists[number]))
            batch = first.draws.batch(lists[number]).to(device)
            return {names[0]: evaluators[names[0]].measure(batch, first.found.task.infer(model, batch))}

    return measure


def result_of(scores: Scores) -> dict[str, Any]:
    """Build what `--json` prints: metrics and where they come from at the top level, beside intervals and details."""
    whole = scores.to_json()
    origin = whole["details"].pop("origin", {})
    return {**whole, **origin}
