"""Pictures read and written as what they are: 8 or 16 bits, grey or RGB, with or without alpha, with their ICC profile.

PNG, JPEG, TIFF, WebP and BMP. A palette is read as its colours; a transparent colour as alpha; a picture is turned upright by
its EXIF orientation. Other metadata is not carried over. Pillow makes 8 bits of 16 in colours, so these have their own way.
"""

import hashlib
import io
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

import numpy as np
from PIL import Image, TiffImagePlugin

from trunkline.ground import storage
from trunkline.ground.errors import DataError
from trunkline.ground.links import unread

from ..images import decode
from ..images.deep import stored
from ..images.loading import check_png, exif_transpose, load
from ..images.suffixes import JPEG, needed
from . import deep_files

FORMATS = dict.fromkeys(JPEG, "JPEG") | {
    ".png": "PNG", ".tif": "TIFF", ".tiff": "TIFF", ".webp": "WEBP", ".bmp": "BMP",
}  # fmt: skip
"""The formats that are read and written, by the ends of names in small letters."""
_MODES = {  # Pillow's: how many channels without alpha, and whether there is alpha
    "1": (1, False), "L": (1, False), "LA": (1, True), "P": (3, False), "PA": (3, True), "RGB": (3, False), "RGBA": (3, True),
    "I;16": (1, False), "I;16B": (1, False), "I;16L": (1, False),
}  # fmt: skip
_PNG_COLOURS = {0: (1, False), 2: (3, False), 4: (1, True), 6: (3, True)}
_SIDES = {"JPEG": 65_500, "WEBP": 16_383}  # the longest side that a format can have
_ORIENTATION = 274  # EXIF's tag
_SAMPLES, _FLOATS = 339, 3  # TIFF's tag for the kind of numbers, and its value for floats
_CONVERT = "convert it to RGB of 8 or 16 bits"


@dataclass(frozen=True)
class Look:
    """What a picture is: its format, its size upright in pixels, channels without alpha (1 or 3), bits of each (8 or 16)."""

    format: str
    height: int
    width: int
    channels: int
    bits: int
    alpha: bool
    icc: bool


@dataclass
class Picture:
    """A picture in memory, upright: `pixels` `(H, W, C)` uint8 or uint16 with C of 1 (grey) or 3 (RGB).

    `alpha` is `(H, W)` of the same kind (0: transparent), or None; `icc` the profile's bytes, or None; `format` is what it was
    read from (`PNG`, `JPEG`, `TIFF`, `WEBP`, `BMP`).
    """

    pixels: np.ndarray
    alpha: np.ndarray | None = None
    icc: bytes | None = None
    format: str = "PNG"

    @property
    def look(self) -> Look:
        """What it is."""
        height, width, channels = self.pixels.shape
        bits = self.pixels.dtype.itemsize * 8
        return Look(self.format, height, width, channels, bits, self.alpha is not None, self.icc is not None)


def look_at(path: str | os.PathLike[str]) -> Look:
    """Read what a picture is from its header, without its pixels. EXIF that stands behind a PNG's pixels is not seen.

    Raises DataError, with the file's name and what to do, for what `read_picture` does not read.
    """
    with _named(path):
        local = not storage.is_remote(path) and os.path.isfile(path)  # noqa: PTH113 - of a part of a file there is no path
        data = _beginning(path) if local else bytes(storage.read(path))
        with _opened(data, path if local else None) as image:
            return _look(image, data)


def read_picture(path: str | os.PathLike[str]) -> Picture:
    """Read a picture as what it is.

    Raises DataError, with the file's name and what to do, for a file that is missing, damaged or no picture of these formats,
    and for what has no one meaning here: floats, numbers of 9 to 15 or 32 bits, CMYK and other colour spaces, several pictures
    in one file (animations, pages), and more than 89 million pixels.
    """
    with _named(path):
        data = storage.read(path)
    return decoded(path, data)


def decoded(path: str | os.PathLike[str], data: bytearray) -> Picture:
    """Decode a file's bytes as `read_picture` does; `path` is its name in errors. Raises DataError as it does."""
    with _named(path), _opened(data) as image:
        look = _look(image, data)
        channels = _deep(image, data, look) if look.bits == 16 else _plain(image, data, look)
        pixels = np.ascontiguousarray(channels[:, :, : look.channels])
        alpha = np.ascontiguousarray(channels[:, :, -1]) if look.alpha else None
        return Picture(pixels, alpha, image.info.get("icc_profile") or None, look.format)


