"""Text files as people's editors save them."""

import os
import re

from trunkline.ground import storage
from trunkline.ground.errors import DataError

_NUMBERED = re.compile(r"([0-9]+)\s*[:=]\s*([^0-9\s].*)")
_UTF16 = (b"\xff\xfe", b"\xfe\xff")


def text_of(file: str | os.PathLike[str]) -> str:
    """Read a text file as UTF-8, or as UTF-16 where it begins so. Raises DataError where it is neither, or cannot be read."""
    try:
        data = bytes(storage.read(file))
        return data.decode("utf-16" if data[:2] in _UTF16 else "utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is no UTF-8 text; save it as UTF-8"
        raise DataError(f"{os.fspath(file)}: cannot be read ({why})") from None


def numbered(line: str) -> tuple[str, str] | None:
    """Split a line as `1: front` or `1=front` into its number and the rest; None for any other."""
    found = _NUMBERED.fullmatch(line.strip())
    return (found[1], found[2]) if found else None
