"""Pictures within a page."""

import base64
import io
import warnings
from pathlib import Path
from typing import Any

from trunkline.ground import storage

from ...tasks.scores import Picture


def picture_of(picture: Picture, run: Path, side: int) -> dict[str, Any]:
    """Convert a picture and its caption to what the page needs; to an empty dict where it has neither."""
    shown = thumbnail(str(run / picture.file) if picture.file else picture.source, side, picture.depth)
    return {"id": picture.id, "data": shown, "caption": picture.caption} if shown or picture.caption else {}


def thumbnail(address: str, side: int, depth: str = "") -> str | None:
    """Shrink a picture to `side` pixels at most, as a data URI; None where its file is gone or is no picture.

    `depth` says how a picture of more than 8 bits a channel is read.
    """
    from PIL import Image, ImageOps

    from ...tasks.images.decode import read_image

    if not address:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of damaged metadata, which does not matter here
            if depth:
                small = Image.fromarray(read_image(address, depth).permute(1, 2, 0).numpy())
            else:
                with Image.open(io.BytesIO(storage.read(address))) as picture:
                    picture.draft("RGB", (side * 2, side * 2))
                    small = ImageOps.exif_transpose(picture).convert("RGB")
        small.thumbnail((side, side))
        buffer = io.BytesIO()
        small.save(buffer, "JPEG", quality=80, optimize=True)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
