"""Hold out a share of each class, or divide all into folds: the same files every time and on every machine."""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np

from trunkline.ground.errors import DataError

from .groups import found_in
from .repairs import counted

_FINE = 2**20  # the unit of shares
HOW_TO_GO_ON = "Add files, or make train/ and val/ yourself."


def split_rows(
    ids: Sequence[str] | Callable[[int], str],
    labels: np.ndarray,
    classes: Sequence[str],
    share: float,
    group: str = "",
    seed: int = 0,
    groups: Sequence[str] = (),
) -> np.ndarray:
    """Choose the rows to hold out: a boolean array as long as `labels`.

    Of each class about `share` is held out (above 0, below 1; at least one file, never all). `group` is a regular
    expression that is searched in each id. All files for which its first group (else the whole match) is the same text
    are on one side; `groups` gives each row's group in its place.
    A class called "" is that of a task without classes. The result depends on the ids, labels, groups, share and
    seed alone. Groups are taken in the order of a hash of their names, each where it brings the classes nearer to their
    share. A new file moves the files of its class by at most about one. Raises DataError where the share is out
    of range, where the expression is invalid or fails to match, or where a class cannot be on both sides.
    """
    if not 0 < share < 1:
        raise DataError(f"val={share}: the share to hold out is a number between 0 and 1, as val=0.2")
    name = ids if callable(ids) else ids.__getitem__
    totals = np.bincount(labels, minlength=len(classes))
    targets = [max(1, min(n - 1, round(share * n))) if n else 0 for n in totals.tolist()]
    if not group and not len(groups):
        if lone := [
            f"{_shown(classes[c])} 1 file: none would be left for training"
            for c in np.flatnonzero(totals == 1).tolist()
        ]:
            raise DataError("\n".join([*lone, HOW_TO_GO_ON]))
        return _first_by_hash(name, labels, totals, targets, seed)
    names = list(groups) or found_in(name, len(labels), group)
    members = _members(names, labels)
    held = [0] * len(classes)
    chosen: set[str] = set()
    order = sorted(members, key=lambda text: (_hash(text, seed), text))
    for text in order:
        counts = members[text]
        if sum(abs(held[c] + n - targets[c]) - abs(held[c] - targets[c]) for c, n in counts.items()) < 0:
            chosen.add(text)
            for c, n in counts.items():
                held[c] += n
    _mend(order, members, totals.tolist(), held, chosen, classes, group)
    return np.fromiter((text in chosen for text in names), bool, len(names))


def fold_rows(
    ids: Sequence[str] | Callable[[int], str],
    labels: np.ndarray,
    classes: Sequence[str],
    folds: int | Literal["groups"],
    groups: Sequence[str] | None = None,
    seed: int = 0,
) -> np.ndarray:
    """Divide rows into folds: the number of each row's fold, `(N,)` int64 from 0, as many as `labels`.

    All rows of a group are in one fold; without `groups` (`(N,)` names) each row is one by itself. Folds hold about as many
    rows each, and of each class. As many folds as groups (and `folds="groups"`) leave one out each time, in the order of
    their names. The result depends on the ids, labels, groups, folds and seed alone, not on the order of rows. Raises
    DataError where there are fewer groups, or rows, than folds.
    """
    if groups is None:
        return _dealt(ids if callable(ids) else ids.__getitem__, labels, folds, seed)
    names, group = np.unique(np.array([*groups], object), return_inverse=True)
    count = _enough(len(names), 2 if folds == "groups" else folds, "group")
    if folds == "groups" or count == len(names):
        return group.astype(np.int64)
    counts = np.zeros((len(names), len(classes)), np.int64)  # rows of each group, by class
    np.add.at(counts, (group, labels), 1)
    shares = counts * _FINE // np.maximum(counts.sum(0), 1)  # whole numbers: the same on every machine
    weights = counts.sum(1) * _FINE // len(labels)
    held, place = np.zeros((count, len(classes)), np.int64), np.zeros(len(names), np.int64)
    hashes = [_hash(name, seed) for name in names]
    for n in sorted(range(len(names)), key=lambda n: (-counts[n].sum(), hashes[n], names[n])):
        # where the fewest rows of its classes are, in shares of each class, and the fewest rows at all
        full = (held * shares[n]).sum(1) + held.sum(1) * max(1, weights[n])
        place[n] = int(full.argmin())
        held[place[n]] += counts[n]
    return place[group]


