"""Scoring anybody's events in time by ActivityNet's or THUMOS' protocol. No model is needed."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from trunkline.ground.errors import DataError, RecipeError

from ...tasks.data.repairs import Repairs, counted, refuse
from ...tasks.data.table_rows import SUFFIX
from ...tasks.events.annotations import Annotated, bounded, classes_of, stop, unlisted
from ...tasks.events.average_precision import Matches, Segments
from ...tasks.events.features import bare
from ...tasks.events.formats import activitynet, event_table, thumos
from ...tasks.events.scoring import middle_of, overlaps_of, said, score, truth_of
from ...tasks.intervals import over_groups
from ...tasks.scores import mean_over
from ..runs.files import new_file
from ..show import note
from .score import Scored, draw

_FEW = 5


def events(
    truth: str | Path,
    results: str | Path,
    *,
    protocol: Literal["activitynet", "thumos"] = "activitynet",
    overlaps: tuple[float, ...] = (),
    subset: str = "",
    plot: str | Path | None = None,
    on_bad_event: Literal["stop", "skip"] = "stop",
    strict: bool = False,
) -> Scored:
    """Compute the mean average precision of events: over classes at each overlap, and the mean over overlaps.

    `truth` is ActivityNet's JSON, a folder of THUMOS' texts (`Billiards_test.txt`, …), or a table with columns video, start, end
    and label; `results` ActivityNet's JSON, a text of THUMOS' lines, or a table that has a column score besides.

    protocol      activitynet: the area below the curve, mean over overlaps 0.5 to 0.95; thumos: its kit's 11 points, 0.1 to 0.5
    overlaps      others: 0.3,0.4,0.5,0.6,0.7 with protocol=activitynet is what papers on THUMOS mean by its mAP
    subset        of the truth (validation); by default the one that validates
    plot          a PNG file for the precision/recall curves at overlap 0.5 (or the first one)
    on_bad_event  stop at true events without length or outside their video, or skip them
    strict        take everything that would be mended in the files as a mistake
    """
    file = new_file(plot, ".png", "plot") if plot else None
    if wrong := [o for o in overlaps if not 0 < o <= 1]:
        raise RecipeError(f"overlaps={','.join(f'{o:g}' for o in wrong)}: expected shares above 0, up to 1")
    if len({*overlaps}) < len(overlaps):
        raise RecipeError(f"overlaps={','.join(f'{o:g}' for o in overlaps)}: one stands there twice")
    chosen = overlaps_of(protocol, overlaps)
    true, found = _truth(Path(truth), subset), _results(Path(results))
    classes = classes_of([true])
    problems = true.problems + bounded(true, on_bad_event == "skip") + found.problems
    problems += unlisted(found, classes, "the truth")
    stop(problems)
    if not classes:
        raise DataError(f"{truth}: holds no event to find")
    names, warnings = list(true.videos), list(true.notes)
    rows, others = _rows(found, names, classes, results)
    warnings += others
    if strict:
        refuse(warnings)
    scored = _scored(true, rows, names, classes, protocol, chosen)
    warnings += mean_over("mAP", scored.classes, "no event in the truth")
    for warning in warnings:
        note(warning)
    scored.warnings = warnings
    if file:
        draw(scored, file, f"precision at overlap {middle_of(chosen):g}")
    return scored


def _truth(path: Path, subset: str) -> Annotated:
    """Read the true events of one subset. Raises DataError."""
    if path.is_dir():
        folders = thumos.folders_of(path)
        split = {"": "val", "test": "val", "validation": "train", "val": "train"}.get(subset.lower())
        if not folders or split not in folders:
            wanted = f"{subset or 'test'} texts of THUMOS (Billiards_test.txt, …)"
            raise DataError(f"{path}: expected {wanted}, a JSON or a table of events")
        return thumos.read_folder(folders[split], split)
    if path.suffix.lower() in SUFFIX:
        found = event_table.read_table(path, "")
        if subset and "" in found:
            raise DataError(f"{path}: has no column of splits: leave subset={subset} out")
        split = event_table.split_named(subset) if subset else "val" if "val" in found else next(iter(found))
    else:
        found = activitynet.read_database(path, (subset, subset) if subset else None, one_subset=True)
        split = "val"
    if split not in found:
        raise DataError(f"{path}: holds no events of {subset or 'val'}, only of {', '.join(found)}")
    return found[split]


def _results(path: Path) -> Annotated:
    suffix = path.suffix.lower()
    if suffix in SUFFIX:
        return event_table.read_results(path)
    return thumos.read_results(path) if suffix == ".txt" else activitynet.read_results(path)


def _rows(
    found: Annotated, names: list[str], classes: Sequence[str], results: str | Path
) -> tuple[list[tuple[int, int, float, float, float]], list[str]]:
    """Number the results by the truth's videos; those of other videos get numbers behind, and are false."""
    place, number = {name: n for n, name in enumerate(names)}, {name: n for n, name in enumerate(classes)}
    repairs, rows, backwards, others, seen = Repairs(str(results)), [], 0, list[str](), dict[str, str]()
    for name, video in found.videos.items():
        own = next((n for n in (name, bare(name), name.removeprefix("v_")) if n in place), name)
        if own in seen:
            raise DataError(f"{results}: {seen[own]} and {name} are both the truth's {own}; leave one")
        seen[own] = name
        repairs.add("names of videos with another end or a v_ before them", "video", own != name)
        if own not in place:
            others.append(name)
            place[own] = len(place)
        backwards += sum(e.end <= e.start for e in video.events)
        rows += [(place[own], number[e.label], e.start, e.end, e.score) for e in video.events]
    warnings: list[str] = [*repairs.lines()]
    if others:
        few = f"{', '.join(others[:_FEW])}{', …' if len(others) > _FEW else ''}"
        warnings.append(
            f"{results}: {counted(len(others), 'video')} not in the truth ({few}): all found there is false"
        )
    if backwards:
        warnings.append(
            f"{results}: {counted(backwards, 'event')} without length: false, as in the protocols' own code"
        )
    if lacking := sum(name not in found.videos for name in names):
        warnings.append(f"{results}: nothing in {counted(lacking, 'video')} of {len(names)}")
    if not rows:
        raise DataError(f"{results}: holds no event")
    return rows, warnings


