"""Read one image file: RGB, upright, 8 bits; JPEG by torchvision's codec, everything else by Pillow."""

import contextlib
import io
import os
import re
import sys
import warnings
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

import numpy
import torch
import torchvision.io  # noqa: F401 - registers torch.ops.image
from PIL import Image
from torch import Tensor

from trunkline.ground import storage
from trunkline.ground.errors import DataError
from trunkline.ground.links import unread

from .deep import reduced
from .jpeg_header import read_jpeg_header
from .loading import check_png as check_png
from .loading import exif_transpose
from .loading import load as load
from .native_stderr import call_listening
from .suffixes import HAS_AVIF, HAS_HEIF, needed
from .suffixes import SUFFIXES as SUFFIXES

if HAS_HEIF:
    import pillow_heif  # pyright: ignore[reportMissingImports]

    pillow_heif.register_heif_opener()

_ORIENTATION = 274  # EXIF's tag
_SIDEWAYS = 5  # orientations from here on swap the sides
_OTHERS = (("AVIF",) if HAS_AVIF else ()) + (("HEIF",) if HAS_HEIF else ())
FORMATS = (
    "JPEG",
    "PNG",
    "BMP",
    "WEBP",
    "GIF",
    "TIFF",
    "PPM",
    *_OTHERS,
)  # Pillow knows more, some of which run programs
MAX_PIXELS = 89_478_485  # as Pillow: beyond it an image is taken for a decompression bomb
HOW_TO_GO_ON = "`trunkline check` lists every such file; on_bad_sample=skip leaves them out"

# libjpeg decodes on after these, with made-up pixels; its other remarks are about headers and harmless
_DAMAGE = re.compile(r"premature end|bad Huffman code|bad arithmetic code|instead of RST", re.IGNORECASE)
_LIBJPEG = re.compile(
    r"^(Corrupt JPEG data:|Premature end of JPEG|Invalid SOS parameters|Inconsistent progression|"
    r"Unknown Adobe color transform|Warning: unknown JFIF).*\n?",
    re.MULTILINE,
)


class BadImage(DataError):
    """A file that cannot be used as an image; `what` is wrong with it, without the file's name."""

    what = ""  # no argument: loaders build an error of a worker again from its message alone


def read_image(path: str | os.PathLike[str], depth: str = "") -> Tensor:
    """Read the first frame of an image file as uint8 `(3, H, W)`, RGB, 0..255, EXIF orientation applied.

    Its pixels are those of Pillow's `ImageOps.exif_transpose(Image.open(path)).convert("RGB")`; its memory is laid out
    height, width, channel. What has 9 to 16 bits a channel is read as `depth` says: `full` maps all that they can hold to
    0..255, `LOW:HIGH` that part. Raises DataError, with the file's name, for a file that is missing, empty, truncated,
    damaged, not an image, of more bits, or of more than 89 million pixels.
    """
    return read_turned(path, depth)[0]


def read_as(path: str | os.PathLike[str], depth: str = "", exif: str = "") -> Tensor:
    """Read an image file as `read_image` does; with exif=ignore as it is stored, without its EXIF orientation."""
    image, orientation = read_turned(path, depth)
    return as_stored(image, orientation) if exif == "ignore" else image


_ONCE: ContextVar[dict[Any, tuple[Tensor, int]] | None] = ContextVar("once", default=None)


@contextlib.contextmanager
def decoded_once() -> Iterator[None]:
    """Decode each file once while this lasts, whoever reads it: the same tensor is returned, to be left as it is."""
    token = _ONCE.set({})
    try:
        yield
    finally:
        _ONCE.reset(token)


def read_turned(path: str | os.PathLike[str], depth: str = "") -> tuple[Tensor, int]:
    """Read an image file as `read_image` does; return its EXIF orientation too (1: it was not turned)."""
    known = _ONCE.get()
    if known is None:
        return _read_turned(path, depth)
    at = (os.fspath(path), depth)
    if at not in known:
        known[at] = _read_turned(path, depth)
    return known[at]


def _read_turned(path: str | os.PathLike[str], depth: str) -> tuple[Tensor, int]:
    try:
        data = storage.read(path)
    except OSError as error:
        what = unread(path, error)
        bad = BadImage(f"{shown(path)}: {what}")
        bad.what = what
        raise bad from error
    try:
        return decode_turned(data, depth)
    except DataError as error:
        bad = BadImage(f"{shown(path)}: {error}; {HOW_TO_GO_ON}")
        bad.what = str(error)
        raise bad from error.__cause__


def decode(data: bytearray | bytes, depth: str = "") -> Tensor:
    """Decode a file's bytes as `read_image` does. Raises DataError, which says what is wrong without a file's name."""
    return decode_turned(data, depth)[0]


def decode_turned(data: bytearray | bytes, depth: str = "") -> tuple[Tensor, int]:
    """Decode as `decode` does; return the EXIF orientation that was applied, too."""
    if not data:
        raise DataError("the file is empty")
    data = bytearray(data) if isinstance(data, bytes) else data  # torch wants memory that may be written
    if data[:2] != b"\xff\xd8":
        return _decode_by_pillow(data, depth)
    header = read_jpeg_header(data)
    if header is None or not header.plain:
        return _decode_by_pillow(data, depth)
    if header.width * header.height > MAX_PIXELS:
        raise _too_large(header.width, header.height)
    return _upright(_decode_jpeg(data), header.orientation), header.orientation


def is_turned(path: str | os.PathLike[str], width: int, height: int) -> bool:
    """Say whether a picture that `read_image` gave as `width` x `height` is stored with other sides.

    They differ where its EXIF orientation swaps them. False where the file cannot be read.
    """
    try:
        with Image.open(io.BytesIO(storage.read(path)), formats=FORMATS) as image:
            return image.size != (width, height)
    except OSError:
        return False


