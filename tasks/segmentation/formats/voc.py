"""VOC's segmentation, and SBD's masks of more of its pictures: lists of names, folders of pictures and of masks.

SBD: Hariharan et al. 2011, "Semantic Contours from Inverse Detectors"; 11,355 pictures of VOC 2011. Its training part and
VOC's together, without VOC's val, are the 10,582 pictures that papers call trainaug.
"""

from dataclasses import dataclass, field
from pathlib import Path

from trunkline.ground.errors import DataError

from ...formats import format_of
from ...objects.voc_file import read_list
from ...objects.voc_layout import by_stem, picture_of
from ..options import Options
from .encoding import Encoding
from .published import VOC

BY_HEART = "the score counts what was learnt by heart"


@dataclass(frozen=True)
class Pairs:
    """Paths below the data's folder, a pair a sample, and how the masks say classes."""

    names: list[str]
    images: list[str]
    masks: list[str]
    encoding: Encoding
    lacking: dict[str, str] = field(default_factory=dict)  # names that cannot be used, and why
    notes: tuple[str, ...] = ()  # possible mistakes


def read_voc(options: Options, split: str) -> Pairs:
    """Read a split of VOC's layout.

    With `sbd` the training pictures are those of trainaug, unless `train` names a list. A mask is the PNG in
    SegmentationClass (or `masks`), or where that is missing, SBD's. Names without a file are in `lacking`. Raises
    DataError where the data has another layout, or a list cannot be read.
    """
    root, given = _voc_root(options.data), _given(options, split)
    if root is None:
        raise DataError(
            f"{options.data}: holds no VOC data; expected JPEGImages, SegmentationClass and ImageSets/Segmentation"
            f"{looks_like(options)}"
        )
    sbd = Path(options.data, options.sbd) if options.sbd else None
    if sbd is not None and not (sbd / "cls").is_dir():
        raise DataError(
            f"sbd={options.sbd}: there is no {sbd}/cls/; give the folder with SBD's cls/, img/ and train.txt"
        )
    lists = [root / name for name in given] if given else [_own_list(root, split)]
    names = _names(lists)
    if sbd is not None and split == "train" and not given:
        lists += [sbd / "train.txt", sbd / "val.txt"]
        kept_out = set(_names([root / name for name in options.val] or [_own_list(root, "val")]))
        names = [name for name in _names(lists) if name not in kept_out]
    images = [root / "JPEGImages", *([sbd / "img"] if sbd else [])]
    masks = [(root / (options.masks or "SegmentationClass"), ".png"), *([(sbd / "cls", ".mat")] if sbd else [])]
    notes = _scored_too(names, root, options) if split == "train" else ()
    return _pairs(options.data, names, lists, images, masks, notes)


def has_list(options: Options, split: str) -> bool:
    """Say whether there is VOC's or SBD's own list of a split."""
    root = _voc_root(options.data) if options.format == "voc" else _sbd_root(options.data)
    name = f"ImageSets/Segmentation/{split}.txt" if options.format == "voc" else f"{split}.txt"
    return root is not None and (root / name).is_file()


def _voc_root(data: str) -> Path | None:
    return _root(data, "ImageSets/Segmentation", "VOC*", "VOCdevkit/VOC*", "dataset")


def _sbd_root(data: str) -> Path | None:
    return _root(data, "cls", "dataset", "benchmark_RELEASE/dataset")


def looks_like(options: Options) -> str:
    """Return what a message adds if the data's folder seems to be of another format; else an empty text."""
    form = format_of(options.data)
    return f"; it looks like format={form}: give that" if form not in ("folders", options.format) else ""


def _scored_too(names: list[str], root: Path, options: Options) -> tuple[str, ...]:
    """Remark on names in training that the validation list has too."""
    lists = [root / name for name in options.val] or [root / "ImageSets/Segmentation/val.txt"]
    both = len(set(names) & set(_names([file for file in lists if file.is_file()])))
    if not both:
        return ()
    return (
        f"{both} of {len(names)} pictures of the training are in {', '.join(file.name for file in lists)} too: {BY_HEART}",
    )


def read_sbd(options: Options, split: str) -> Pairs:
    """Read a split of SBD alone: `img/`, `cls/` and `train.txt`, `val.txt`. Raises DataError for another layout."""
    root, given = _sbd_root(options.data), _given(options, split)
    if root is None:
        raise DataError(
            f"{options.data}: holds no SBD data; expected img, cls, train.txt and val.txt{looks_like(options)}"
        )
    lists = [root / name for name in given or (f"{split}.txt",)]
    return _pairs(options.data, _names(lists), lists, [root / "img"], [(root / "cls", ".mat")])


def _given(options: Options, split: str) -> tuple[str, ...]:
    return options.train if split == "train" else options.val


def _names(lists: list[Path]) -> list[str]:
    return list(dict.fromkeys(name for file in lists for name in read_list(file)))


def _pairs(
    data: str, names: list[str], lists: list[Path], images: list[Path], masks: list[tuple[Path, str]],
    notes: tuple[str, ...] = (),
) -> Pairs:  # fmt: skip
    """Find for each name the first folder that has its picture, and the first that has its mask."""
    found: dict[str, tuple[str, str]] = {}
    lacking: dict[str, list[str]] = {}
    pictures = {folder: by_stem(folder) for folder in images}
    for name in names:
        own = []
        for places in (
            [folder / picture_of(pictures[folder], name) for folder in images],
            [folder / f"{name}{end}" for folder, end in masks],
        ):
            there = next((place for place in places if place.is_file()), None)
            if there is None:
                short = " and no ".join(place.relative_to(data).as_posix() for place in places)
                lacking.setdefault(name, []).append(f"there is no {short}")
            else:
                own.append(there.relative_to(data).as_posix())
        if len(own) == 2:
            found[name] = (own[0], own[1])
    if not names:
        raise DataError(f"{', '.join(map(str, lists))}: name no picture that is not scored too")
    listed = ", ".join(map(str, lists))
    return Pairs(
        list(found), [picture for picture, _ in found.values()], [mask for _, mask in found.values()], VOC,
        {name: f"{', '.join(what)}, and {listed} names it" for name, what in lacking.items()}, notes,
    )  # fmt: skip


def _root(data: str, marked: str, *below: str) -> Path | None:
    """Find the last folder that has a folder `marked`: the data's own or one that matches `below`; None if none has."""
    folders = [Path(data), *(folder for pattern in below for folder in sorted(Path(data).glob(pattern)))]
    return next((folder for folder in reversed(folders) if (folder / marked).is_dir()), None)


def _own_list(root: Path, split: str) -> Path:
    file = root / f"ImageSets/Segmentation/{split}.txt"
    if file.is_file():
        return file
    raise DataError(f"{root}: there is no ImageSets/Segmentation/{split}.txt; give {split}=LIST below it")
