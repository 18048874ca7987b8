"""Predictions for files, folders and globs."""

import itertools
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

from trunkline.ground.errors import RecipeError
from trunkline.ground.storage import at_home

from ...cluster.config import Launch
from ...tasks.contract import Task
from ...tasks.data.remarks import Remarks
from ...tasks.data.repairs import counted
from ...tasks.predicted import Predicted, Writing
from ..evaluation.evaluate import absolute, absolute_blend
from ..launch.worker import mistakes_as_engine_errors
from ..models.assembly import Ready
from ..models.digest import weights_digest
from ..models.ready import Source, chosen, ready, tasks_of
from ..recipe import plugin as plugins
from ..recipe.convert import check_own
from ..runs.machine import threads_kept
from ..show import bar, note
from .computing import blended, computer
from .inputs import expand, find_nothing, left_out
from .named import DRAWN, LINES, OWN, SHEET_FILE, NamedOutput
from .picture_names import drawn_name, targets, writing_problems
from .predictions import WEIGHTS, Output, Predictions, begin
from .several import several

CHUNK = 65_536  # files whose names are sent to a pool at once


def predict(source: str | Path, inputs: str | Path | Iterable[str | Path], **settings: Any) -> Predictions:
    """Collect what `stream` yields in a list that a notebook shows as a contact sheet."""
    return Predictions(stream(source, inputs, **settings))


def stream(
    source: str | Path,
    inputs: str | Path | Iterable[str | Path],
    *,
    out: str | Path | None = None,
    pictures: bool = False,
    labels: str = "",
    features: str | Path | None = None,
    task: str = "",
    tasks: tuple[str, ...] = (),
    checkpoint: str = "last",
    ema: bool | None = None,
    precision: Literal["fp32", "bf16", "fp16"] = "fp32",
    batch: int | None = None,
    device: str = "auto",
    threads: int | None = None,
    on_bad_sample: Literal["stop", "skip"] = "skip",
    backbone: str | None = None,
    stride_in: Literal["3x3", "1x1"] | None = None,
    weights_key: str = "",
    classes: tuple[str, ...] = (),
    suffix: str = "",
    ext: str = "",
    quality: int = 95,
    outscale: float | None = None,
    blend: str = "",
    plugin: str | Path | None = None,
    launch: Launch | None = None,
    options: dict[str, Any] | None = None,
) -> Iterator[Predicted]:
    """Predict files with a run's folder or a weights file, one after the other, in constant memory.

    Only of several inputs all file names are kept, so that each file is predicted once. Any option of the task can be given too
    (size=; a classifier's top=, a detector's score=); the message about an unknown one lists them all.

    inputs         files, folders (searched for what the task predicts, photos as a rule) and globs
    task, tasks    which task of a run that has several, or a,b or all: where they see the same pixels, a picture goes through
                   the trunk once; options of one are given as TASK.KEY=
    out            a folder for predictions.jsonl, predictions.csv and sheet.png, and for pictures that are made larger; a
                   prediction that was stopped goes on
    batch          samples at once; by default what the task takes (32 of a classifier, 4 of a detector or segmenter)
    threads        of a process, for its arithmetic, whose last bits depend on it; by default its cores (on Ray --cpus)
    pictures       draw each picture too, into out/pictures
    labels         write what is found as labels too, into out/labels: coco, voc, yolo, labelme, labelstudio or csv; of events
                   activitynet, thumos or csv
    features       a folder for what the head reads of each video: a .npy with a row a step, and a JSON with its times
    weights_key    which network of a weights file that holds several: the keys that lead to it, and its prefix
    classes        names for the outputs of a weights file that has none, in their order
    on_bad_sample  skip: a file that cannot be read becomes a line with its error; stop: it ends the work
    suffix, ext, quality, outscale  of pictures that are made larger: what stands behind each name (_x4), another format (png),
                   1 to 100 of JPEG and WebP, and how many times as large they become, by bicubic of what the network made
    blend          FILE:0.8 mixes in another run or weights file of the same network: 0.8 of its weights, 0.2 of the source's
    plugin         the recipe file that defines the run's task, if the task is your own
    """
    where = Source(absolute(at_home(source)), task, checkpoint, ema, device, threads, backbone, stride_in, weights_key, classes,
                   options or {}, True, blend, tasks)  # fmt: skip
    writing = Writing(suffix, ext, quality, outscale, str(Path(at_home(features)).absolute()) if features else "")
    wanted = Predicting(where, precision, batch, on_bad_sample, writing)
    given = map(at_home, [inputs] if isinstance(inputs, (str, Path)) else inputs)
    return _begun([*given], wanted, Path(at_home(out)) if out else None, pictures, labels, plugin, launch)


