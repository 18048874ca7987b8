"""The maps of a frozen trunk, computed once and kept in the run's folder."""

import contextlib
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from trunkline.ground.errors import DataError

from ...heads.contract import Batch
from ...heads.model import Model
from ...tasks.contract import Task
from ...tasks.samples import Samples
from ..evaluation.measure import in_turn, inference
from ..feeding.cache import Cache
from ..feeding.draws import Draws
from ..feeding.ordered import in_order
from ..models.digest import weights_digest
from ..show import bar
from .checks import publish
from .parts import Part
from .session import Session


def cache(session: Session, model: Model, part: Part, split: str, precision: str) -> Cache:
    """Read the maps of the model's frozen trunk for a task's split; compute and store them where that is not done yet.

    Every worker computes its share and reads the whole. Where the data is divided into folds, the maps of all samples are
    computed once, in one order, and lie with the run of all folds: a fold takes those of its own. Raises DataError where a
    worker cannot read them.
    """
    own = part.training if split == "train" else part.validation
    samples, name = _all_samples(session, part, own) if part.task.options.folds else own, split
    keeper = session.around or session.run
    if samples is not own:
        name = f"whole-{precision}"
    file = keeper.path / "features" / part.folder / f"{name}.safetensors"
    how = [precision, *filter(None, [getattr(part.task.options, "depth", "")])]
    digest = " ".join([samples.fingerprint()["digest"], weights_digest(model.backbone), *how])
    ids = [samples.id(i) for i in range(len(samples))]
    workers = session.workers
    if not workers.from_lead(lambda: _read(file, digest) is not None, "reading features"):
        computed = compute_maps(session, model, part.task, samples, precision)
        workers.from_lead(lambda: _write(file, computed, digest), "writing features")
        publish(keeper, workers)
    tensors = _read(file, digest)
    if tensors is None:
        raise DataError(
            f"{file}: was written by the leading worker and cannot be read here; is the run's folder shared?"
        )
    maps = {k.removeprefix("map."): v for k, v in tensors.items() if k.startswith("map.")}
    targets = {k.removeprefix("target."): v for k, v in tensors.items() if k.startswith("target.")}
    found = Cache(part.name, ids, maps, targets)
    return found if samples is own else found.only([own.id(i) for i in range(len(own))])


def _all_samples(session: Session, part: Part, own: Samples) -> Samples:
    """Return all samples that the folds divide, without what cannot be used."""
    whole = part.task.whole()
    return whole.without(session.run.excluded(part.folder) or {}) if own.excluded else whole


def _read(file: Path, digest: str) -> dict[str, Tensor] | None:
    """Read what the file holds; None where it is missing, damaged or of another digest, to be computed again."""
    with contextlib.suppress(OSError, SafetensorError), safe_open(str(file), "pt") as stored:
        if (stored.metadata() or {}).get("data") == digest:
            return {k: stored.get_tensor(k) for k in stored.keys()}  # noqa: SIM118
    return None


def _write(file: Path, tensors: dict[str, Tensor], digest: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    beside = file.with_suffix(".tmp")
    try:
        save_file(tensors, str(beside), {"data": digest})
        beside.replace(file)
    finally:
        beside.unlink(missing_ok=True)  # what is left where the disk was full


def compute_maps(session: Session, model: Model, task: Task, samples: Samples, precision: str) -> dict[str, Tensor]:
    """Compute the condensed maps that the head needs (`map.c5`) and the targets (`target.label`), with one row a sample.

    Maps are float32 or wider, on the CPU. The leading worker returns all of them, the others an empty dictionary.
    """
    head: Any = model.heads[task.name]
    draws = Draws(task, samples, session.recipe.seed, training=False)
    # always as many samples at once: their number may decide a map's last bits
    batches = in_order(draws, task.together, int(session.recipe.machine.loaders), workers=session.workers)
    rows: list[dict[str, Tensor]] = []

    def condensed(batch: Batch) -> dict[str, Tensor]:
        found = model.maps(batch.to(session.device))
        maps = head.condense({n: found[n] for n in head.needs})
        whole = {f"map.{k}": v.to(torch.promote_types(v.dtype, torch.float32)).cpu() for k, v in maps.items()}
        return whole | {f"target.{k}": v for k, v in batch.targets.items()}

    with inference(model, precision, session.device), bar("features", len(samples), task.unit) as advance:
        for part in in_turn(batches, condensed, session.workers, "the computing of features", session.end_if_asked):
            rows.append(part)
            advance(len(next(iter(part.values()))))
    return {k: torch.cat([part[k] for part in rows]) for k in rows[0]} if rows else {}