def stored_size(path: str | os.PathLike[str]) -> tuple[int, int, int]:
    """Read a picture's height and width as stored, and its EXIF orientation (1: upright); zeros where it cannot be read."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with Image.open(_head(path), formats=FORMATS) as image:
                return image.height, image.width, int(image.getexif().get(_ORIENTATION, 1) or 1)
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
            return 0, 0, 0


def _head(path: str | os.PathLike[str]) -> Any:
    """Return what Pillow opens: a path of this machine, of which it reads the beginning alone, else the bytes."""
    local = not storage.is_remote(path) and os.path.isfile(path)  # noqa: PTH113 - of a part of a file there is no path
    return path if local else io.BytesIO(storage.read(path))


def turned_back(image: Tensor, path: str | os.PathLike[str]) -> Tensor:
    """Turn a picture that `read_image` gave back to how its file stores it, without its EXIF orientation."""
    return as_stored(image, stored_size(path)[2])


def as_stored(image: Tensor, orientation: int) -> Tensor:
    """Turn a picture that was turned upright by its EXIF orientation back to how its file stores it."""
    return _upright(image, {6: 8, 8: 6}.get(orientation, orientation)) if orientation > 1 else image


def unsaid(image: Tensor, orientation: int) -> str:
    """Say that nothing tells of which picture labels of places are: its EXIF turns it, and keeps its size; else ""."""
    if orientation < 2 or (orientation >= _SIDEWAYS and image.shape[-2] != image.shape[-1]):
        return ""
    return (
        f"its EXIF orientation ({orientation}) turns it and keeps its size, and nothing says of which its labels are: exif=turn "
        "takes them as of the picture as it is shown, exif=ignore as of the picture as it is stored"
    )


def shown(path: str | os.PathLike[str]) -> str:
    """Convert a path to printable text, also where its bytes are no valid UTF-8."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def _decode_jpeg(data: bytearray | bytes) -> Tensor:
    # the operator itself: its wrapper in torchvision.io spends 17 us a call on a deprecation warning
    decode_jpeg = torch.ops.image.decode_jpeg
    codes = torch.frombuffer(data, dtype=torch.uint8)
    try:
        image, heard = call_listening(lambda: decode_jpeg(codes, 3, False))
    except RuntimeError as error:
        what = str(error).rsplit(", ", 1)[-1].strip().splitlines()[0]
        raise DataError(f"the JPEG is damaged or cut off ({what})") from error
    if heard:
        if _DAMAGE.search(heard):
            raise DataError(f"the JPEG is damaged ({heard.strip().splitlines()[0]})")
        sys.stderr.write(_LIBJPEG.sub("", heard))  # what another thread said meanwhile
    return image


def _upright(image: Tensor, orientation: int) -> Tensor:
    if orientation == 1:
        return image
    pixels = image.permute(1, 2, 0)
    if orientation in (5, 6, 7, 8):
        pixels = pixels.transpose(0, 1)
    flips = {2: (1,), 3: (0, 1), 4: (0,), 6: (1,), 7: (0, 1), 8: (0,)}.get(orientation, ())
    return pixels.flip(flips).contiguous().permute(2, 0, 1)


def _decode_by_pillow(data: bytearray, depth: str) -> tuple[Tensor, int]:
    # Pillow's readers raise a dozen kinds of exception on damaged files (OSError, SyntaxError, struct.error, ...)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise _too_large(image.width, image.height)
                if image.format == "PNG":
                    check_png(data)
                bits = bits_of(image, data)
                turned = _orientation(image) if image.format == "TIFF" else 1  # which loading applies and takes away
                if bits > 8:
                    pixels = reduced(image, data, bits, depth)
                else:
                    load(image)
                    pixels = numpy.array(exif_transpose(image).convert("RGB"))
                turned = turned if image.format == "TIFF" else _orientation(image)
        except DataError:
            raise
        except Image.DecompressionBombError as error:
            raise DataError(f"it has far too many pixels ({error})") from error
        except Image.UnidentifiedImageError as error:
            raise DataError(needed(data) or "it is no image of a known format, or its header is damaged") from error
        except Exception as error:
            raise DataError(f"the image is damaged or cut off ({error or type(error).__name__})") from error
    return torch.from_numpy(pixels).permute(2, 0, 1), turned


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation that Pillow applies, 2 to 8; 1 where there is none, or the EXIF is damaged."""
    try:
        said = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # as `exif_transpose`
        return 1
    return said if said in range(2, 9) else 1


def _too_large(width: int, height: int) -> DataError:
    return DataError(f"it has {width} x {height} pixels, more than {MAX_PIXELS / 1e6:.0f} million; make it smaller")


def bits_of(image: Image.Image, data: bytearray | bytes) -> int:
    """Return an opened picture's bits per channel as stored: Pillow reduces 16-bit colours to 8 without a word."""
    if image.mode.startswith("I;16"):
        return 16
    if image.mode in ("I", "F"):
        return 16 if image.format == "PPM" else 32
    if image.format == "PNG":
        return data[24]
    if image.format == "TIFF":
        return max(image.tag_v2.get(258, (8,)))  # type: ignore[attr-defined]
    if image.format == "PPM":
        args = image.tile[0].args  # type: ignore[attr-defined]
        return 16 if isinstance(args, tuple) and isinstance(args[-1], int) and args[-1] > 255 else 8
    if image.format in ("JPEG", "MPO"):
        return getattr(image, "bits", 8)
    return 8