def _dealt(name: Callable[[int], str], labels: np.ndarray, folds: int | Literal["groups"], seed: int) -> np.ndarray:
    """Deal rows to folds like cards, class by class in the order of a hash: folds differ by one row, and by one of a class."""
    if folds == "groups":
        raise DataError("folds=groups: nothing says which samples belong together; give group=, or a number of folds")
    _enough(len(labels), folds, "sample")
    hashes = np.fromiter((int.from_bytes(_hash(name(i), seed)) for i in range(len(labels))), np.uint64, len(labels))
    found = np.empty(len(labels), np.int64)
    found[np.lexsort((hashes, labels))] = np.arange(len(labels)) % folds
    return found


def _enough(there: int, folds: int, what: str) -> int:
    """Return the number of folds. Raises DataError where there are fewer groups or samples to divide."""
    if there >= folds:
        return folds
    advice = (
        f"give folds={there}, or fewer" if there > 2 else "give folds=2" if there == 2 else "two are needed at least"
    )
    raise DataError(f"folds={folds}: there {'is' if there == 1 else 'are'} {counted(there, what)}: {advice}")


def _shown(name: str) -> str:
    return f"class {name!r} has" if name else "there is"


def _first_by_hash(name, labels: np.ndarray, totals: np.ndarray, targets: list[int], seed: int) -> np.ndarray:
    """Choose as the greedy choice would with every file a group by itself, without a Python object a file."""
    hashes = np.fromiter((int.from_bytes(_hash(name(i), seed)) for i in range(len(labels))), np.uint64, len(labels))
    order = np.lexsort((hashes, labels))
    rank = np.empty(len(labels), np.int64)
    rank[order] = np.arange(len(labels)) - np.repeat(np.cumsum(totals) - totals, totals)
    return rank < np.asarray(targets)[labels]


def _members(names: list[str], labels: np.ndarray) -> dict[str, dict[int, int]]:
    """Count the files of each class in each group."""
    members: dict[str, dict[int, int]] = defaultdict(dict)
    for text, label in zip(names, labels.tolist(), strict=True):
        counts = members[text]
        counts[label] = counts.get(label, 0) + 1
    return members


def _mend(order, members, totals, held, chosen, classes, group) -> None:
    """Move a group to each side on which a class has none, where that empties no other class's side.

    Raises DataError where no group can move.
    """
    problems = []
    for cls, total in enumerate(totals):
        if not total:
            continue
        for side, lacking in (("validation", held[cls] == 0), ("training", held[cls] == total)):
            if not lacking:
                continue
            into = side == "validation"
            kept = [total - n if into else n for total, n in zip(totals, held, strict=True)]
            able = [
                text
                for text in order
                if cls in members[text]
                and (text in chosen) != into
                and all(kept[c] > n for c, n in members[text].items())
            ]
            if not able:
                who = (
                    f"class {classes[cls]!r} would have none for {side}: its"
                    if classes[cls]
                    else f"none would be for {side}: the"
                )
                problems.append(f"{who} groups are too few or too large")
                break
            text = min(able, key=lambda t: sum(members[t].values()))
            (chosen.add if into else chosen.remove)(text)
            for c, n in members[text].items():
                held[c] += n if into else -n
    if problems:
        said = f"group={group!r} makes {counted(len(members), 'group')} of all files:" if group else ""
        raise DataError("\n".join([*filter(None, [said]), *problems, HOW_TO_GO_ON]))


def _hash(text: str, seed: int) -> bytes:
    return hashlib.blake2b(f"{seed}\x1f{text}".encode(), digest_size=8).digest()
