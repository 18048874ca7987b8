"""Lines about single samples, of which alike ones are said once and counted."""

import re
from collections.abc import Iterable

from .repairs import counted

_NUMBER = re.compile(r"\d+")


class Remarks:
    """What people should know of some samples; small however many there are. Lines that differ in numbers alone are alike."""

    def __init__(self, unit: str):
        self.unit = unit
        self._first: dict[str, tuple[str, str]] = {}
        self._counts: dict[str, int] = {}

    def add(self, name: str, lines: Iterable[str]) -> None:
        """Add what is said of one sample."""
        for kind, line in {_NUMBER.sub("#", line): line for line in lines}.items():
            self._first.setdefault(kind, (name, line))
            self._counts[kind] = self._counts.get(kind, 0) + 1

    def lines(self) -> list[str]:
        """List each kind with the first sample that it is said of, and how many others it is said of too."""
        found = []
        for kind, (name, line) in self._first.items():
            others = self._counts[kind] - 1
            found.append(f"{name}: {line}" + (f" (so in {counted(others, 'other ' + self.unit)})" if others else ""))
        return found
