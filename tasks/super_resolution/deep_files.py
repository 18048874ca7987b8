"""Files of 16 bits a channel, which Pillow does not write in colours: PNG and TIFF as bytes."""

import struct
import zlib

import numpy as np

_LEVEL = 4  # of zlib: the lower 8 bits of a photo are noise, which more work does not shrink
_SHORT, _LONG, _UNDEFINED = 3, 4, 7  # TIFF's types


def png(channels: np.ndarray, icc: bytes | None) -> bytes:
    """Encode `(H, W, C)` uint16 as a PNG of 16 bits: C of 1 (grey), 2 (grey, alpha), 3 (RGB) or 4 (RGBA).

    Each row is stored as its difference from the one above. Source: PNG 1.2, sections 4.1, 4.2.2 and 6.4.
    """
    height, width, count = channels.shape
    rows = channels.astype(">u2").view(np.uint8).reshape(height, -1)
    filtered = np.empty((height, rows.shape[1] + 1), np.uint8)
    filtered[:, 0] = 2  # the filter "up"
    filtered[0, 1:] = rows[0]
    np.subtract(rows[1:], rows[:-1], out=filtered[1:, 1:])
    colours = {1: 0, 2: 4, 3: 2, 4: 6}[count]
    parts = [_chunk(b"IHDR", struct.pack(">2I5B", width, height, 16, colours, 0, 0, 0))]
    if icc:
        parts.append(_chunk(b"iCCP", b"ICC Profile\0\0" + zlib.compress(icc)))
    parts += [_chunk(b"IDAT", zlib.compress(filtered.data, _LEVEL)), _chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def tiff(channels: np.ndarray, icc: bytes | None) -> bytes:
    """Encode `(H, W, C)` uint16 as a TIFF of 16 bits: C of 1 (grey), 3 (RGB) or 4 (RGBA, the alpha not multiplied in).

    One strip, deflate with horizontal differences, little-endian. Source: TIFF 6.0, sections 2, 14 and 18.
    """
    height, width, count = channels.shape
    rows = channels.astype("<u2")
    rows[:, 1:] -= channels[:, :-1]
    strip = zlib.compress(rows.data, _LEVEL)
    grey, rgb = 1, 2
    fields: list[tuple[int, int, list[int] | bytes]] = [
        (256, _LONG, [width]),
        (257, _LONG, [height]),
        (258, _SHORT, [16] * count),
        (259, _SHORT, [8]),  # deflate
        (262, _SHORT, [grey if count < 3 else rgb]),
        (273, _LONG, [8]),  # where the strip begins
        (277, _SHORT, [count]),
        (278, _LONG, [height]),
        (279, _LONG, [len(strip)]),
        (284, _SHORT, [1]),
        (317, _SHORT, [2]),  # differences along the row
        *([(338, _SHORT, [2])] if count == 4 else []),
        (339, _SHORT, [1] * count),
        *([(34675, _UNDEFINED, icc)] if icc else []),
    ]
    return _directory(strip + b"\0" * (len(strip) % 2), fields)


def _directory(strip: bytes, fields: list[tuple[int, int, list[int] | bytes]]) -> bytes:
    """Put the header, the strip at byte 8, the directory of fields and their longer values one after the other."""
    at = 8 + len(strip)
    behind = at + 2 + 12 * len(fields) + 4
    entries, values = b"", b""
    for tag, kind, given in fields:
        packed = (
            given if isinstance(given, bytes) else struct.pack(f"<{len(given)}{'H' if kind == _SHORT else 'I'}", *given)
        )
        entries += struct.pack("<HHI", tag, kind, len(given))
        if len(packed) <= 4:
            entries += packed.ljust(4, b"\0")
        else:
            entries += struct.pack("<I", behind + len(values))
            values += packed + b"\0" * (len(packed) % 2)
    head = struct.pack("<2sHI", b"II", 42, at)
    return head + strip + struct.pack("<H", len(fields)) + entries + b"\0" * 4 + values
