"""A look at a whole folder of pictures for super-resolution: each is read, and its small one made or compared."""

import hashlib
import os
import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

from trunkline.ground.errors import DataError

from ..checked import NONE, SAMPLE, Check
from ..data.file_loaders import Crash, run_all
from .files import read_picture
from .options import Options, share_of
from .samples import PicturePairs
from .splits import place_of, read_split
from .transforms import eval_transform

ALL = "all"  # what is not split


class _Facts(NamedTuple):
    problem: str = ""
    width: int = 0
    height: int = 0
    size: int = 0
    format: str = ""
    mode: str = ""
    digest: bytes = b""


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
    started = time.perf_counter()
    result, facts = Check(os.fspath(root), counted="pictures"), list[_Facts]()
    plain = Options(data=os.fspath(root), format=form, on_bad_sample="skip", **options)  # type: ignore[arg-type]
    digests: dict[bytes, list[tuple[str, str]]] = defaultdict(list)
    seen: dict[str, PicturePairs] = {}
    for split, given in _splits(plain):
        try:
            samples = read_split(given, "val" if split == ALL else split)
        except DataError as error:
            result.problems += [{"file": split, "what": line} for line in str(error).splitlines()]
            continue
        seen[split] = samples
        told, good = len(result.problems), len(facts)
        for name, what in samples.excluded.items():
            result.problem(name, what, SAMPLE)
        result.oddities += [{"file": split, "what": what} for what in samples.remarks()]
        for i, one in run_all(partial(_examine, samples), len(samples), loaders, f"checking {split}", progress):
            one = _Facts(one.what) if isinstance(one, Crash) else one
            if one.problem:
                result.problem(samples.id(i), one.problem, SAMPLE)
                continue
            facts.append(one)
            digests[one.digest].append((split, samples.id(i)))
        if len(facts) == good:
            result.keep_all(told)
        result.counts[split] = {"pictures": len(samples)}
        result.files += len(samples)
    if facts:
        result.measure([(one.width, one.height, one.size) for one in facts])
    result.formats = dict(Counter(one.format for one in facts).most_common())
    result.modes = dict(Counter(one.mode for one in facts).most_common())
    result.compare(digests)
    result.compare_groups(seen, plain.group)
    result.seconds = round(time.perf_counter() - started, 3)
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
    return _Facts("", width, height, len(data), picture.format, mode, hashlib.blake2b(data, digest_size=16).digest())
