"""Where the pictures of a split lie, large ones and small ones, and the split that is read from them."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from statistics import median

import numpy as np

from trunkline.ground.errors import DataError

from ..data.below import files_in
from ..data.folds import fold_of, joining
from ..data.repairs import counted
from ..data.split import split_rows
from ..data.words import WORDS
from ..images.photos import others_left_out
from ..images.suffixes import READ, UNREAD
from .files import Look, look_at
from .options import CROPS, LEAST, Options, share_of
from .samples import PicturePairs

_LARGE = ("HR", "hr", "GT", "gt", "GTmod12", "high", "HQ", "hq")
_SMALL = re.compile(r"(LR|lr|LQ|lq|low)", re.ASCII)
_DIV2K = {"train": "DIV2K_train", "val": "DIV2K_valid"}
_MOST = 20
_MANY = 64  # a picture that has room for more squares than so many times those it is read for is long to read


@dataclass(frozen=True)
class Place:
    """The folders of a split's large and small pictures below the data; `small` is "" where they are made."""

    large: str
    small: str = ""
    whole: bool = False  # the data is not split
    aside: tuple[str, ...] = ()  # folders of small pictures of other scales, which are not read


def read_split(options: Options, split: str) -> PicturePairs:
    """Read the split "train" or "val": pairs where there are small pictures, else large ones alone.

    Where `val` is a share, it is held out of one set. Raises DataError with every problem, up to 20.
    """
    if split not in ("train", "val"):
        raise DataError(f"split {split!r}: expected train or val")
    if options.folds:
        return _checked(fold_of(read_whole(options), options, split), split)
    root, share = _root(options), share_of(options.val)
    place = place_of(options, "train" if share else split)
    if share and not place.whole and find(options, root, "val", quiet=True):
        raise DataError(f"val={options.val}: {root} has a val of its own; leave val= out")
    if place.whole and split == "train" and not share:
        raise DataError(
            f"{root}: is not split: give val=0.1 (tasks.super_resolution.val) to hold out a tenth of its pictures, or make "
            "folders train/ and val/"
        )
    if options.together and not share:
        raise DataError(
            f"together={','.join(options.together)}: keeps pictures on one side of a share, and none is held out here: give "
            "val=0.1, or leave together= out"
        )
    found = _all_of(options, place)
    if share:
        found = replace(found, grouped=_groups(found.pairs, options))
        held = split_rows(
            found.id, np.zeros(len(found), np.int64), ("",), share, options.group, groups=found.grouped or ()
        )
        found = found.take(held == (split == "val"), split)
    return _checked(replace(found, pairs=found.pairs[: options.limit or None]), split)


def read_whole(options: Options) -> PicturePairs:
    """Read all pictures, of train and val where the data has both, to be divided into folds. Their sides are not looked at yet.

    Raises DataError as `read_split`, and where only one of both has small pictures.
    """
    root = _root(options)
    others = [split for split in ("train", "val") if find(options, root, split, quiet=True)]
    parts = [_all_of(options, place_of(options, split)) for split in others or ["train"]]
    found = _together(options, parts) if len(parts) > 1 else replace(parts[0], grouped=_groups(parts[0].pairs, options))
    return found.take(np.arange(len(found)) < (options.limit or len(found)), "train")


def _together(options: Options, parts: Sequence[PicturePairs]) -> PicturePairs:
    """Put the pictures of train and val together, by their paths below the data."""
    if options.together:
        raise DataError(
            f"together={','.join(options.together)}: {options.data} has a train and a val of its own, where a name may be of two "
            "pictures; give group=, an expression that is searched in their paths"
        )
    if len({bool(part.small_folder) for part in parts}) > 1:
        raise DataError(
            f"{options.data}: only one of train and val has small pictures of scale={options.scale}; give both, or "
            "format=pictures, which makes all of them"
        )
    pairs = [
        (f"{part.large_folder}/{large}".lstrip("/"), f"{part.small_folder}/{small}" if small else "")
        for part in parts
        for large, small in part.pairs
    ]
    said = joining(
        [f"{counted(len(part), 'picture')} of {split}" for part, split in zip(parts, ("train", "val"), strict=True)]
    )
    return replace(
        parts[0], large_folder="", small_folder="." if parts[0].small_folder else "", pairs=tuple(pairs),
        notes=(*(n for part in parts for n in part.notes), said),
        aside=tuple(dict.fromkeys(a for part in parts for a in part.aside)),
    )  # fmt: skip


