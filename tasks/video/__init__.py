"""Action recognition: clips, the frames that stand for them, and their scores."""

import os


def count_frames(path: str | os.PathLike[str]) -> int:
    """Count the frames that a full decode of a video, or of a folder of frames, shows.

    Raises DataError, with the file's name, for what is missing, empty, no video, holds no pictures or none that decodes.
    """
    from .decoding.video import count_frames  # PyAV is loaded when it is needed

    return count_frames(path)
