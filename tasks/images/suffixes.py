"""Which pictures are read, by the ends of their names, and what reading some of them needs. Imports no torch."""

from importlib.util import find_spec

from PIL import features

from ..data.media import Media

JPEG = (".jpg", ".jpeg", ".jpe", ".jfif")
_HEIF = (".heic", ".heif")
SUFFIXES = frozenset(
    (*JPEG, ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".avif", *_HEIF)
)  # a GIF is no photo
HAS_AVIF = "avif" in features.get_supported_modules()
HAS_HEIF = find_spec("pillow_heif") is not None
NEEDS = (
    {} if HAS_AVIF else {".avif": "is an AVIF picture, which needs Pillow from 11.3 on: pip install -U pillow"}
) | ({} if HAS_HEIF else dict.fromkeys(_HEIF, "is a HEIC picture, which needs pillow-heif: pip install pillow-heif"))
"""What is to be installed for suffixes that cannot be read here, as a line says it."""
READ = SUFFIXES - NEEDS.keys()
"""The suffixes that can be read here, in small letters."""
UNREAD = (
    frozenset(
        (".gif", ".apng", ".jp2", ".j2k", ".jpf", ".jpx", ".jxl", ".tga", ".ico", ".pcx", ".psd", ".svg", ".exr", ".hdr", ".xcf",
         ".pbm", ".pnm", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf", ".raw")
    )
    | NEEDS.keys()
)  # fmt: skip
"""The suffixes of other pictures, in small letters: files that somebody may take for data, and that are not read."""
_BRANDS = {b"avif": ".avif", b"avis": ".avif"} | dict.fromkeys(
    (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"), ".heic"
)


def unfit(suffix: str) -> str:
    """Say why files of a suffix that is not in READ are not read here."""
    return NEEDS.get(suffix) or f"is no photo by its name (suffix {suffix or 'missing'!r})"


PHOTOS = Media("photo", "picture", "photo.jpg", SUFFIXES, READ, unfit)
"""Photos, as readers of class folders look for them."""


def needed(data: bytes | bytearray) -> str:
    """Say what a file whose first bytes these are needs to be read, whatever its name; "" where that is not known."""
    brand = _BRANDS.get(bytes(data[8:12])) if data[4:8] == b"ftyp" else None
    return NEEDS.get(brand, "") if brand else ""