def _all_of(options: Options, place: Place) -> PicturePairs:
    """Read the pictures of a place, with their small ones where it has some."""
    root = _root(options)
    if options.scale == 1 and not place.small:
        raise DataError(
            f"scale=1: small pictures made of those in {root / place.large} would equal them: give pairs (HR/ and LR/), or a "
            "larger scale"
        )
    if options.together and options.group:
        raise DataError(
            f"together={','.join(options.together)} and group={options.group!r} both say what stays on one side; give one of them"
        )
    large = files_in(root / place.large, tuple(READ))
    folders = (place.large, place.small) if place.small else (place.large,)
    left = [said for folder in folders if (said := _left_out(root / folder))]
    if not large:
        raise DataError(": ".join([f"{root / place.large}", "holds no picture that is read", *left]))
    pairs = _paired(root, place, large, options.scale) if place.small else [(name, "") for name in large]
    return PicturePairs(root, place.large, place.small, tuple(pairs), options, notes=tuple(left), aside=place.aside)


def _left_out(folder: Path) -> str:
    """Say which files of a folder look like pictures and are not read; "" where there are none."""
    return others_left_out(files_in(folder, tuple(UNREAD)))


def place_of(options: Options, split: str) -> Place:
    """Find a split's folders. Raises DataError where `find` does, and where pairs are asked for and there are none."""
    root = _root(options)
    place = find(options, root, split)
    assert place is not None
    if options.format == "pairs" and not place.small:
        raise DataError(
            f"format=pairs: {root / place.large} has no folder of small pictures beside it, such as LRx{options.scale}; name it "
            "with train_lr= and val_lr=, or leave format= out: they are made"
        )
    return replace(place, small="") if options.format == "pictures" else place


def find(options: Options, root: Path, split: str, quiet: bool = False) -> Place | None:
    """Find a split's folders: those that are named, `train/` and `val/`, DIV2K's, or all that lies there.

    Raises DataError where a named folder is not there, or several sets of small pictures fit; with `quiet` None is returned
    where a split has no folder of its own.
    """
    named = {"train": options.train, "val": "" if share_of(options.val) else options.val}[split]
    given = {"train": options.train_lr, "val": options.val_lr}[split]
    if named:
        return Place(_below(root, named, split), _below(root, given, f"{split}_lr") if given else "")
    inner = next((word for word in WORDS[split] if (root / word).is_dir()), "")
    if not inner and (root / f"{_DIV2K[split]}_HR").is_dir():
        sets = f"{_DIV2K[split]}_LR_bicubic"
        small = f"{sets}/X{options.scale}"
        found = given or (small if (root / small).is_dir() else "")
        others = sorted(f"{sets}/{p.name}" for p in (root / sets).glob("X*")) if not found else []
        return Place(f"{_DIV2K[split]}_HR", _below(root, found, f"{split}_lr") if found else "", aside=tuple(others))
    if not inner and quiet:
        return None
    large = next((f"{inner}/{word}".lstrip("/") for word in _LARGE if (root / inner / word).is_dir()), inner)
    if given:
        return Place(large, _below(root, given, f"{split}_lr"), whole=not inner)
    beside = root / inner
    small = [p.name for p in sorted(beside.iterdir()) if p.is_dir() and _SMALL.match(p.name)] if large != inner else []
    fitting = [name for name in small if _scale_in(name) in (options.scale, None)]
    if len(fitting) > 1:
        several = ", ".join(f"{split}_lr={f'{inner}/{name}'.lstrip('/')}" for name in fitting)
        raise DataError(f"{beside}: several sets of small pictures fit scale={options.scale}: give one of {several}")
    aside = () if fitting else tuple(f"{inner}/{name}".lstrip("/") for name in small)
    return Place(large, f"{inner}/{fitting[0]}".lstrip("/") if fitting else "", whole=not inner, aside=aside)


def _root(options: Options) -> Path:
    root = Path(options.data)
    if not root.is_dir():
        raise DataError(f"{root}: there is no such folder; data= takes the folder of the pictures")
    return root


def _below(root: Path, name: str, key: str) -> str:
    if ".." in PurePosixPath(name).parts or Path(name).is_absolute() or not (root / name).is_dir():
        raise DataError(f"{key}={name}: expected a folder below data={root}")
    return name


def _scale_in(name: str) -> int | None:
    """Read the scale that a folder's name says, as in LRx4 and X2; None where it says none."""
    found = re.search(r"[xX](\d)(?!\d)", name)
    return int(found[1]) if found else None


