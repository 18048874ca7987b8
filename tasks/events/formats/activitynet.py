"""ActivityNet's JSON: annotations of a database of videos, as THUMOS' are published too (ActionFormer, OpenTAD), and results."""

import json
import os
from typing import Any

from trunkline.ground.errors import DataError

from ...data.text import text_of
from ..annotations import Annotated, Event, seconds

_HEAD = 1 << 20  # bytes
SUBSETS = (
    ("training", "validation"),
    ("validation", "test"),
    ("training", "testing"),
    ("train", "val"),
    ("train", "test"),
)
"""What subsets train and validate, the first that are there: ActivityNet's; THUMOS', whose training videos are no long ones."""


def _document(file: str | os.PathLike[str], key: str) -> dict[str, Any]:
    """Read a JSON file's object `key`. Raises DataError where there is none."""
    try:
        said = json.loads(text_of(file))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{file}: is no JSON ({error})") from None
    found = said.get(key) if isinstance(said, dict) else None
    if not isinstance(found, dict):
        raise DataError(f'{file}: expected an object with "{key}", as ActivityNet\'s files have it')
    return found


def is_database(file: str | os.PathLike[str]) -> bool:
    """Say whether a JSON file begins as ActivityNet's annotations do."""
    try:
        with open(file, "rb") as head:  # noqa: PTH123 - of large files the beginning is enough
            return b'"database"' in head.read(_HEAD)
    except OSError:
        return False


def read_database(
    file: str | os.PathLike[str], subsets: tuple[str, str] | None = None, one_subset: bool = False
) -> dict[str, Annotated]:
    """Read a database's videos by split, `train` and `val`; `subsets` names those of the file, as it writes them.

    Without `subsets` they are the first of SUBSETS that are there. Other subsets are not read, which is said. Raises
    DataError where the file is none, or lacks the subsets.
    """
    database, name = _document(file, "database"), os.fspath(file)
    there = {str(entry.get("subset", "")) for entry in database.values() if isinstance(entry, dict)}
    chosen = subsets or _usual(there)
    if chosen is None or not there & {*chosen}:
        wanted = " and ".join(chosen) if chosen else "training and validation, or validation and test"
        raise DataError(
            f"{name}: has the subsets {', '.join(sorted(there)) or 'none'}; expected {wanted}: train= and val= name them"
        )
    if subsets and (lacking := [one for one in subsets if one not in there]):
        raise DataError(f"{name}: has no subset {', '.join(lacking)}, only {', '.join(sorted(filter(None, there)))}")
    if subsets and subsets[0] == subsets[1] and not one_subset:
        raise DataError(f"train={subsets[0]} val={subsets[1]}: the same videos would train and validate")
    found = {split: Annotated(name) for split, subset in zip(("train", "val"), chosen, strict=True) if subset in there}
    split_of = {subset: split for split, subset in zip(("train", "val"), chosen, strict=True)}
    problems: list[str] = []
    for video, entry in database.items():
        if not isinstance(entry, dict):
            problems.append(f"{name}: {video}: expected an object with annotations")
        elif (subset := str(entry.get("subset", ""))) in split_of:
            _add(found[split_of[subset]], video, entry, name)
    first = next(iter(found.values()))
    first.problems += problems
    rest = sorted(filter(None, there - {*chosen}))
    first.notes.append(f"{name}: {' and '.join(f'{subset} is {split}' for subset, split in split_of.items() if subset in there)}"
                       + (f"; {', '.join(rest)} not read" if rest else ""))  # fmt: skip
    return found


def _usual(there: set[str]) -> tuple[str, str] | None:
    low = {name.lower(): name for name in sorted(there)}
    for pair in SUBSETS:
        if {*pair} <= low.keys():
            return low[pair[0]], low[pair[1]]
    alone = next((pair for pair in SUBSETS for name in pair if name in low), None)
    return (low.get(alone[0], alone[0]), low.get(alone[1], alone[1])) if alone else None


def _add(found: Annotated, name: str, entry: dict[str, Any], file: str) -> None:
    video = found.video(name)
    where = f"{file}: {name}"
    for key, attribute in (("duration", "duration"), ("fps", "rate")):
        if entry.get(key) is None:
            continue
        try:
            value = seconds(entry[key])
            if value <= 0:
                raise ValueError(f"{entry[key]!r}: expected a number above 0")
            setattr(video, attribute, value)
        except ValueError as error:
            found.problems.append(f"{where}: {key}={error}")
    listed = entry.get("annotations") or []
    if not isinstance(listed, list):
        found.problems.append(f"{where}: annotations={listed!r}: expected a list")
        return
    for number, one in enumerate(listed):
        try:
            event = _event(one, f"{where}: annotation {number}")
        except ValueError as error:
            found.problems.append(f"{where}: annotation {number}: {error}")
            continue
        if event.label == "Ambiguous":
            video.ambiguous.append((event.start, event.end))
        else:
            video.events.append(event)


def _event(one: Any, where: str) -> Event:
    if not isinstance(one, dict) or not isinstance(one.get("segment"), list) or len(one["segment"]) != 2:
        raise ValueError("expected an object with label and segment, which is [start, end] in seconds")
    start, end = map(seconds, one["segment"])
    score = seconds(one["score"]) if "score" in one else 0.0
    label = one.get("label", "")
    if not isinstance(label, str):
        raise ValueError(f"label={label!r}: expected text")
    return Event(start, end, label.strip(), score, where)


def read_results(file: str | os.PathLike[str]) -> Annotated:
    """Read a results file, `{"results": {video: [{"label", "segment", "score"}, …]}}`. Problems are listed in what it returns."""
    found, name = Annotated(os.fspath(file)), os.fspath(file)
    for video, listed in _document(file, "results").items():
        if not isinstance(listed, list):
            found.problems.append(f"{name}: {video}: expected a list of events")
            continue
        own = found.video(video)
        for number, one in enumerate(listed):
            where = f"{name}: {video}: result {number}"
            try:
                event = _event(one, where)
                if "score" not in one:
                    raise ValueError("has no score")
                own.events.append(event)
            except ValueError as error:
                found.problems.append(f"{where}: {error}")
    return found


def results_text(events: dict[str, list[Event]]) -> str:
    """Write events by video as ActivityNet's results file."""
    results = {
        name: [{"label": e.label, "score": e.score, "segment": [e.start, e.end]} for e in own]
        for name, own in events.items()
    }
    return json.dumps({"version": "VERSION 1.3", "results": results, "external_data": {}}, ensure_ascii=False)