def _scored(
    true: Annotated, rows: list[Any], names: list[str], classes: Sequence[str], protocol: Any, overlaps: Sequence[float]
) -> Scored:
    events, ambiguous = truth_of(list(true.videos.values()), classes)
    found = Segments.gathered(rows)
    videos = max(len(names), int(found.video.max()) + 1)
    groups = [video.group for video in true.videos.values()]
    numbers = None
    if any(groups) and videos == len(names):
        numbers = np.unique(
            np.array([g or n for g, n in zip(groups, names, strict=True)], object), return_inverse=True
        )[1]
    whole, over = over_groups(numbers, "videos")
    scoring = score(events, found, ambiguous, videos, classes, overlaps, protocol, whole)
    settings = {"protocol": protocol, "overlaps": list(overlaps)}
    counts = {"videos": len(names), "events": len(events), "ambiguous": len(ambiguous), "results": len(rows)}
    at = list(overlaps).index(middle_of(overlaps))
    curves = {name: _curve(one, at) for name, one in zip(classes, scoring.matches, strict=True)}
    note(said(protocol, overlaps))
    for line in over:
        note(line)
    return Scored(scoring.metrics, scoring.class_ap, settings, counts, curves, [], scoring.intervals)


def _curve(matches: Matches, at: int) -> tuple[Any, Any]:
    """Compute recall and precision at one overlap, of what counts, by falling score."""
    hit = matches.hit[at][matches.counted[at]]
    hits = np.cumsum(hit)
    total = matches.events.sum()
    return (hits / total if total else np.zeros(0)), hits / np.arange(1, len(hits) + 1)