def why_not(name: str | os.PathLike[str], look: Look) -> str:
    """Say why a picture like this cannot be written under a name, whose suffix decides the format, and what to do; "": it can."""
    suffix = PurePath(name).suffix.lower()
    format = FORMATS.get(suffix)
    if format is None:
        return f"no picture is written with the suffix {suffix or 'missing'!r}: expected {', '.join(FORMATS)}"
    what = {"WEBP": "WebP"}.get(format, format)
    if look.bits == 16 and format not in ("PNG", "TIFF"):
        return f"{what} holds 8 bits a channel, and this picture has 16: write it as .png or .tif"
    if look.alpha and format in ("JPEG", "BMP"):
        return f"{what} holds no alpha, and this picture has it: write it as .png, .tif or .webp"
    if look.alpha and look.bits == 16 and look.channels == 1 and format == "TIFF":
        return "grey with alpha in 16 bits is not written as TIFF, which few programs read: write it as .png"
    if look.icc and (format == "BMP" or (format == "WEBP" and look.channels == 1)):
        return f"{what} does not hold this picture's ICC profile: write it as .png or .tif"
    if (longest := max(look.height, look.width)) > _SIDES.get(format, longest):
        return f"{what} holds up to {_SIDES[format]:,} pixels a side, and this picture has {longest:,}: write it as .png or .tif"
    if format == "TIFF" and look.height * look.width * 4 * look.bits // 8 >= 2**32:
        return "it may have more than 4 GiB, which TIFF does not hold: write it as .png"
    return ""


def write_picture(path: str | os.PathLike[str], picture: Picture, quality: int = 95) -> None:
    """Write a picture in the format that the name's suffix says, bits, grey, alpha and ICC profile as they are.

    It is written beside and renamed: a file of this name is whole, and takes the place of one that was there. `quality` is that
    of JPEG (colours unsubsampled) and WebP, 1 to 100; a WebP of 100 is lossless. WebP has no grey: three equal channels are
    written. PNG, TIFF and BMP are lossless. Raises DataError, before anything is written, where the format does not hold the
    picture (`why_not`).
    """
    file, content = Path(path), encoded(path, picture, quality)
    beside = part_of(file)  # may be left by a process that was killed
    beside.write_bytes(content)
    beside.replace(file)


def part_of(file: Path) -> Path:
    """Name the hidden file in which a file is written before it is renamed: short, however long its name, and its own."""
    return file.with_name(f".{hashlib.sha256(os.fsencode(file.name)).hexdigest()[:16]}.part")


def encoded(path: str | os.PathLike[str], picture: Picture, quality: int = 95) -> bytes:
    """Return the bytes of the file that `write_picture` writes under a name. Raises DataError as it does."""
    if wrong := why_not(path, picture.look):
        raise DataError(f"{decode.shown(path)}: {wrong}")
    if not 1 <= quality <= 100:
        raise DataError(f"quality={quality}: expected 1 to 100")
    return _encoded(picture, FORMATS[PurePath(path).suffix.lower()], quality)


def _encoded(picture: Picture, format: str, quality: int) -> bytes:
    channels = picture.pixels if picture.alpha is None else np.dstack([picture.pixels, picture.alpha])
    if channels.dtype == np.uint16:
        return (deep_files.png if format == "PNG" else deep_files.tiff)(channels, picture.icc)
    options: dict[str, Any] = {
        "JPEG": {"quality": quality, "subsampling": 0},
        "WEBP": {"quality": quality, "lossless": quality == 100, "exact": True},
        "TIFF": {"compression": "tiff_adobe_deflate"},
    }.get(format, {})
    if picture.icc:
        options["icc_profile"] = picture.icc
    buffer = io.BytesIO()
    Image.fromarray(channels[:, :, 0] if channels.shape[2] == 1 else channels).save(buffer, format, **options)
    return buffer.getvalue()


def _beginning(path: str | os.PathLike[str]) -> bytes:
    with open(path, "rb") as file:  # noqa: PTH123
        return file.read(64)


@contextmanager
def _named(path: str | os.PathLike[str]) -> Iterator[None]:
    """Put the file's name before what is wrong with it."""
    try:
        yield
    except DataError as error:
        raise DataError(f"{decode.shown(path)}: {error}") from error.__cause__
    except OSError as error:
        raise DataError(f"{decode.shown(path)}: {unread(path, error)}") from error


@contextmanager
def _opened(data: bytes | bytearray, path: str | os.PathLike[str] | None = None) -> Iterator[Image.Image]:
    """Open a picture's bytes, or a local file with these first bytes, by Pillow; whatever Pillow raises becomes DataError."""
    if not data:
        raise DataError("the file is empty")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with Image.open(path or io.BytesIO(data), formats=decode.FORMATS) as image:
                yield image
        except DataError:
            raise
        except Image.DecompressionBombError as error:
            raise DataError(f"it has far too many pixels ({error})") from error
        except Image.UnidentifiedImageError as error:
            why = _odd_tiff(data, path) or needed(data) or "it is no image of a known format, or its header is damaged"
            raise DataError(why) from error
        except Exception as error:
            raise DataError(f"the image is damaged or cut off ({error or type(error).__name__})") from error


