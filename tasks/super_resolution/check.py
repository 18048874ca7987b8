"""A look at a whole folder of pictures for super-resolution: each is read, and its small one made or compared."""

import hashlib
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from trunkline.ground.errors import DataError

from ..checked import NONE, SAMPLE, Check, Picture, Pictures
from .files import read_picture
from .options import Options, share_of
from .samples import PicturePairs
from .splits import place_of, read_split
from .transforms import eval_transform

ALL = "all"  # what is not split


@dataclass(frozen=True)
class _Facts(Picture):
    format: str = ""
    mode: str = ""


def check_pictures(
    root: str | os.PathLike[str],
    form: str = "auto",
    classes: Sequence[str] | None = None,
    *,
    options: Mapping[str, Any] = NONE,
    loaders: int | None = None,
    progress: bool = True,
) -> Check:
    """Check every picture of a folder, and every pair. `counts` are pictures by split.

    Problems: files that cannot be read, sides that are too small or do not go together. Oddities: what the reader remarks.
    """
    result, facts = Check(os.fspath(root), counted="pictures"), list[_Facts]()
    pictures = Pictures(result, loaders, progress)
    plain = Options(data=os.fspath(root), format=form, on_bad_sample="skip", **options)  # type: ignore[arg-type]
    seen: dict[str, PicturePairs] = {}
    for split, given in _splits(plain):
        try:
            samples = read_split(given, "val" if split == ALL else split)
        except DataError as error:
            result.problems += [{"file": split, "what": line} for line in str(error).splitlines()]
            continue
        seen[split] = samples
        told = len(result.problems)
        for name, what in samples.excluded.items():
            result.problem(name, what, SAMPLE)
        result.oddities += [{"file": split, "what": what} for what in samples.remarks()]
        facts += [one for _, one in pictures.look(split, len(samples), partial(_examine, samples), samples.id, told)]
        result.counts[split] = {"pictures": len(samples)}
    result.formats = dict(Counter(one.format for one in facts).most_common())
    result.modes = dict(Counter(one.mode for one in facts).most_common())
    pictures.compare(seen, plain.group)
    return result


def _splits(options: Options) -> list[tuple[str, Options]]:
    """List the splits to look at: train and val, or all where the data is not split."""
    try:
        whole = place_of(options, "train").whole and not share_of(options.val)
    except (DataError, OSError):  # told by the look at the splits
        whole = False
    return [(ALL, options)] if whole else [("train", options), ("val", options)]


def _examine(samples: PicturePairs, i: int) -> _Facts:
    try:
        data = samples.large(i).read_bytes()
        picture = read_picture(samples.large(i))
        eval_transform(samples.options)(samples[i])
    except OSError as error:
        return _Facts(f"cannot be read ({error.strerror or error})")
    except DataError as error:
        return _Facts(str(error).removeprefix(f"{samples.large(i)}: "))
    height, width, channels = picture.pixels.shape
    mode = f"{'grey' if channels == 1 else 'RGB'}{'A' if picture.alpha is not None else ''}, {8 * picture.pixels.itemsize} bits"
    found = hashlib.blake2b(data, digest_size=16).digest()
    return _Facts("", width, height, len(data), found, picture.format, mode)
