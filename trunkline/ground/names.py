"""What a name stands for, and the known names nearest to a misspelt one."""

import difflib
import importlib
from collections.abc import Iterable
from typing import Any


def nearest(word: str, words: Iterable[str]) -> str:
    """Write the nearest names as `; nearest: …`, or "" where none is near."""
    words = list(dict.fromkeys(words))
    near = difflib.get_close_matches(word, words, 2, 0.55)
    near += [w for w in words if w.rsplit(".", 1)[-1] == word.rsplit(".", 1)[-1] and w not in near][:2]
    return f"; nearest: {', '.join(near)}" if near else ""


def load_named(target: Any) -> Any:
    """Import the object that `module:name` stands for. Any other object is returned as it is."""
    if not isinstance(target, str):
        return target
    module, name = target.split(":")
    return getattr(importlib.import_module(module), name)