def _begun(
    given: list[str],
    wanted: "Predicting",
    out: Path | None,
    pictures: bool,
    labels: str,
    plugin: Any,
    launch: Launch | None,
) -> Iterator[Predicted]:
    """Check the settings, and begin to predict."""
    where, writing = wanted.source, wanted.writing
    problems = [f"{key}={n}: expected a number above 0" for key, n in (("batch", wanted.batch), ("threads", where.threads))
                if n is not None and n < 1] + writing_problems(writing)  # fmt: skip
    files = {"pictures": "true" * pictures, "labels": labels, "suffix": writing.suffix}
    problems += [f"{key}={value} needs out=FOLDER" for key, value in files.items() if value and not out]
    if out and writing.features == str(out.absolute()):
        problems.append(
            f"features={writing.features}: is out= too; give features a folder of their own, as {out}/features"
        )
    if problems:
        raise RecipeError(problems)
    if plugin:
        plugins.load(plugin)
    if where.blend:
        where = replace(where, blend=absolute_blend(where.blend))
    there = tasks_of(where)
    kinds = {name: there[name] for name in chosen(where)}
    if len(kinds) > 1:
        kind: Any = several(kinds, {"labels": labels, "features": writing.features})
    else:
        kind = next(iter(kinds.values()))
        check_own(kind.name, where.options)
    find_nothing(given, kind)
    for line in left_out(given, kind):
        note(line)
    if labels and labels not in (known := kind.predicted.labels_as):
        raise RecipeError(f"labels={labels}: expected {', '.join(known) or 'none: this task has no objects to write'}")
    _check_writing(kind, writing)
    wanted = replace(wanted, source=where, batch=wanted.batch or kind.together)
    found = (_stream_named if kind.predicted.named else _stream)(given, wanted, kind, out, pictures, plugin, launch)
    return _with_labels(found, labels, out, where) if labels and out else found


def _check_writing(kind: type[Task], writing: Writing) -> None:
    """Raise RecipeError where it is said how pictures or features are written and the task makes none."""
    said = {f.name: value for f in fields(writing) if (value := getattr(writing, f.name)) != f.default}
    if (features := said.pop("features", "")) and not kind.predicted.has_features:
        raise RecipeError(f"features={features}: the task {kind.name} has no features over time; leave it out")
    if said and not kind.predicted.named:
        raise RecipeError(
            [f"{key}={v}: the task {kind.name} makes no pictures; leave it out" for key, v in said.items()]
        )


def _with_labels(found: Iterator[Predicted], form: str, out: Path, where: Source) -> Iterator[Predicted]:
    """Yield predictions, and write them as labels when all are in."""
    every: list[Any] = []
    for one in found:
        every.append(one)
        yield one
    task = ready(where).task
    lost = task.predicted.write_labels(form, out / "labels", every, task)
    note(f"wrote {out}/labels (format={form})" + "".join(f"\n  could not be carried over: {line}" for line in lost))


@dataclass(frozen=True)
class Predicting:
    """What predicts, and how. As JSON it goes to workers."""

    source: Source
    precision: str
    batch: int | None
    on_bad_sample: str
    writing: Writing


def _stream(
    given: list[str],
    wanted: Predicting,
    task: type[Task],
    out: Path | None,
    pictures: bool,
    plugin: Any,
    launch: Launch | None,
) -> Iterator[Predicted]:
    """Yield the predictions one after the other, first those that the output already holds."""
    settings: dict[str, Any] = {**asdict(wanted), "plugins": plugins.texts(plugin)}
    decides = {key: value for key, value in settings.items() if key != "writing"}
    decides["features"] = wanted.writing.features
    decides["inputs"] = [os.path.abspath(each) for each in given]  # noqa: PTH100 - elsewhere one name is another folder
    output = Output(out, decides, task.predicted, pictures) if out else None
    done, first = (output.done, -(output.done % settings["batch"])) if output else (0, 0)
    whole, remarks = False, Remarks(task.unit.removesuffix("s"))
    try:
        loaded = _features_begun(settings, launch) if wanted.writing.features else None
        total = sum(1 for _ in expand(given, task))
        if output:
            yield from output.lines()
        # batches stay the same: a stopped prediction goes on at the beginning of the batch in which it stopped
        files = itertools.islice(expand(given, task), done + first, None)
        with bar("predict", total, task.unit) as advance, threads_kept():
            advance(done)
            for skipped, predicted in enumerate(_compute(files, settings, task.predicted, launch, loaded), start=first):
                if skipped < 0:
                    continue
                remarks.add(predicted.file, predicted.remarks)
                if output:
                    output.add(predicted)
                advance()
                yield predicted
        whole = True
    finally:
        if output:
            output.close(whole)
    for line in remarks.lines():
        note(line)
    if output:
        drawn = ", predictions.csv and sheet.png" if output.drawn else " and predictions.csv"
        note(f"wrote {out}/predictions.jsonl{drawn}")
    if wanted.writing.features:
        note(f"wrote features to {wanted.writing.features}")


