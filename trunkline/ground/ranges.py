"""Ranges beside the fields that they bound, and a check of an object's fields against them."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any


@dataclass(frozen=True)
class Range:
    """Holds the numbers from `low` to `high`; NaN is in no range.

    words              what a message says is expected; by default the two ends
    low_in, high_in    whether the ends themselves are in it
    """

    low: float
    high: float
    words: str = ""
    low_in: bool = True
    high_in: bool = True

    def __contains__(self, value: float) -> bool:
        above = self.low <= value if self.low_in else self.low < value
        below = value <= self.high if self.high_in else value < self.high
        return above and below

    def __str__(self) -> str:
        return self.words or f"{self.low:g} to {self.high:g}"


@dataclass(frozen=True)
class Texts:
    """Holds the texts that `accepts` accepts; `words` is what a message says is expected."""

    accepts: Callable[[str], bool]
    words: str

    def __contains__(self, value: str) -> bool:
        return self.accepts(value)

    def __str__(self) -> str:
        return self.words


SHARE = Range(0, 1)
COUNT = Range(0, 1e9)
POSITIVE = Range(0, 1e9, "a number above 0", low_in=False)


def ranged(default: Any, within: Range | Texts | None = None, **metadata: Any) -> Any:
    """Make a dataclass's field whose numbers or texts are within these. Of a tuple or dictionary each must."""
    return field(default=default, metadata=metadata | ({"within": within} if within else {}))


def problems_of(checked: Any, prefix: str = "", shown: Callable[[float], str] = str) -> list[str]:
    """List what is wrong with the fields of a dataclass and of those in it; `prefix` stands before their names.

    First come values out of range. What a range cannot say (fields that do not go together) an object says itself, in a
    method `problems`: lines that begin with a field's name and `=` or `:`, or are about the whole object.
    """
    found: list[str] = []
    for f in fields(checked):
        key, value = f"{prefix}{f.name}", getattr(checked, f.name)
        for inner, part in _parts(key, value):
            if is_dataclass(part):
                found += problems_of(part, f"{inner}.", shown)
            elif isinstance(part, int | float | str) and not isinstance(part, bool):
                within: Any = f.metadata.get("within")
                text = isinstance(part, str)
                if (isinstance(within, Texts) and not (text and part in within)) or (
                    isinstance(within, Range) and not text and part not in within
                ):
                    found.append(f"{inner}={part if text else shown(part)}: expected {within}")
    own: Callable[[], list[str]] = getattr(checked, "problems", list)
    names = {f.name for f in fields(checked)}
    return found + [_placed(line, prefix, names) for line in own()]


def _parts(key: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Yield a field's value, or each of the values in it, with its dotted key."""
    if isinstance(value, dict):
        yield from ((f"{key}.{name}", part) for name, part in value.items())
    elif isinstance(value, tuple):
        yield from ((f"{key}.{i}" if is_dataclass(part) else key, part) for i, part in enumerate(value))
    else:
        yield key, value


def _placed(line: str, prefix: str, names: set[str]) -> str:
    """Put the prefix before a line of an object's `problems`."""
    named = re.match(r"(\w+)[=:]", line)
    if not prefix or (named and named[1] in names):
        return f"{prefix}{line}"
    return f"{prefix.removesuffix('.')}: {line}"
