"""What a name stands for, and the nearest of the names that there are, for what was written wrong."""

import difflib
import importlib
from collections.abc import Iterable
from typing import Any


def nearest(word: str, words: Iterable[str]) -> str:
    """`; nearest: …`, or nothing where nothing is near."""
    words = list(dict.fromkeys(words))
    near = difflib.get_close_matches(word, words, 2, 0.55)
    near += [w for w in words if w.rsplit(".", 1)[-1] == word.rsplit(".", 1)[-1] and w not in near][:2]
    return f"; nearest: {', '.join(near)}" if near else ""


def load_named(target: Any) -> Any:
    """The object that `module:name` stands for; an object stands for itself."""
    if not isinstance(target, str):
        return target
    module, name = target.split(":")
    return getattr(importlib.import_module(module), name)
