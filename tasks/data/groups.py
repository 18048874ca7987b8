"""Which samples belong together: pictures of one person, cuts of one video. A split should keep each group on one side."""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from trunkline.ground.errors import DataError

from .repairs import counted

_FEW = 3  # groups that a remark names


@dataclass(frozen=True)
class Naming:
    """How the files of a public data set say their group: `pattern` finds it in an id, as its first group."""

    data: str
    pattern: re.Pattern[str]


# The actions of HMDB-51: a file is SOURCE_ACTION_…, and both hold underscores.
_HMDB = (
    "brush_hair|cartwheel|catch|chew|clap|climb|climb_stairs|dive|draw_sword|dribble|drink|eat|fall_floor|fencing|"
    "flic_flac|golf|handstand|hit|hug|jump|kick|kick_ball|kiss|laugh|pick|pour|pullup|punch|push|pushup|ride_bike|"
    "ride_horse|run|shake_hands|shoot_ball|shoot_bow|shoot_gun|sit|situp|smile|smoke|somersault|stand|swing_baseball|"
    "sword|sword_exercise|talk|throw|turn|walk|wave"
)

NAMINGS = (
    # v_ApplyEyeMakeup_g08_c01.avi: the groups of each action are numbered by themselves (Soomro et al. 2012, section 2).
    Naming("UCF", re.compile(r"(?:^|/)(v_[^/]+_g\d+)_c\d+(?:\.[^/]*)?$")),
    # April_09_brush_hair_u_nm_np1_ba_goo_0.avi: source, action, visible part, camera, people, view, quality, number
    # (Kuehne et al. 2011, section 2). All actions that are cut from one source are one group.
    Naming(
        "HMDB",
        re.compile(rf"(?:^|/)([^/]+?)_(?:{_HMDB})_[fuhl]_(?:cm|nm)_np\d_(?:fr|ba|le|ri)_(?:bad|med|goo)_\d+(?:\.[^/]*)?$"),
    ),
)  # fmt: skip


def groups_of(ids: Sequence[str], pattern: str, column: Sequence[str] | None = None) -> list[str]:
    """Find the group of each id: `column` where it is given, else what `pattern` finds.

    `pattern` is a regular expression that is searched in each id: the group is its first group, else the whole match.
    Raises DataError where it is invalid or does not match every id, and where a cell of the column is empty.
    """
    if column is not None:
        if lacking := sum(not text for text in column):
            raise DataError(f"{lacking} of {counted(len(ids), 'sample')} have an empty group")
        return list(column)
    return found_in(ids.__getitem__, len(ids), pattern)


def found_in(name: Callable[[int], str], count: int, pattern: str) -> list[str]:
    """Find the groups of the ids `name(0)` to `name(count - 1)`, as `groups_of` does by a pattern."""
    try:
        search = re.compile(pattern).search
    except re.error as error:
        raise DataError(
            f"group={pattern!r}: no valid regular expression ({error}); for example group='([^/_]+)_'"
        ) from error
    names, unmatched = [], []
    for i in range(count):
        found = search(name(i))
        text = found and (found[1] if found.re.groups else found[0])
        if text is None:
            unmatched.append(name(i))
        names.append(text)
    if unmatched:
        raise DataError(
            f"group={pattern!r}: does not match {len(unmatched)} of {count} files, such as {', '.join(unmatched[:3])}; "
            "it is searched in the path below the data folder"
        )
    return names


def known_groups(ids: Sequence[str]) -> list[str] | None:
    """Read the groups that file names say, where all are of one known naming (NAMINGS); else return None."""
    return _known(ids.__getitem__, len(ids))


def _known(name: Callable[[int], str], count: int) -> list[str] | None:
    for naming in NAMINGS:
        groups: list[str] = []
        for i in range(count):  # the first id of another naming ends it, which is soon in most data
            if (found := naming.pattern.search(name(i))) is None:
                break
            groups.append(found[1])
        if groups and len(groups) == count:
            return groups
    return None


def group_names(samples: Any, pattern: str = "") -> list[str] | None:
    """Return the group of each sample of a split; None where nothing says groups.

    They are those of the reader (`samples.grouped`, a column of a table), else what `pattern` finds in the ids, else what
    the names of known data sets say. Raises DataError as `groups_of`.
    """
    grouped = getattr(samples, "grouped", None)
    if grouped is not None:
        return list(grouped)
    if pattern:
        return found_in(samples.id, len(samples), pattern)
    return _known(samples.id, len(samples))


def group_numbers(samples: Any, pattern: str = "") -> np.ndarray | None:
    """Number the samples of a split by their groups, `(N,)` int64 from 0; None where nothing says groups."""
    names = group_names(samples, pattern)
    return None if names is None else np.unique(np.array(names, object), return_inverse=True)[1].astype(np.int64)


def crossing(training: Any, validation: Any, pattern: str = "") -> list[str]:
    """Remark, in one line, on groups that have samples on both sides of a split; return [] where none has."""
    train, val = (group_names(samples, pattern) for samples in (training, validation))
    if train is None or val is None:
        return []
    both = sorted({*train} & {*val})
    if not both:
        return []
    seen = Counter(val)
    here = sum(seen[name] for name in both)
    more = ", …" if len(both) > _FEW else ""
    return [
        f"{counted(len(both), 'group')} of {len(seen)} in val {'is' if len(both) == 1 else 'are'} in train too "
        f"({', '.join(both[:_FEW])}{more}): {here} of {counted(len(val), 'sample')} in val are scored by a model that saw "
        "others of their group"
    ]
