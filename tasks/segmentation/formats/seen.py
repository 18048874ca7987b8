"""What masks hold, counted: pixels of each class and of none, and unusual ways of storing numbers."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from ....heads.contract import VOID
from ...data.repairs import Repair
from ...scores import MOST_NAMED
from .encoding import Mask


@dataclass
class Seen:
    """Counts over masks: `pixels` by class's number, int64 `(256,)`, 255: none; `forms` by the mask file's form."""

    masks: int = 0
    pixels: np.ndarray = field(default_factory=lambda: np.zeros(256, np.int64))
    forms: Counter[str] = field(default_factory=Counter)

    def add(self, mask: Mask) -> None:
        """Count a mask."""
        self.count(np.bincount(mask.labels.ravel(), minlength=256), mask.stored.form)

    def count(self, pixels: Sequence[int] | np.ndarray, form: str = "") -> None:
        """Count a mask by its pixels of each number, `(256,)`."""
        self.masks += 1
        self.pixels += np.asarray(pixels, np.int64)
        if form:
            self.forms[form] += 1

    def absent(self, classes: Sequence[str]) -> list[str]:
        """List the classes without a pixel."""
        return [name for n, name in enumerate(classes) if not self.pixels[n]]

    def repairs(self, whose: str) -> list[Repair]:
        """Say what forms were read as numbers, in how many masks."""
        return [
            Repair(f"{form}: read as {'colours' if 'colours' in form else 'numbers'} in {count} of {whose}")
            for form, count in sorted(self.forms.items())
        ]

    def remarks(self, classes: Sequence[str], whose: str, void: str) -> list[str]:
        """Say whose masks (`the first 32 masks of train`) have how much void, by what word, and which classes not at all."""
        if not self.masks:
            return []
        lines: list[str] = [*self.repairs(whose)]
        total = int(self.pixels.sum())
        absent = self.absent(classes)
        if len(absent) == len(classes):
            return [*lines, f"no pixel of any class in {whose}: do their numbers or colours stand with the classes?"]
        if self.pixels[VOID]:
            lines.append(f"{self.pixels[VOID] / total:.1%} of the pixels of {whose} are void: {void}")
        if absent:
            more = f" and {len(absent) - MOST_NAMED} more" if len(absent) > MOST_NAMED else ""
            lines.append(f"no pixel of {', '.join(absent[:MOST_NAMED])}{more} in {whose}")
        return lines