def _features_begun(settings: dict[str, Any], launch: Launch | None) -> Ready:
    """Load the model, and write into the folder for features how they are made. Raises RecipeError where it says otherwise."""
    source, folder = Source(**settings["source"]), Path(settings["writing"]["features"])
    found = ready(source if launch is None else replace(source, device="cpu"))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        begin(folder, _decides(settings, found), "features")
    except OSError as error:
        raise RecipeError(f"features={folder}: cannot be written ({error.strerror}); choose another folder") from None
    return found


def _stream_named(
    given: list[str],
    wanted: Predicting,
    task: type[Task],
    out: Path | None,
    pictures: bool,
    plugin: Any,
    launch: Launch | None,
) -> Iterator[Predicted]:
    """Yield predictions that are files of their own, those that are not there yet; `pictures` draws each beside its input."""
    settings: dict[str, Any] = {**asdict(wanted), "plugins": plugins.texts(plugin)}
    if not out:
        yield from _with_bar(list(expand(given, task)), settings, task, launch)
        return
    plan = targets(given, out, wanted.writing, OWN)
    with threads_kept():
        found = ready(wanted.source if launch is None else replace(wanted.source, device="cpu"))
        output, remarks = NamedOutput(out, plan, task.predicted, _decides(settings, found)), dict[str, str]()
        goal = output.wanted
        if len(goal) < len(plan):
            note(f"{len(plan) - len(goal)} of {len(plan)} are in {out} already: left as they are")
        try:
            for predicted in _with_bar(list(goal), settings, task, launch, found):
                if pictures and not predicted.error:  # before the file, which says that this one is done
                    (out / DRAWN).mkdir(exist_ok=True)
                    name = goal[Path(predicted.file)].relative_to(out).as_posix().replace("/", "-")
                    predicted.image().save(out / DRAWN / drawn_name(f"{name}.png"))
                output.add(predicted)
                if remark := getattr(predicted, "remark", ""):
                    remarks.setdefault(remark, predicted.file)
                yield predicted
        finally:
            output.close()
    for remark, file in remarks.items():
        note(f"{file}: {remark}")
    failed = (
        f"; {counted(output.failed, unit)} failed" if (unit := task.unit.removesuffix("s")) and output.failed else ""
    )
    drawn = f", {LINES} and {SHEET_FILE}" if output.drawn else f" and {LINES}"
    note(f"wrote {counted(output.made, unit)} to {out}{drawn}{failed}")


def _decides(settings: dict[str, Any], found: Ready) -> dict[str, Any]:
    """Select what decides pictures that their names do not tell, one beside the other; of the model as it predicts."""
    own = {key: settings[key] for key in ("precision", "plugins")}
    own |= {key: settings["writing"][key] for key in ("quality", "outscale")}
    if "update" in found.origin:
        own["checkpoint"] = f"{found.origin['update']:06d}"
    return {**settings["source"], **own, WEIGHTS: weights_digest(found.model)}


def _with_bar(
    files: list[Path],
    settings: dict[str, Any],
    task: type[Task],
    launch: Launch | None,
    found: Ready | None = None,
) -> Iterator[Predicted]:
    with bar("predict", len(files), task.unit) as advance, threads_kept():
        for predicted in _compute(iter(files), settings, task.predicted, launch, found):
            advance()
            yield predicted


def _compute(
    files: Iterator[Path],
    settings: dict[str, Any],
    kind: type[Predicted],
    launch: Launch | None,
    found: Ready | None = None,
) -> Iterator[Predicted]:
    """Yield a prediction for each file. `found` is the model where it is loaded already; workers of a pool load their own."""
    batches = iter(lambda: list(itertools.islice(files, settings["batch"])), [])
    if launch is None:
        compute = computer(settings, note, found)
        for batch in batches:
            yield from compute([str(f) for f in batch])
        return
    from ...cluster.launchers.table import pool

    mixed = blended(settings)
    with pool(f"{__name__}:remote", settings, launch) as results:
        while chunk := list(itertools.islice(batches, max(1, CHUNK // settings["batch"]))):
            computed = results([[str(f.absolute()) for f in batch] for batch in chunk])
            for batch, lines in zip(chunk, computed, strict=True):
                if mixed:  # the workers have read both networks
                    note(mixed)
                    mixed = ""
                yield from (kind.from_line({**line, "file": str(f)}) for f, line in zip(batch, lines, strict=True))


def remote(settings: dict[str, Any]) -> Callable[[list[str]], list[dict[str, Any]]]:
    """Prepare a worker of a pool: return a function from the file names of a batch to their predictions' lines."""
    with mistakes_as_engine_errors():
        plugins.load_all(settings["plugins"])
        compute = computer(settings)

    def lines(files: list[str]) -> list[dict[str, Any]]:
        with mistakes_as_engine_errors():
            return [p.line() for p in compute(files)]

    return lines
