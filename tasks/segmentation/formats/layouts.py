"""Where pictures and their masks lie, by format: from a folder and a split to pairs of files and the masks' encoding."""

from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from trunkline.ground.errors import DataError

from ....heads.contract import VOID
from ...data.below import files_in
from ...data.folds import joining
from ...data.repairs import Repair, counted
from ...data.text import numbered, text_of
from ...images.suffixes import JPEG, SUFFIXES
from ..options import Options
from .encoding import Colour, Encoding, with_void
from .published import ADE20K, CAMVID, CITYSCAPES
from .voc import BY_HEART, Pairs, has_list, looks_like, read_sbd, read_voc

MASKS = (".png", ".bmp", ".tif", ".tiff", ".gif")
NONE = -1  # the value of a class that has only a name
_LISTED = 20
_FEW = 5


@dataclass(frozen=True)
class Layout:
    """Folders, with `{split}` in them, and the ends that files' names have there beside what a pair has in common."""

    images: str
    masks: str
    image_end: str = ""  # empty: any suffix of a picture
    mask_end: str = ""  # empty: any suffix of a mask
    splits: tuple[str, str] = ("train", "val")
    encoding: Encoding | None = None  # None: read from `classes.txt`


LAYOUTS = {
    "pairs": Layout("images/{split}", "masks/{split}"),
    "camvid": Layout("{split}", "{split}annot", encoding=CAMVID),
    "cityscapes": Layout("leftImg8bit/{split}", "gtFine/{split}", "_leftImg8bit.png", "_gtFine_labelIds.png",
                         encoding=CITYSCAPES),
    "ade20k": Layout("images/{split}", "annotations/{split}", splits=("training", "validation"), encoding=ADE20K),
}  # fmt: skip


def read_pairs(options: Options, split: str) -> Pairs:
    """Read the pairs of the split "train" or "val". Raises DataError where the data has another layout."""
    if options.format in ("voc", "sbd"):
        return read_voc(options, split) if options.format == "voc" else read_sbd(options, split)
    layout = LAYOUTS[options.format]
    given = options.train if split == "train" else options.val
    encoding = layout.encoding or read_classes(Path(options.data, "classes.txt"), looks_like(options))
    encoding = with_void(encoding, options.void) if options.void else encoding
    found = Pairs([], [], [], encoding)
    for folder in given or (layout.splits[split == "val"],):
        one = _folders(options, layout, folder, encoding)
        found = Pairs(
            found.names + one.names, found.images + one.images, found.masks + one.masks, encoding,
            found.lacking | one.lacking, found.notes + one.notes,
        )  # fmt: skip
    return found


def has_split(options: Options, split: str) -> bool:
    """Say whether the data has a split, by its lists or folders, or as the options name them."""
    given = options.train if split == "train" else options.val
    if given or options.format in ("voc", "sbd"):
        return bool(given) or has_list(options, split)
    layout = LAYOUTS[options.format]
    return Path(options.data, layout.images.format(split=layout.splits[split == "val"])).is_dir()


def read_whole_pairs(options: Options) -> Pairs:
    """Read all pairs: of train and val together, of one of them where there is no other, or what is not split.

    A pair that both name counts once. Raises DataError as `read_pairs`.
    """
    if options.format == "pairs" and not any(has_split(options, split) for split in ("train", "val")):
        return read_pairs(replace(options, train=("",)), "train")
    there = [split for split in ("train", "val") if has_split(options, split)]
    parts = [read_pairs(options, split) for split in there or ["train"]]
    rows: dict[str, tuple[str, str]] = {}
    for part in parts:
        for name, *files in zip(part.names, part.images, part.masks, strict=True):
            rows.setdefault(name, (files[0], files[1]))
    notes = [line for part in parts for line in part.notes if BY_HEART not in line]
    if len(parts) > 1:
        sizes = [f"{counted(len(part.names), 'picture')} of {split}" for part, split in zip(parts, there, strict=True)]
        notes.append(joining(sizes))
    if twice := sum(len(part.names) for part in parts) - len(rows):
        notes.append(Repair(f"pictures that stand in train and in val, counted once: {twice}"))
    return Pairs(
        [*rows], [image for image, _ in rows.values()], [mask for _, mask in rows.values()], parts[0].encoding,
        {name: why for part in parts for name, why in part.lacking.items()}, tuple(notes),
    )  # fmt: skip


