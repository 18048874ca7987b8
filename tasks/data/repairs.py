"""What a reader took for what was meant: counted by kind, each kind said once."""

from collections import Counter
from collections.abc import Iterable

from trunkline.ground.errors import DataError

_MANY = {"category": "categories", "box": "boxes", "class": "classes"}


class Repair(str):
    """A line that says what was mended; other lines are remarks."""


class Repairs:
    """The repairs of one file or folder; `lines` has one for each kind, with how many of what it touched."""

    def __init__(self, of: str):
        self.of = of
        self._counts: Counter[tuple[str, str]] = Counter()

    def add(self, what: str, unit: str, count: int = 1) -> None:
        """Count repairs of a kind: `iscrowd: true/false taken as 1/0` in so many of the unit (`annotation`)."""
        if count:
            self._counts[what, unit] += count

    def lines(self) -> list[Repair]:
        """List the kinds in the order in which they were met."""
        return [Repair(f"{self.of}: {what} in {counted(n, unit)}") for (what, unit), n in self._counts.items()]


def counted(count: int, unit: str) -> str:
    """Write a number of things: `1 annotation`, `24 annotations`."""
    return f"{count:,} {unit if count == 1 else _MANY.get(unit, unit + 's')}"


def refuse(lines: Iterable[str]) -> None:
    """Raise DataError with the repairs among some lines, if there are any: what `strict` does."""
    if found := list(dict.fromkeys(line for line in lines if isinstance(line, Repair))):
        raise DataError("\n  ".join(["strict: what would be mended is a mistake:", *found]))
