"""The sizes of pictures that their annotations do not say, from the pictures' files."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Literal

import numpy as np

from trunkline.ground import storage
from trunkline.ground.errors import DataError

from ..images.decode import stored_size
from .index import ObjectIndex

Exif = Literal["stop", "turn", "ignore"]
_MOST = 20
_SIDEWAYS = 5  # EXIF orientations from here on swap the sides


def sized(index: ObjectIndex, images: str, exif: Exif = "stop") -> ObjectIndex:
    """Fill in the sizes that the annotations do not say. Raises DataError as `measured`."""
    rows = np.flatnonzero((index.sizes == 0).any(1))
    if not len(rows):
        return index
    sizes = np.array(index.sizes)
    sizes[rows] = measured(images, [index.name(row) for row in rows.tolist()], exif)
    return replace(index, sizes=sizes, folder="")


def measured(images: str, names: Sequence[str], exif: Exif = "stop") -> np.ndarray:
    """Read height and width of pictures below a folder, `(N, 2)` int32; 1 where one cannot be read, which decoding tells.

    With exif=turn they are those of the picture as its EXIF orientation shows it, with exif=ignore as it is stored. Raises
    DataError for pictures that are turned with exif=stop: labels may be meant before or after that.
    """
    sizes, turned = np.ones((len(names), 2), np.int32), []
    with ThreadPoolExecutor(8) as pool:
        found = pool.map(stored_size, (storage.join(images, name) for name in names))
        for row, (height, width, orientation) in enumerate(found):
            if orientation > 1 and exif == "stop":
                turned.append(names[row])
            sideways = orientation >= _SIDEWAYS and exif == "turn"
            sizes[row] = (max(width, 1), max(height, 1)) if sideways else (max(height, 1), max(width, 1))
    if turned:
        more = f" and {len(turned) - _MOST} more" if len(turned) > _MOST else ""
        raise DataError(
            f"{images}: the labels say no size of {', '.join(turned[:_MOST])}{more}, and the EXIF orientation turns the picture: "
            "exif=turn takes the labels as of the picture as it is shown, exif=ignore as of the picture as it is stored"
        )
    return sizes
