"""What a reader of class folders and of tables looks for: photos, or clips. Imports no torch."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Media:
    """Files of one kind, by the ends of their names, in small letters with a dot.

    word     what one is called by its name: photo
    noun     what one is called in a table: picture
    example  a file of the kind, as messages show it: photo.jpg
    known    the suffixes that somebody may take for data of this kind
    read     those that are read here
    unfit    says why files of a suffix that is not in `read` are not read
    frames   the suffixes of pictures: a folder that holds some is one item by itself; empty: folders never are
    """

    word: str
    noun: str
    example: str
    known: frozenset[str]
    read: frozenset[str]
    unfit: Callable[[str], str]
    frames: frozenset[str] = frozenset()
