"""From a folder to samples: annotations of one of three formats, and the features of the videos that they name."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np

from trunkline.ground import storage
from trunkline.ground.errors import DataError

from ..data.folds import joining
from ..data.repairs import counted
from ..data.split import split_rows
from ..data.table_rows import SUFFIX
from ..data.words import WORDS
from .annotations import Annotated, Video, bounded, classes_of, stop, unlisted
from .features import find, names_in
from .formats import activitynet, event_table, thumos
from .options import Options
from .samples import EventSamples

FOLDER = "features"
_FEW = 20  # files that are looked into: a folder of more JSONs holds labels of pictures


def read_events(options: Options, classes: Sequence[str] | None = None) -> dict[str, EventSamples]:
    """Read `{"train": ..., "val": ...}`; `classes` are a checkpoint's. Raises DataError with every problem."""
    splits, share = _samples(annotated(options), options, classes), _share(options.val)
    if share and [*splits] == ["train"]:
        splits = {"": splits["train"]}  # one table, or one subset: the share is of it
    if "" in splits and not share:
        raise DataError(
            f"{options.data}: nothing says which videos validate: give val=0.2, or a column split in the table"
        )
    if share and "" not in splits:
        raise DataError(f"val={options.val}: the data has its own splits; leave it out")
    if "" not in splits:
        return _compared(splits)
    whole = splits[""]
    groups = whole.grouped or ()
    pattern = "" if groups else options.group
    held = split_rows(whole.id, np.zeros(len(whole), np.int64), ("",), share, pattern, groups=groups)
    return {"train": whole.take(~held, "train"), "val": whole.take(held, "val")}


def _compared(splits: dict[str, EventSamples]) -> dict[str, EventSamples]:
    """Remark on videos that are in training and in validation."""
    if {"train", "val"} <= splits.keys():
        seen = {video.name for video in splits["train"].videos}
        if both := [video.name for video in splits["val"].videos if video.name in seen]:
            few = f"{', '.join(both[:3])}{' …' if len(both) > 3 else ''}"
            said = (
                f"{counted(len(both), 'video')} in train and in val: the score counts what was learnt by heart ({few})"
            )
            splits["val"] = replace(splits["val"], notes=(*splits["val"].notes, said))
    return splits


def read_whole(options: Options, classes: Sequence[str] | None = None) -> EventSamples:
    """Read all videos, whatever split they are of. Raises DataError as `read_events`."""
    splits = list(_samples(annotated(options), options, classes).values())
    if len(splits) == 1:
        return splits[0]
    videos, files = ([x for one in splits for x in getattr(one, name)] for name in ("videos", "files"))
    notes = [line for one in splits for line in one.notes]
    said = joining([f"{counted(len(one), 'video')}" for one in splits])
    excluded = {name: why for one in splits for name, why in one.excluded.items()}
    return replace(splits[0], videos=tuple(videos), files=tuple(files), excluded=excluded, notes=(*notes, said))


def annotated(options: Options) -> dict[str, Annotated]:
    """Read the annotations by split, "" where nothing divides them, train first. Raises DataError."""
    o, root = options, Path(options.data)
    if storage.is_remote(o.data):
        raise DataError(f"{o.data}: events are read from folders of this machine; copy the folder")
    if not root.is_dir():
        there = "is a file" if root.exists() else "there is no such folder"
        raise DataError(f"{o.data}: {there}; data= takes the folder that holds the annotations")
    form = form_of(root) if o.format == "auto" else o.format
    if form == "activitynet":
        subsets = None
        if o.train or (o.val and not _share(o.val)):
            if not (o.train and o.val):
                raise DataError("train= and val= name the two subsets of the JSON: give both")
            subsets = (o.train, o.val)
        found = activitynet.read_database(_one(root, _databases(root)), subsets)
    elif form == "thumos":
        folders = thumos.folders_of(root)
        if not folders:
            raise DataError(f"{o.data}: holds none of THUMOS' texts (Billiards_val.txt, Billiards_test.txt, …)")
        found = {split: thumos.read_folder(folder, split) for split, folder in folders.items()}
    else:
        found = _tables(root, o)
    return {split: found[split] for split in ("train", "val", "") if split in found}