def _folders(options: Options, layout: Layout, split: str, encoding: Encoding) -> Pairs:
    data = options.data
    there = {kind: getattr(layout, kind).format(split=split).rstrip("/") for kind in ("images", "masks")}
    lacking = [folder for folder in there.values() if not Path(data, folder).is_dir()]
    if lacking:
        raise DataError(f"{data}: there is no folder {' and no '.join(f'{f}/' for f in lacking)}{looks_like(options)}")
    pictures = files_below(Path(data, there["images"]), layout.image_end, tuple(SUFFIXES))
    masks = files_below(Path(data, there["masks"]), layout.mask_end, MASKS)
    if not pictures:
        raise DataError(
            f"{data}/{there['images']}: holds no picture{f' *{layout.image_end}' if layout.image_end else ''}"
        )
    both = [stem for stem in pictures if stem in masks]
    jpegs = {} if len(both) == len(pictures) else files_below(Path(data, there["masks"]), "", JPEG)
    lacking = {
        f"{split}/{stem}": f"its mask {there['masks']}/{jpegs[stem]} is a JPEG, which changes numbers and colours: masks are PNGs"
        if stem in jpegs
        else f"without a mask in {there['masks']}/ ({there['images']}/{file})"
        for stem, file in pictures.items()
        if stem not in masks
    }
    notes = _one_sided(there["masks"], [masks[stem] for stem in masks if stem not in pictures], "have no picture")
    if not layout.image_end:
        read = set(pictures.values())
        unread = [file for file in files_in(Path(data, there["images"])) if file not in read]
        notes += _one_sided(there["images"], unread, "are of no kind of picture that is read")
    return Pairs(
        [f"{split}/{stem}".lstrip("/") for stem in both],
        [f"{there['images']}/{pictures[stem]}" for stem in both],
        [f"{there['masks']}/{masks[stem]}" for stem in both],
        encoding,
        lacking,
        notes,
    )


def _one_sided(folder: str, files: list[str], what: str) -> tuple[str, ...]:
    if not files:
        return ()
    more = f" and {len(files) - _FEW} more" if len(files) > _FEW else ""
    return (f"{folder}: {len(files)} files {what} and are left out: {', '.join(files[:_FEW])}{more}",)


def files_below(folder: Path, end: str, suffixes: tuple[str, ...] = ()) -> dict[str, str]:
    """Find the files below a folder: their paths, by the part of the name that they share with their partners, sorted.

    Hidden files are left out. Raises DataError where two files have the same such part.
    """
    found: dict[str, str] = {}
    for file in files_in(folder):
        if not (file.endswith(end) if end else file.lower().endswith(suffixes)):
            continue
        stem = file.removesuffix(end) if end else str(PurePosixPath(file).with_suffix(""))
        if stem in found:
            raise DataError(f"{folder}: two files of one name, {found[stem]} and {file}")
        found[stem] = file
    return dict(sorted(found.items()))


