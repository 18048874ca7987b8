"""Labels that are numbers: as tables write them, where a column of whole numbers may come out as 1.0, 2.0."""

import re
from collections.abc import Collection
from decimal import Decimal

_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?")
_WHOLE = re.compile(r"(-?[0-9]+)\.0+")
TAKEN = "labels written as 1.0 taken as 1"


def twofold(labels: Collection[str]) -> list[list[str]]:
    """List the labels that are one number in several spellings (`1`, `1.0`, `01`), a list for each number."""
    found: dict[Decimal, list[str]] = {}
    for label in sorted(labels):
        if _NUMBER.fullmatch(label):
            found.setdefault(Decimal(label), []).append(label)
    return [spelled for spelled in found.values() if len(spelled) > 1]


def as_whole(labels: Collection[str]) -> dict[str, str]:
    """Map labels that all are whole numbers with a fraction of zeros to these without it; {} where any is not."""
    found = {label: str(int(match[1])) for label in labels if (match := _WHOLE.fullmatch(label))}
    return found if len(found) == len(labels) and len({*found.values()}) == len(found) else {}


def whole(label: str) -> str:
    """Return a whole number written with a fraction of zeros without it; other labels as they are."""
    match = _WHOLE.fullmatch(label)
    return str(int(match[1])) if match else label


def told(spelled: list[str]) -> str:
    """Say what is wrong with labels that are one number."""
    names = " and ".join(map(repr, spelled))
    return f"the labels {names} are one number, and may be one class or several: write each class in one way"
