"""Where pictures and their masks lie, by format: from a folder and a split to pairs of files and the masks' encoding."""

import os
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ...heads.contract import VOID
from ..contract import DataError
from ..images import SUFFIXES
from .encoding import Colour, Encoding
from .options import Options
from .published import ADE20K, CAMVID, CITYSCAPES
from .voc import Pairs, read_sbd, read_voc

MASKS = (".png", ".bmp", ".tif", ".tiff", ".gif")
NONE = -1  # the value of a class that is named alone
_LISTED = 20


@dataclass(frozen=True)
class Layout:
    """Folders, with `{split}` in them, and the ends that files' names have there beside what a pair has in common."""

    images: str
    masks: str
    image_end: str = ""  # empty: any suffix of a picture
    mask_end: str = ""  # empty: any suffix of a mask
    splits: tuple[str, str] = ("train", "val")
    encoding: Encoding | None = None  # None: `classes.txt` says it


LAYOUTS = {
    "pairs": Layout("images/{split}", "masks/{split}"),
    "camvid": Layout("{split}", "{split}annot", encoding=CAMVID),
    "cityscapes": Layout("leftImg8bit/{split}", "gtFine/{split}", "_leftImg8bit.png", "_gtFine_labelIds.png",
                         encoding=CITYSCAPES),
    "ade20k": Layout("images/{split}", "annotations/{split}", splits=("training", "validation"), encoding=ADE20K),
}  # fmt: skip


def read_pairs(options: Options, split: str) -> Pairs:
    """The pairs of the split "train" or "val". Raises DataError with every picture that has no mask, up to 20."""
    if options.format in ("voc", "sbd"):
        return read_voc(options, split) if options.format == "voc" else read_sbd(options, split)
    layout = LAYOUTS[options.format]
    given = options.train if split == "train" else options.val
    names, images, masks = [], [], []
    for folder in given or (layout.splits[split == "val"],):
        one = _folders(options.data, layout, folder)
        names, images, masks = names + one[0], images + one[1], masks + one[2]
    return Pairs(names, images, masks, layout.encoding or read_classes(Path(options.data, "classes.txt")))


def _folders(data: str, layout: Layout, split: str) -> tuple[list[str], list[str], list[str]]:
    there = {kind: getattr(layout, kind).format(split=split) for kind in ("images", "masks")}
    lacking = [folder for folder in there.values() if not Path(data, folder).is_dir()]
    if lacking:
        raise DataError(f"{data}: there is no folder {' and no '.join(f'{f}/' for f in lacking)}")
    pictures = files_below(Path(data, there["images"]), layout.image_end, tuple(SUFFIXES))
    masks = files_below(Path(data, there["masks"]), layout.mask_end, MASKS)
    if not pictures:
        raise DataError(
            f"{data}/{there['images']}: holds no picture{f' *{layout.image_end}' if layout.image_end else ''}"
        )
    alone = [f"{there['images']}/{file}" for stem, file in pictures.items() if stem not in masks]
    if alone:
        more = f" and {len(alone) - _LISTED} more" if len(alone) > _LISTED else ""
        raise DataError(f"{data}: without a mask in {there['masks']}/: {', '.join(alone[:_LISTED])}{more}")
    return (
        [f"{split}/{stem}" for stem in pictures],
        [f"{there['images']}/{file}" for file in pictures.values()],
        [f"{there['masks']}/{masks[stem]}" for stem in pictures],
    )


def files_below(folder: Path, end: str, suffixes: tuple[str, ...] = ()) -> dict[str, str]:
    """The files below a folder by what they have in common with their partners, in order; hidden ones are left out.

    Raises DataError where two have the same in common.
    """
    found: dict[str, str] = {}
    for root, folders, files in os.walk(folder):
        folders[:] = sorted(f for f in folders if not f.startswith("."))
        for file in sorted(files):
            if file.startswith(".") or not (file.endswith(end) if end else file.lower().endswith(suffixes)):
                continue
            path = PurePosixPath(os.path.relpath(Path(root, file), folder).replace(os.sep, "/"))
            stem = str(path).removesuffix(end) if end else str(path.with_suffix(""))
            if stem in found:
                raise DataError(f"{folder}: two files of one name, {found[stem]} and {path}")
            found[stem] = str(path)
    return dict(sorted(found.items()))


def read_classes(file: Path) -> Encoding:
    """The encoding that a text file says, a class a line: its name, or its number and its name, or its colour and its name.

    `road`; `7 road`; `128 64 128 road` or `#804080 road`. All lines are of one kind; without numbers they count from 0. The
    name `void` is of no class; the number 255 is void where nothing else has it. Raises DataError with every wrong line.
    """
    try:
        lines = [line.split() for line in file.read_text(encoding="utf-8-sig").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"{file}: cannot be read ({getattr(error, 'strerror', None) or error}); expected a class a line: its name, or "
            "its number or colour in the masks and its name"
        ) from None
    rows = [(number, *_class(words)) for number, words in enumerate(lines, 1) if words]
    kinds = {kind for _, kind, _, _ in rows}
    wrong = [f"line {n}: {' '.join(lines[n - 1])!r} has no name" for n, _, _, name in rows if not name]
    if len(kinds) > 1:
        wrong.append(f"some lines have {' and some a '.join(sorted(kinds))}; expected one kind")
    for what, at in (("name", 3), ("value", 2)):
        seen = [row[at] for row in rows if row[at] != NONE]
        wrong += [
            f"the {what} {value} stands there twice"
            for value in sorted({v for v in seen if seen.count(v) > 1}, key=str)
        ]
    if kinds == {"name"}:
        rows = [(row[0], "name", n, row[3]) for n, row in enumerate(rows)]
    kept = [(value, name) for _, _, value, name in rows if name != "void"]
    if not 1 <= len(kept) <= 255:
        wrong.append(f"has {len(kept)} classes; expected 1 to 255")
    if wrong:
        raise DataError("\n".join(f"{file}: {w}" for w in wrong[:_LISTED]))
    classes = tuple(name for _, name in kept)
    values = {value: n for n, (value, _) in enumerate(kept)} | {row[2]: VOID for row in rows if row[3] == "void"}
    coloured = kinds == {"colour"}
    palette = tuple(_rgb(value) for value, _ in kept) if coloured else ()
    return Encoding(classes, values if coloured else {VOID: VOID, **values}, coloured, palette)


def _class(words: list[str]) -> tuple[str, int, str]:
    """What kind of line it is, its value (NONE where it has none), its name."""
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
