"""What decoding by Pillow needs besides Pillow: damage told, pictures turned upright."""

import struct
import zlib

from PIL import Image, ImageOps

from trunkline.ground.errors import DataError

from .native_stderr import call_listening


def check_png(data: bytearray | bytes) -> None:
    """Raise DataError where a chunk that decides pixels is damaged, or the last one is missing (PNG 1.2, section 3.2).

    Pillow compares no checksums while it decodes, and makes up what a damaged stream does not give.
    """
    at, view = 8, memoryview(data)
    while at + 12 <= len(data):
        size, kind = struct.unpack(">I4s", view[at : at + 8])
        end = at + 12 + size
        if end > len(data):
            break
        if kind[:1].isupper() and zlib.crc32(view[at + 4 : end - 4]) != struct.unpack(">I", view[end - 4 : end])[0]:
            raise DataError(f"the PNG is damaged (checksum of its {kind.decode('latin-1')} chunk)")
        if kind == b"IEND":
            return
        at = end
    raise DataError("the PNG is cut off: its last chunk is missing")


def load(image: Image.Image) -> None:
    """Decode what Pillow has opened. Raises DataError for a damaged TIFF, which Pillow may not report itself."""
    if image.format != "TIFF":
        image.load()
        return
    _, heard = call_listening(image.load)
    if heard:  # libtiff's errors, after which Pillow may go on; Pillow has switched off its warnings
        raise DataError(f"the TIFF is damaged ({heard.strip().splitlines()[0]})")


def exif_transpose(image: Image.Image) -> Image.Image:
    """Turn a picture upright. Damaged EXIF says nothing about the pixels, which stay as they are."""
    try:
        return ImageOps.exif_transpose(image)
    except Exception:
        return image
