"""The nearest of the names that there are, for what was written wrong."""

import difflib
from collections.abc import Iterable


def nearest(word: str, words: Iterable[str]) -> str:
    """`; nearest: …`, or nothing where nothing is near."""
    words = list(dict.fromkeys(words))
    near = difflib.get_close_matches(word, words, 2, 0.55)
    near += [w for w in words if w.rsplit(".", 1)[-1] == word.rsplit(".", 1)[-1] and w not in near][:2]
    return f"; nearest: {', '.join(near)}" if near else ""
