"""Predictions for files, folders and globs."""

import glob
import itertools
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

from trunkline.ground.errors import DataError, RecipeError

from ...cluster.config import Launch
from ...tasks.contract import Sample
from ...tasks.images.decode import HOW_TO_GO_ON, SUFFIXES, read_image
from ...tasks.predicted import Predicted
from ..evaluation.evaluate import absolute
from ..evaluation.measure import inference
from ..launch.worker import mistakes_as_engine_errors
from ..models.sources import Ready, ready, task_kind
from ..recipe import plugin as plugins
from ..show import bar, note
from .predictions import Output, Predictions

CHUNK = 65_536  # files whose names are in memory at once


def predict(source: str | Path, inputs: str | Path | Iterable[str | Path], **settings: Any) -> Predictions:
    """`stream` as a list that a notebook shows as a contact sheet."""
    return Predictions(stream(source, inputs, **settings))


def stream(
    source: str | Path,
    inputs: str | Path | Iterable[str | Path],
    *,
    out: str | Path | None = None,
    pictures: bool = False,
    checkpoint: str = "last",
    ema: bool | None = None,
    precision: Literal["fp32", "bf16", "fp16"] = "fp32",
    batch: int | None = None,
    device: str = "auto",
    threads: int | None = None,
    on_bad_sample: Literal["stop", "skip"] = "skip",
    backbone: str | None = None,
    stride_in: Literal["3x3", "1x1"] | None = None,
    plugin: str | Path | None = None,
    launch: Launch | None = None,
    options: dict[str, Any] | None = None,
) -> Iterator[Predicted]:
    """What a run's folder or a weights file says of pictures, one after the other, in constant memory.

    Any option of the task can be given too (size=; a classifier's top=, how many classes it names; a detector's score=,
    the lowest that it gives out): what there is, an unknown one's message lists.

    inputs         files, folders (searched for photos) and globs
    out            a folder for predictions.jsonl, predictions.csv and sheet.png; a prediction that was stopped goes on
    batch          pictures at once; by default 32 of a classifier, 4 of a detector or segmenter
    threads        of a process, for its arithmetic, whose last bits depend on it; by default its cores (on Ray --cpus)
    pictures       draw each picture too, into out/pictures
    on_bad_sample  skip: a file that cannot be read becomes a line with its error; stop: it ends the work
    plugin         the recipe file that holds the run's task, where that is one of your own
    """
    problems = [f"batch={batch}: expected a number above 0"] if batch is not None and batch < 1 else []
    problems += [f"threads={threads}: expected a number above 0"] if threads is not None and threads < 1 else []
    problems += ["pictures=true needs out=FOLDER"] if pictures and not out else []
    if problems:
        raise RecipeError(problems)
    given = [str(i) for i in ([inputs] if isinstance(inputs, (str, Path)) else inputs)]
    find_nothing(given)
    if plugin:
        plugins.load(plugin)
    task = task_kind(source)
    kind, together = task.predicted, batch or task.together
    settings: dict[str, Any] = {
        "source": absolute(source), "checkpoint": checkpoint, "ema": ema, "precision": precision, "device": device,
        "threads": threads, "backbone": backbone, "stride_in": stride_in, "options": options or {}, "batch": together,
        "on_bad_sample": on_bad_sample, "plugins": plugins.texts(plugin),
    }  # fmt: skip
    output = Output(Path(out), {**settings, "inputs": given}, kind, pictures) if out else None
    whole = False
    try:
        total = sum(1 for _ in expand(given))
        if output:
            yield from output.lines()
        done = output.done if output else 0
        # batches stay what they were: a stopped prediction goes on at the beginning of the one it stood in
        files = itertools.islice(expand(given), done - done % together, None)
        with bar("predict", total) as advance:
            advance(done)
            for skipped, predicted in enumerate(_compute(files, settings, kind, launch), start=-(done % together)):
                if skipped < 0:
                    continue
                if output:
                    output.add(predicted)
                advance()
                yield predicted
        whole = True
    finally:
        if output:
            output.close(whole)
    if out:
        note(f"wrote {out}/predictions.jsonl, predictions.csv and sheet.png")


def find_nothing(inputs: list[str]) -> None:
    """Raise RecipeError naming every input that stands for no file."""
    wrong = [
        f"{given}: there is no such file, no photo in that folder, and nothing that this pattern matches"
        for given in inputs
        if next(_expand(given), None) is None
    ]
    if wrong or not inputs:
        raise RecipeError(wrong or "nothing to predict: give files, folders or globs")