def read_classes(file: Path, hint: str = "") -> Encoding:
    """Read the encoding from a text file with a class a line: its name, its number and name, or its colour and name.

    `road`; `7 road`; `128 64 128 road` or `#804080 road`. All lines are of one kind; without numbers they count from 0.
    The name `void` stands for no class; a line `255 void` may stand among lines of names. Where no line has the number
    255, that it means no class is only assumed. Raises DataError with every wrong line, up to 20.
    """
    try:
        lines = [line.split() for line in text_of(file).splitlines()]
    except DataError as error:
        raise DataError(
            f"{error}; expected a class a line: its name, or its number or colour in the masks and its name{hint}"
        ) from None
    rows = [(number, *_class(words)) for number, words in enumerate(lines, 1) if words]
    wrong = [
        f"line {n}: {' '.join(lines[n - 1])!r} {what}"
        for n, _, _, name in rows
        for what in _mistakes(lines[n - 1], name)
    ]
    rows = [row for row in rows if not _mistakes(lines[row[0] - 1], row[3])]
    kinds = {kind: n for n, kind, value, name in reversed(rows) if (value, name) != (VOID, "void")}
    if len(kinds) > 1:
        first = " and ".join(f"line {n} ({' '.join(lines[n - 1])!r}) has a {kind}" for kind, n in sorted(kinds.items()))
        wrong.append(f"{first}; expected one kind")
    for at, what in ((3, "the name {}"), (2, "the number {}")):
        places: dict[Any, list[int]] = {}
        for row in rows:
            places.setdefault(row[at], []).append(row[0])
        for value, numbers in places.items():
            if len(numbers) > 1 and value != NONE:
                said = f"the colour {_rgb(value)}" if at == 2 and kinds.keys() == {"colour"} else what.format(value)
                wrong.append(f"lines {', '.join(map(str, numbers))}: {said} stands there twice")
    kinds = set(kinds)
    if kinds == {"name"}:  # a line `255 void` counts for itself
        named = [row for row in rows if row[1] == "name"]
        rows = [(row[0], "name", n, row[3]) for n, row in enumerate(named)] + [row for row in rows if row[1] != "name"]
    kept = [(value, name) for _, _, value, name in rows if name != "void"]
    if not 1 <= len(kept) <= 255 and (kept or not wrong):
        wrong.append(f"has {len(kept)} classes; expected 1 to 255")
    if wrong:
        raise DataError("\n".join(f"{file}: {w}" for w in wrong[:_LISTED]))
    classes = tuple(name for _, name in kept)
    values = {value: n for n, (value, _) in enumerate(kept)} | {row[2]: VOID for row in rows if row[3] == "void"}
    coloured = kinds == {"colour"}
    palette = tuple(_rgb(value) for value, _ in kept) if coloured else ()
    assumed = not coloured and VOID not in values
    return Encoding(classes, values if coloured else {VOID: VOID, **values}, coloured, palette, assumed=assumed)


def _mistakes(words: list[str], name: str) -> list[str]:
    """List what is wrong with one line by itself."""
    if words[0][0] == "#" and _class(words)[0] != "colour":
        return ["is no colour; expected # and six of 0 to 9, a to f, then the name"]
    if signed := numbered(" ".join(words)):
        return [f"has a sign behind its number; expected `{signed[0]} {signed[1]}`"]
    leading = [int(w) for w in words[:3] if w.isascii() and w.isdigit()]
    if len(leading) == 3 and max(leading) > 255:
        return ["is no colour; expected three numbers from 0 to 255, then the name"]
    if leading and words[0].isdigit() and leading[0] > 65535:
        return ["has a number above 65535"]
    return [] if name else ["has no name"]


def _class(words: list[str]) -> tuple[str, int, str]:
    """Split a line into its kind (colour, number or name), its value (NONE where it has none), and its name."""
    if len(words[0]) == 7 and words[0][0] == "#" and all(c in "0123456789abcdefABCDEF" for c in words[0][1:]):
        return "colour", int(words[0][1:], 16), " ".join(words[1:])
    leading = 0
    while leading < min(3, len(words)) and words[leading].isascii() and words[leading].isdigit():
        leading += 1
    numbers = [int(word) for word in words[:leading]]
    if leading == 3 and max(numbers) < 256:
        return "colour", numbers[0] << 16 | numbers[1] << 8 | numbers[2], " ".join(words[3:])
    if leading and numbers[0] < 65536:
        return "number", numbers[0], " ".join(words[1:])
    return "name", NONE, " ".join(words)


def _rgb(value: int) -> Colour:
    return value >> 16, value >> 8 & 255, value & 255
