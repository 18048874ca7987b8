"""The objects of a split as the scores take them, whatever format they were read from."""

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from trunkline.ground.errors import DataError

from ..data.words import WORDS, calling
from ..formats import CONFIGS, format_of
from ..objects.coco_file import Images, Objects, Truth, read_truth
from ..objects.labels import label_studio, rows
from ..objects.polygons import as_raw
from .options import Options
from .samples import BoxSamples
from .splits import has, read_all, read_split


def truth_of(samples: BoxSamples, at: np.ndarray, of: np.ndarray, rows_: np.ndarray) -> Truth:
    """Build the truth of the pictures `rows_` of an index from its objects `at`; `of` is each one's place in `rows_`."""
    index, crowds = samples.index, samples.options.format != "voc"
    sizes = index.sizes[rows_].astype(np.int64)
    images = Images(index.image_ids[rows_], sizes[:, 1], sizes[:, 0], [index.name(row) for row in rows_])
    objects = Objects(
        images.ids[of], index.category_ids[index.labels[at].astype(np.int64)], index.boxes[at],
        [as_raw(index.segmentation(int(i))) for i in at] if samples.masks else None, np.arange(1, len(at) + 1),
        np.asarray(index.area[at], np.float64), index.flags[at].astype(np.int64) if crowds else np.zeros(len(at), np.int64),
    )  # fmt: skip
    categories = dict(zip(index.category_ids.tolist(), index.classes, strict=True))
    return Truth(samples.options.data, images, categories, objects, list(index.notes), list(index.remarks))


def read_any_truth(
    given: str | os.PathLike[str],
    masks: bool,
    split: str = "",
    form: str = "auto",
    said: Mapping[str, Any] | None = None,
) -> Truth:
    """Read a truth: COCO's annotation file, or a folder or file of any other format of objects.

    `split` is that of a folder, by default val where there is one, else all. `said` are the options exif, origin, rotated
    and annotator. Raises DataError with every problem, where `format=` is called `truth_format=`.
    """
    with calling("truth_format"):
        return _read(given, masks, split, form, said or {})


def _read(given: str | os.PathLike[str], masks: bool, split: str, form: str, said: Mapping[str, Any]) -> Truth:
    path, plain = Path(given), Options()
    options = _options(path, masks, form)
    if options is None:
        unread = [key for key, value in said.items() if value != getattr(plain, key)]
        for key in [*(["split"] if split else []), *unread]:
            raise DataError(f"{key}={said.get(key, split)}: {path} is one file of annotations; leave {key}= out")
        return read_truth(given, masks)
    options = replace(options, **said)
    if split and split not in WORDS:
        raise DataError(f"split={split}: expected one of {', '.join(WORDS)}")
    wanted = split or ("val" if has(options, "val") else "")
    samples = read_split(options, wanted) if wanted else read_all(options)
    at = np.arange(len(samples.index.labels))
    of = np.repeat(np.arange(len(samples.index)), np.diff(samples.index.starts))
    return truth_of(samples, at, of, np.arange(len(samples.index)))


def _options(path: Path, masks: bool, form: Any) -> Options | None:
    """Find the options by which a truth is read; None for COCO's file."""
    given: dict[str, Any] = {"on_bad_box": "skip", "empty": True, "head": "mask_rcnn" if masks else "faster_rcnn"}
    if path.is_dir():
        form = format_of(path) if form == "auto" else form
        known = Options.__annotations__["format"].__args__
        if form not in known:
            raise DataError(
                f"{path}: is no data of objects (format={form}); expected {', '.join(known)}, by truth_format="
            )
        return Options(data=str(path), format=form, **given)
    if path.name in CONFIGS or (path.suffix in (".yaml", ".yml") and path.is_file()):
        return Options(data=str(path.parent), format="yolo" if form == "auto" else form, **given)  # type: ignore[arg-type]
    if path.suffix.lower() in rows.SUFFIX and path.is_file():
        return Options(data=str(path.parent), format="csv", val=(path.name,), **given)
    if form == "labelstudio" or (
        path.suffix == ".json" and form == "auto" and _is_list(path) and label_studio.is_label_studio(path)
    ):
        return Options(data=str(path.parent), format="labelstudio", val=(path.name,), **given)
    return None


def _is_list(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(64).removeprefix(b"\xef\xbb\xbf").lstrip()[:1] == b"["
    except OSError:
        return False