def expand(inputs: list[str]) -> Iterator[Path]:
    """The files that inputs stand for, in order, each once."""
    seen: set[Path] = set()
    for given in inputs:
        for path in _expand(given):
            if len(inputs) > 1:  # one input alone names no file twice
                if path in seen:
                    continue
                seen.add(path)
            yield path


def _expand(given: str) -> Iterator[Path]:
    path = Path(given)
    if path.is_dir():
        yield from _photos(path)
    elif path.is_file():
        yield path
    else:
        yield from (p for p in map(Path, sorted(glob.glob(given, recursive=True))) if p.is_file())  # noqa: PTH207


def _photos(folder: Path) -> Iterator[Path]:
    """The photos below a folder in the order of their paths, hidden ones left out; one folder's names at a time."""
    try:
        with os.scandir(folder) as entries:
            found = sorted((e.name, e.is_dir(follow_symlinks=False)) for e in entries if not e.name.startswith("."))
    except OSError as error:
        raise RecipeError(f"{folder}: cannot be read ({error.strerror})") from None
    for name, is_folder in found:
        path = folder / name
        if is_folder:
            yield from _photos(path)
        elif path.suffix.lower() in SUFFIXES and path.is_file():
            yield path


def _compute(
    files: Iterator[Path], settings: dict[str, Any], kind: type[Predicted], launch: Launch | None
) -> Iterator[Predicted]:
    batches = iter(lambda: list(itertools.islice(files, settings["batch"])), [])
    if launch is None:
        compute = computer(settings, found=_ready(settings))
        for batch in batches:
            yield from compute([str(f) for f in batch])
        return
    from ...cluster.launchers.ray_pool import pool

    with pool(f"{__name__}:remote", settings, launch) as results:
        while chunk := list(itertools.islice(batches, max(1, CHUNK // settings["batch"]))):
            computed = results([[str(f.absolute()) for f in batch] for batch in chunk])
            for batch, lines in zip(chunk, computed, strict=True):
                yield from (kind.from_line({**line, "file": str(f)}) for f, line in zip(batch, lines, strict=True))


def _ready(settings: dict[str, Any]) -> Ready:
    return ready(
        settings["source"], checkpoint_name=settings["checkpoint"], averaged=settings["ema"], device=settings["device"],
        threads=settings["threads"], backbone=settings["backbone"], stride_in=settings["stride_in"], options=settings["options"],
        files=True,
    )  # fmt: skip


def remote(settings: dict[str, Any]) -> Callable[[list[str]], list[dict[str, Any]]]:
    """What a worker of a pool is: from the names of a batch to its lines."""
    with mistakes_as_engine_errors():
        plugins.load_all(settings["plugins"])
        compute = computer(settings, _ready(settings))

    def lines(files: list[str]) -> list[dict[str, Any]]:
        with mistakes_as_engine_errors():
            return [p.line() for p in compute(files)]

    return lines


def computer(settings: dict[str, Any], found: Ready) -> Callable[[list[str]], list[Predicted]]:
    """From the names of a batch to what the model says of each."""
    transform, kind = found.task.transform(False), found.task.predicted
    device = next(found.model.parameters()).device

    def compute(files: list[str]) -> list[Predicted]:
        group: list[Sample | Predicted] = []
        for file in files:
            try:
                group.append(transform(Sample(file, Path(file), read_image(file))))
            except DataError as error:
                if settings["on_bad_sample"] == "stop":
                    raise
                group.append(kind(file, error=str(error).partition(f"; {HOW_TO_GO_ON}")[0]))
        samples = [g for g in group if isinstance(g, Sample)]
        named: dict[str, Any] = {}
        with inference(found.model, settings["precision"], device):
            for alike in _of_one_shape(samples):  # what a picture is batched with decides nothing
                named |= {p.id: p for p in found.task.infer(found.model, found.task.collate(alike).to(device))}
        return [kind.of(g.id, named[g.id], found.task) if isinstance(g, Sample) else g for g in group]

    return compute


def _of_one_shape(samples: list[Sample]) -> list[list[Sample]]:
    found: dict[Any, list[Sample]] = {}
    for sample in samples:
        found.setdefault(tuple(sample.image.shape), []).append(sample)
    return list(found.values())
