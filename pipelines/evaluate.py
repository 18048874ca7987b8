"""Scoring a run or a weights file on a split."""

from pathlib import Path
from typing import Any, Literal

from ..tasks.contract import DataError, Scores
from ..tasks.fingerprint import compare
from .feed import Draws, decoding, in_order
from .finish import write_records
from .recipe import RecipeError
from .run import Run
from .scoring import score
from .show import note, samples_left_out
from .sources import ready


def evaluate(
    source: str | Path,
    *,
    data: str | None = None,
    split: Literal["train", "val"] = "val",
    checkpoint: str = "last",
    ema: bool | None = None,
    val: float | None = None,
    size: int | None = None,
    precision: Literal["fp32", "bf16", "fp16", "fp64"] = "fp32",
    batch: int = 32,
    workers: int | None = None,
    device: str = "auto",
    on_bad_sample: Literal["stop", "skip"] | None = None,
    backbone: str | None = None,
    stride_in: Literal["3x3", "1x1"] | None = None,
    out: str | Path | None = None,
) -> Scores:
    """Score a run's folder or a weights file on a split of class folders.

    data           another folder than the run's own; a weights file needs one
    split          val or train, under the evaluation transform
    checkpoint     last, best or a number such as 000480
    ema            true: averaged weights, false: raw ones; by default averaged where there are any
    precision      what is computed in; fp32 unless asked otherwise
    out            a JSON lines file for one record a sample
    """
    if batch < 1:
        raise RecipeError(f"batch={batch}: expected a number above 0")
    given = {
        "data": str(Path(data).absolute()) if data else None,
        "val": val,
        "size": size,
        "on_bad_sample": on_bad_sample,
    }
    if data:  # the run's own split is of the run's own data
        given |= {"group": "", "val": 0.0 if val is None else val}
    found = ready(
        source, checkpoint_name=checkpoint, averaged=ema, device=device, backbone=backbone, stride_in=stride_in,
        options={k: v for k, v in given.items() if v is not None},
    )  # fmt: skip
    options = next(iter(found.recipe.tasks.values()))
    if not options.data:
        raise RecipeError(f"{source}: a weights file does not say which data: give data=FOLDER")
    samples = found.task.samples(split)
    processes = int(found.recipe.machine.workers) if workers is None else workers
    if options.on_bad_sample == "skip":
        own = Run(source)
        stored = own.read("excluded.json") if not data and (own.path / "excluded.json").is_file() else None
        reasons = dict(samples.excluded) | found.task.scan(samples, max(1, processes)) if stored is None else stored
        samples = samples.without(reasons)
        if samples.excluded:
            note(f"{samples_left_out(len(samples.excluded))} that cannot be decoded")
    stored = Run(source).manifest(split) if not data and val is None and Path(source).is_dir() else None
    if stored is not None and stored != (lines := samples.manifest()):
        raise DataError(
            f"the {split} data of {source} changed since it began: {compare(stored, lines)}. Put it back, or score what "
            f"is there now with data={options.data}"
        )
    if precision == "fp64":
        found.model.double()
    draws = Draws(found.task, samples, 0, training=False)
    with decoding(processes):
        scores, records = score(found.model, found.task, samples, in_order(draws, batch, processes), precision)
    scores.details |= {"origin": found.origin | {"data": options.data, "split": split, "precision": precision}}
    if out:
        write_records(Path(out), records)
    return scores


def result_of(scores: Scores) -> dict[str, Any]:
    """What `--json` prints: metrics at the top level, intervals, and where they come from."""
    whole = scores.to_json()
    origin = whole["details"].pop("origin", {})
    return {**whole, **origin}
