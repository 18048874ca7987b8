"""Which clips are read, by the ends of their names. Imports no torch."""

from ..data.media import Media
from ..images.suffixes import READ, SUFFIXES, UNREAD

VIDEO = frozenset(
    (
        ".mp4",
        ".m4v",
        ".mov",
        ".avi",
        ".mkv",
        ".webm",
        ".mpg",
        ".mpeg",
        ".m2v",
        ".vob",
        ".wmv",
        ".asf",
        ".flv",
        ".f4v",
        ".3gp",
        ".3g2",
        ".qt",
        ".mxf",
        ".ts",
        ".mts",
        ".m2ts",
        ".ogv",
        ".divx",
    )
)
"""The suffixes of containers of moving pictures, in small letters. FFmpeg reads them all."""


READABLE = VIDEO | {".gif"}
"""The suffixes of clips. An animated GIF is one where clips are looked for, and says nothing of what a folder holds."""


def picture(suffix: str) -> str:
    """Say why a file whose suffix is that of a picture is no clip; "" of other suffixes."""
    pictures = (SUFFIXES | UNREAD) - READABLE
    return "is a picture: the frames of a clip lie in a folder of their own" if suffix in pictures else ""


def unfit(suffix: str) -> str:
    """Say why a file of a suffix that is not in READABLE is no clip."""
    return picture(suffix) or f"is no clip by its name (suffix {suffix or 'missing'!r})"


CLIPS = Media("clip", "clip", "clip.mp4", VIDEO, READABLE, unfit, READ)
"""Clips, as readers of class folders look for them: files, or folders of frames."""
