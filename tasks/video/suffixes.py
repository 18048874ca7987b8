"""Which clips are read, by the ends of their names. Imports no torch."""

from ..data.media import Media
from ..images.suffixes import READ, SUFFIXES

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
        ".wmv",
        ".flv",
        ".3gp",
        ".ts",
        ".mts",
        ".ogv",
        ".divx",
    )
)
"""The suffixes of containers of moving pictures, in small letters. FFmpeg reads them all."""


def unfit(suffix: str) -> str:
    """Say why a file of a suffix that is not in VIDEO is no clip."""
    if suffix in SUFFIXES or suffix == ".gif":
        return "is a picture: the frames of a clip lie in a folder of their own"
    return f"is no clip by its name (suffix {suffix or 'missing'!r})"


CLIPS = Media("clip", "clip", "clip.mp4", VIDEO, VIDEO, unfit, READ)
"""Clips, as readers of class folders look for them: files, or folders of frames."""