def _odd_tiff(data: bytes | bytearray, path: str | os.PathLike[str] | None) -> str:
    """Say what kind of TIFF Pillow does not open; "" where it is none."""
    if data[:4] not in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return ""
    try:
        file = io.BytesIO(storage.read(path) if path else data)
        big = b"+" in data[2:4]
        tags = TiffImagePlugin.ImageFileDirectory_v2(file.read(16 if big else 8))
        file.seek(tags.next)
        tags.load(file)
        bits, count = max(np.atleast_1d(tags.get(258, 1))), tags.get(277, 1)
        if _FLOATS in np.atleast_1d(tags.get(_SAMPLES, 1)):
            return _floats()
    except Exception:
        return ""
    return f"a TIFF of {count} channels of {bits} bits of its kind is not read: save it as a PNG of 8 or 16 bits"


def _floats() -> str:
    return "it holds floats, whose range nothing states: map them to 16 bits (0 to 65535), as PNG or TIFF"


def _look(image: Image.Image, data: bytes | bytearray) -> Look:
    """Tell what an opened picture is. Raises DataError for what is not read."""
    format = {"MPO": "JPEG"}.get(image.format or "", image.format or "")  # a phone's JPEG, with a second picture behind
    if format not in FORMATS.values():
        raise DataError(f"{format} is not read here: save it as PNG, JPEG, TIFF, WebP or BMP")
    if image.width * image.height > decode.MAX_PIXELS:
        raise DataError(
            f"it has {image.width} x {image.height} pixels, more than {decode.MAX_PIXELS / 1e6:.0f} million; cut it in parts"
        )
    if image.format != "MPO" and (frames := getattr(image, "n_frames", 1)) > 1:
        raise DataError(f"it holds {frames} pictures (an animation, or pages): save each as a file of its own")
    floats = format == "TIFF" and _FLOATS in np.atleast_1d(image.tag_v2.get(_SAMPLES, 1))  # type: ignore[attr-defined]
    if image.mode == "F" or floats:
        raise DataError(_floats())
    bits = decode.bits_of(image, data)
    if image.mode not in _MODES or bits > 16 or 8 < bits < 16:
        kind = f"{image.mode} of {bits} bits" if image.mode not in _MODES else f"{bits} bits a channel"
        raise DataError(f"it is {kind}, which is not read here: {_CONVERT}")
    channels, alpha = (
        _PNG_COLOURS.get(data[25], _MODES[image.mode]) if bits == 16 and format == "PNG" else _MODES[image.mode]
    )
    height, width = _upright_size(image)
    return Look(
        format,
        height,
        width,
        channels,
        max(bits, 8),
        alpha or "transparency" in image.info,
        bool(image.info.get("icc_profile")),
    )


def _upright_size(image: Image.Image) -> tuple[int, int]:
    """Return the height and width that an opened picture has once it is upright."""
    width, height = image.size
    if image.format == "TIFF":  # whose size some versions of Pillow have turned already
        tags = image.tag_v2  # type: ignore[attr-defined]
        width, height, orientation = tags[256], tags[257], tags.get(_ORIENTATION, 1)
    elif image.format == "PNG" and "exif" not in image.info:  # Pillow would decode the pixels to find it
        orientation = 1
    else:
        orientation = image.getexif().get(_ORIENTATION, 1)
    return (width, height) if orientation in (5, 6, 7, 8) else (height, width)


def _plain(image: Image.Image, data: bytearray, look: Look) -> np.ndarray:
    """Decode 8 bits a channel: `(H, W, C)` uint8, the alpha last where there is one."""
    if look.format == "JPEG":
        return decode.decode(data).permute(1, 2, 0).numpy()
    if look.format == "PNG":
        check_png(data)
    load(image)
    mode = ("L" if look.channels == 1 else "RGB") + "A" * look.alpha
    return np.atleast_3d(np.array(exif_transpose(image).convert(mode)))


def _deep(image: Image.Image, data: bytearray, look: Look) -> np.ndarray:
    """Decode 16 bits a channel: `(H, W, C)` uint16, the alpha last where there is one."""
    if look.format == "PNG":
        check_png(data)
    found = stored(image, data)
    if found is None:
        raise DataError(f"a {look.format} of 16 bits of its kind is not read: save it as a PNG of 16 bits")
    numbers, _ = found
    if look.alpha and numbers.shape[2] == look.channels:  # one colour is transparent
        seen = (numbers != np.atleast_1d(image.info["transparency"])).any(2)
        numbers = np.dstack([numbers, seen * np.uint16(65535)])
    return numbers
