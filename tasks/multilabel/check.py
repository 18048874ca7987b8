"""Look at a whole data set of several labels a picture: every picture decoded, every label counted."""

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from trunkline.ground import storage
from trunkline.ground.errors import DataError
from trunkline.ground.links import unread

from ..checked import BOX, NONE, SAMPLE, Check, Picture, Pictures, below
from ..classification.folders import class_problems, group_problems
from ..detection.check import ALL, splits_of
from ..detection.samples import BoxSamples, bad_boxes, describe
from .options import Options
from .samples import LabelSamples
from .splits import TABLE, apart, objects_of, read_labels, read_unsplit, scanned, with_classes


def check_labels(
    root: str | os.PathLike[str],
    form: str,
    classes: Sequence[str] | None = None,
    *,
    options: Mapping[str, Any] = NONE,
    loaders: int | None = None,
    progress: bool = True,
) -> Check:
    """Check a folder of pictures with several labels, for `trunkline check`; `options` are the task's.

    `classes` are a checkpoint's; the data may have no others. `counts` are pictures by the class that they show. Problems:
    files that cannot be read, pictures that are missing, damaged or of another size than their annotation says, boxes without
    area or outside their picture, rows that cannot be used. Oddities: labels that nobody knows, pictures without any class,
    classes without a picture.
    """
    result = Check(os.fspath(root), counted="labels")
    pictures = Pictures(result, loaders, progress)
    seen: dict[str, LabelSamples] = {}
    plain = Options(data=os.fspath(root), format=form, on_bad_box="stop" if form == TABLE else "skip", **options)  # type: ignore[arg-type]
    reading = _of_tables if form == TABLE else _of_objects
    for split, samples in reading(plain, classes, result):
        seen[split] = samples
        told = len(result.problems)
        result.oddities += [{"file": split, "what": what} for what in samples.remarks()]
        counts = (samples.known == 1).sum(0).tolist()
        result.counts[split] = dict(zip(samples.classes, counts, strict=True))
        if split != "val" and not any(counts):
            result.problems.append({"file": split, "what": "no picture has a label that could be trained on"})
        name = partial(below, split, samples.id) if isinstance(samples.pictures, BoxSamples) else samples.id
        for _ in pictures.look(split, len(samples), partial(_examine, samples), name, told):
            pass
    pictures.compare(seen, plain.group)
    return result


def _of_objects(options: Options, classes: Sequence[str] | None, result: Check) -> Iterator[tuple[str, LabelSamples]]:
    """Read the splits of objects; note what is wrong with them."""
    for split in splits_of(objects_of(options)):
        try:
            found = read_unsplit(options, classes) if split == ALL else read_labels(options, split, classes)
        except DataError as error:
            result.problems += [{"file": split, "what": line} for line in str(error).splitlines()]
            continue
        classes = found.classes
        assert isinstance(found.pictures, BoxSamples)
        index = found.pictures.index
        for at in np.flatnonzero(bad_boxes(index, options.format) & found.pictures.bad):
            if options.format == "voc" or not index.flags[at]:
                what = f"a box without area or outside: {describe(index, int(at), options.format)}"
                result.problem(split, what, BOX)
        yield split, found


def _of_tables(options: Options, classes: Sequence[str] | None, result: Check) -> Iterator[tuple[str, LabelSamples]]:
    """Scan the tables; note what is wrong with them. Raises DataError where there is none."""
    labelling, folders = scanned(options)
    own = with_classes(labelling, folders)
    texts = group_problems(folders, options.group, divided=False) + class_problems(own, classes)
    result.problems += [{"file": ".", "what": what} for what in texts]
    for folder in folders.values():
        result.problems += [{"file": where, "what": what} for where, what in folder.problems]
        for where, what in folder.strays.items():
            result.problem(where, what, SAMPLE if folder.skippable(where) else "")
    for name, found in apart(options, labelling, folders, classes).items():
        if len(found):
            yield name or ALL, found


def _examine(samples: LabelSamples, i: int) -> Picture:
    source = samples.source(i)
    try:
        data = bytes(storage.read(source))
        image = samples[i].image
    except OSError as error:
        return Picture(unread(source, error))
    except DataError as error:
        return Picture(str(error))
    height, width = image.shape[-2:]
    return Picture("", width, height, len(data), hashlib.blake2b(data, digest_size=16).digest())