def _paired(root: Path, place: Place, large: Sequence[str], scale: int) -> list[tuple[str, str]]:
    """Join large and small pictures by their names: `0001.png` with `0001.png`, `0001x4.png` or `0001_x4.png`."""
    small: dict[str, list[str]] = {}
    for name in files_in(root / place.small, tuple(READ)):
        stem = PurePosixPath(name).with_suffix("").as_posix()
        small.setdefault(re.sub(rf"_?[xX]{scale}$", "", stem), []).append(name)
    stems = {name: PurePosixPath(name).with_suffix("").as_posix() for name in large}
    wrong = [
        f"{root / place.large / name}: has no small picture in {root / place.small}"
        for name, stem in stems.items()
        if stem not in small
    ]
    wrong += [
        f"{root / place.small}: {' and '.join(names)} may both be of one picture; leave one"
        for names in small.values()
        if len(names) > 1
    ]
    known = {*stems.values()}
    wrong += [
        f"{root / place.small / names[0]}: has no large picture in {root / place.large}"
        for stem, names in small.items()
        if stem not in known
    ]
    if len(known) < len(stems):
        again = sorted(name for name, stem in stems.items() if [*stems.values()].count(stem) > 1)
        wrong.append(
            f"{root / place.large}: pictures of one name with several suffixes: {', '.join(again[:4])}; leave one of each"
        )
    _stop(wrong)
    return [(name, small[stem][0]) for name, stem in stems.items()]


def _groups(pairs: Sequence[tuple[str, str]], options: Options) -> tuple[str, ...] | None:
    """Give each picture its group: those that `together` names share one, and sets with a name in common are one.

    Raises DataError for a name that is not there.
    """
    stems = {PurePosixPath(large).with_suffix("").as_posix(): large for large, _ in pairs}
    group = {large: large for large, _ in pairs}
    wrong = []
    for said in options.together:
        names = said.split("+")
        wrong += [
            f"together={said}: there is no picture {name} below {options.data}" for name in names if name not in stems
        ]
        earlier = {group[stems[name]] for name in names if name in stems} & set(options.together)
        label = min(earlier, default=said)
        members = {stems[name] for name in names if name in stems}
        group = {large: label if large in members or own in earlier else own for large, own in group.items()}
    _stop(wrong)
    return tuple(group[large] for large, _ in pairs) if options.together else None


def _checked(found: PicturePairs, split: str) -> PicturePairs:
    """Check the sides of all pictures by their headers, and count those that are smaller than a crop."""
    o, bad, padded, areas, unlike = found.options, {}, 0, [], Counter[str]()
    for row, (_, small) in enumerate(found.pairs):
        try:
            large = look_at(found.large(row))
            less = look_at(found.small(row)) if small else None
        except DataError as error:
            bad[found.id(row)] = str(error).removeprefix(f"{found.large(row)}: ")
            continue
        height, width = large.height, large.width
        unlike.update(_unlike(large, less) if less else ())
        padded += min(height, width) // o.scale * o.scale < o.crop
        areas.append(height * width)
        if min(height, width) < LEAST * o.scale:
            bad[found.id(row)] = (
                f"is {width} x {height} pixels; expected sides of at least {LEAST} x scale, {LEAST * o.scale}"
            )
        elif less and (less.height, less.width) != (height // o.scale, width // o.scale):
            bad[found.id(row)] = (
                f"is {width} x {height} pixels, and {found.small(row)} {less.width} x {less.height}; scale={o.scale} expects "
                f"{width // o.scale} x {height // o.scale}"
            )
    if bad and o.on_bad_sample != "skip":
        _stop([f"{found.root / name}: {what}" for name, what in bad.items()])
    for said, count in unlike.items():
        found = found.with_note(f"{counted(count, 'pair')} of {len(found)}: the small picture is {said}")
    if split == "train" and padded:
        said = f"{counted(padded, 'picture')} of {len(found)} smaller than crop={o.crop}: padded by reflection"
        found = found.with_note(said)
    more = int(min(4 * o.crops, CROPS.high))
    if split == "train" and areas and median(areas) > _MANY * o.crops * o.crop**2 and more > o.crops:
        found = found.with_note(
            f"pictures of {median(areas) / 1e6:.1f} megapixels are decoded for {counted(o.crops, 'square')} of {o.crop} pixels "
            f"each: where reading is waited for, crops={more} (with a batch of a multiple of {more}) reads them less often, and "
            "an update learns a little less"
        )
    if split == "train" and o.jitter and found.small_folder:
        found = found.with_note(f"small pictures are given, so jitter={o.jitter[0]:g},{o.jitter[1]:g} resizes none")
    return found.without(bad) if bad else found


def _unlike(large: Look, small: Look) -> list[str]:
    """Say how the small picture of a pair is another kind of file than the large one."""
    said, colours = [], {1: "grey", 3: "in colour"}
    if small.channels != large.channels:
        said.append(f"{colours[small.channels]}, the large one {colours[large.channels]}")
    if small.bits != large.bits:
        said.append(f"of {small.bits} bits, the large one of {large.bits} bits")
    return said


def _stop(wrong: Sequence[str]) -> None:
    if wrong:
        raise DataError(
            "\n".join([*wrong[:_MOST], *([f"… and {len(wrong) - _MOST} more"] if len(wrong) > _MOST else [])])
        )
