"""Tables of boxes as labels: the rows of each picture, put together."""

from pathlib import PurePosixPath

from trunkline.ground.errors import DataError

from ...data.below import files_in
from ...data.repairs import Repairs
from ...data.words import ALL_WORDS
from ...images.suffixes import SUFFIXES
from ..names import Alike
from .labelled import Labelled, Labels, Picture, Reading, Wrong
from .rows import Columns, Found, columns_of, expected, placed, rows_of
from .spelled import TAKEN, as_whole, told, twofold


def read(found: Found, reading: Reading) -> Labels:
    """Read a split's objects. Raises DataError with everything that is wrong, up to 20 lines."""
    repairs, wrong = Repairs(str(found.file)), Wrong()
    columns = columns_of(found.file, reading.group)
    _refuse_two_groups(columns, reading.group, found)
    if not columns.label or not (columns.corners or columns.sides):
        lacking = "label" if not columns.label else "box"
        raise DataError(f"{found.file}: has no columns of a {lacking}; {expected()}")
    there = set(files_in(found.data, tuple(SUFFIXES)))
    alike = Alike(there)
    pictures: dict[str, Picture] = {}
    names: dict[str, str | None] = {}
    for row in rows_of(found.file, columns, wrong):
        if found.only and row.split not in ALL_WORDS:
            known = ", ".join(ALL_WORDS)
            wrong.append(f"{found.file}: line {row.line}: {columns.split}={row.split!r}: expected one of {known}")
        if found.only and row.split not in found.only:
            continue
        if found.own and row.split and row.split not in found.own:
            wrong.append(f"{found.file}: line {row.line}: {columns.split}={row.split} in the table of {found.own[0]}")
            continue
        if row.file not in names:
            names[row.file] = placed(row.file, there, found, repairs, alike)
        name = names[row.file]
        if name is None:
            wrong.append(f"{found.file}: line {row.line}: there is no picture {row.file} below {found.data}")
            continue
        picture = pictures.setdefault(name, Picture(name, 0, 0, [], row.group if columns.group else None))
        if columns.group and picture.group != row.group:
            wrong.append(
                f"{found.file}: line {row.line}: {row.file} is of the group {row.group!r}; it was of {picture.group!r} before"
            )
        if columns.size and not all(row.size):
            repairs.add("the picture's width and height: empty or 0, taken from other rows or the picture", "row")
        elif not picture.width:
            picture.width, picture.height = row.size
        elif (picture.width, picture.height) != row.size:
            wrong.append(
                f"{found.file}: line {row.line}: {row.file} is {row.size[0]} x {row.size[1]} pixels; it was "
                f"{picture.width} x {picture.height} before"
            )
        repairs.add("iscrowd: words (true, false, yes, no) taken as 1/0", "row", row.words)
        if row.box and row.label:
            picture.objects.append(Labelled(row.label, row.box, flag=row.crowd))
        elif row.box or row.label:
            wrong.append(
                f"{found.file}: line {row.line}: a {'box without a label' if row.box else 'label without a box'}"
            )
    _check_apart(names, found, wrong)
    _plain_numbers([*pictures.values()], found, columns, repairs, wrong)
    wrong.stop()
    unread = [*columns.unread, *([columns.score] if columns.score else [])]
    left = [f"{found.file}: the column {key} is not read: its objects count as any other" for key in unread]
    return Labels(str(found.data), [*pictures.values()], None, [*repairs.lines(), *left])


def _refuse_two_groups(columns: Columns, group: str, found: Found) -> None:
    """Raise DataError where `group=` says something, and a column of groups something else."""
    if group and columns.group and columns.group.strip().lower() != group.strip().lower():
        raise DataError(
            f"group={group!r}: {found.file} has a column {columns.group}, too; leave group= out, or rename the column"
        )


def _plain_numbers(pictures: list[Picture], found: Found, columns: Columns, repairs: Repairs, wrong: Wrong) -> None:
    """Take labels that all are written as 1.0 as 1; add to `wrong` those that are one number in several spellings."""
    labels = {o.name for p in pictures for o in p.objects}
    for several in twofold(labels):
        first: dict[str, int] = {}
        for row in rows_of(found.file, columns, Wrong()):
            first.setdefault(row.label, row.line)
        lines = " and ".join(str(first[label]) for label in several)
        wrong.append(f"{found.file}: lines {lines}: {told(several)}")
    if plain := as_whole(labels):
        for one in (o for p in pictures for o in p.objects):
            one.name = plain[one.name]
            repairs.add(TAKEN, "row")


def _check_apart(names: dict[str, str | None], found: Found, wrong: Wrong) -> None:
    """Add to `wrong` the names that lead to one picture by leaving out different folders."""
    said: dict[str, list[str]] = {}
    for given, name in names.items():
        if name:
            said.setdefault(name, []).append(given)
    for name, several in said.items():
        if len({PurePosixPath(given.replace("\\", "/")).parent for given in several if given not in name}) > 1:
            wrong.append(f"{found.file}: {' and '.join(several[:4])} lead to one picture, {name}")
        elif len({given.casefold() for given in several}) < len(several):
            wrong.append(
                f"{found.file}: {' and '.join(several[:4])} differ in small and capital letters alone, and only {name} is there"
            )