def form_of(root: Path) -> str:
    """Find the format of a folder of events. Raises DataError where it shows none."""
    if _databases(root):
        return "activitynet"
    if thumos.folders_of(root):
        return "thumos"
    if any(event_table.is_events(file) for file in _files(root)):
        return "events"
    raise DataError(
        f"{root}: holds no annotations of events; expected ActivityNet's JSON, THUMOS' texts, or a table with columns video, "
        "start, end, label"
    )


def _databases(root: Path) -> list[Path]:
    places = [*islice(root.glob("*.json"), _FEW), *islice((root / "annotations").glob("*.json"), _FEW)]
    return sorted(file for file in places if activitynet.is_database(file))


def _one(root: Path, files: list[Path]) -> Path:
    if len(files) != 1:
        raise DataError(
            f"{root}: {', '.join(f.name for f in files) or 'no JSON of events'}; expected one JSON of events"
        )
    return files[0]


def _files(root: Path) -> list[Path]:
    return sorted(p for p in root.iterdir() if p.suffix.lower() in SUFFIX)


def _tables(root: Path, options: Options) -> dict[str, Annotated]:
    named = {
        split: name for split, name in (("train", options.train), ("val", options.val)) if name and not _share(name)
    }
    for split, name in named.items():
        if Path(name).is_absolute() or ".." in Path(name).parts or not (root / name).is_file():
            raise DataError(f"{split}={name}: expected a table below data={options.data}")
    by_name = named or {
        split: file.name
        for file in _files(root)
        for split, words in WORDS.items()
        if file.stem.lower() in words and split != "test"
    }
    if by_name:
        return {
            split: event_table.read_table(root / name, split, options.group)[split] for split, name in by_name.items()
        }
    return event_table.read_table(_only(root), "", options.group)


def _only(root: Path) -> Path:
    files = [file for file in _files(root) if event_table.is_events(file)] or _files(root)
    if len(files) != 1:
        names = ", ".join(f.name for f in files) or "no table of events"
        raise DataError(f"{root}: {names}; expected train.csv and val.csv, or one table")
    return files[0]


def _share(val: str) -> float:
    try:
        return float(val or 0)
    except ValueError:
        return 0.0


def _samples(found: dict[str, Annotated], options: Options, classes: Sequence[str] | None) -> dict[str, EventSamples]:
    """Find the features of all videos, and check the events. Raises DataError with every problem."""
    folder = Path(options.features or Path(options.data) / FOLDER)
    names, problems = names_in(folder), list[str]()
    known = tuple(classes) if classes is not None else classes_of([next(iter(found.values()))])
    splits: dict[str, EventSamples] = {}
    for split, one in found.items():
        problems += one.problems + bounded(one, options.on_bad_event == "skip")
        problems += unlisted(one, known, "the checkpoint" if classes is not None else next(iter(found.values())).file)
        videos, files, lacking = list[Video](), list[Path](), dict[str, str]()
        owner: dict[Path, str] = {}
        for video in one.videos.values():
            try:
                file = find(video.name, names)
            except DataError as error:
                problems.append(str(error))
                continue
            if file is None:
                lacking[video.name] = f"has no features in {folder}"
                continue
            if file in owner:
                problems.append(
                    f"{one.file}: {owner[file]} and {video.name} have the same features, {file}; name them apart"
                )
                continue
            owner[file] = video.name
            videos.append(video)
            files.append(file)
        if options.on_bad_sample != "skip":
            problems += [f"{one.file}: {name}: {why}" for name, why in lacking.items()]
            lacking = {}
        if not videos and not problems:
            problems.append(f"{one.file}: no video of {split or 'the data'} has features in {folder}")
        splits[split] = EventSamples(
            options.data, tuple(videos), tuple(files), known, options, lacking, tuple(one.notes)
        )
    if not known:
        problems.append(f"{options.data}: names no class: all videos are without events")
    stop(problems)
    return splits
