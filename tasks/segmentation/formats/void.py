"""The number 255 in masks: no class where the format or the data says so; else what the whole split tells, or a refusal."""

from collections.abc import Iterable, Sequence

import numpy as np

from trunkline.ground.errors import Undecided

from ....heads.contract import VOID
from .encoding import Encoding


def wanted(encoding: Encoding) -> set[int]:
    """Return the classes that a split must have pixels of for an undeclared 255 to be taken as no class.

    With two classes, the one that is not stored as 0: where masks hold 0 and 255 alone, 255 is that class to most
    programs. With more, all of them. With one nothing can tell: VOID stands for what no mask has pixels of.
    """
    stored = {number: value for value, number in encoding.values.items() if number != VOID}
    if len(stored) < 2:
        return {VOID}
    return set(stored) if len(stored) > 2 else {number for number, value in stored.items() if value}


def lacking(encoding: Encoding, pixels: np.ndarray) -> list[int]:
    """List the classes without which an undeclared 255 is not taken as no class, by pixels of each number `(256,)`."""
    return sorted(n for n in wanted(encoding) if n == VOID or not pixels[n])


def decide(encoding: Encoding, masks: Iterable[np.ndarray], where: str, share: str = "") -> None:
    """Look through a split's masks `(H, W)` until all wanted classes have a pixel. Raises Undecided where one has none.

    `where` names the mask with 255, and `share` says how much of it that is.
    """
    without = wanted(encoding)
    for labels in masks if without != {VOID} else ():
        without -= set(np.flatnonzero(np.bincount(labels.ravel(), minlength=256)).tolist())
        if not without:
            return
    raise undecided(encoding, sorted(without), where, share)


def undecided(encoding: Encoding, without: Sequence[int], where: str, share: str = "") -> Undecided:
    """Build the error: both readings of 255, as lines to paste."""
    own = {number: value for value, number in encoding.values.items() if number != VOID}
    if len(own) < 2:
        (name,) = encoding.classes
        return Undecided(
            f"{where}: has the number 255{share}, and one class is named, {name}. 255 has two readings; say which:\n"
            f"  it is {name}, and 0 lies beside it: write classes.txt as\n    0 background\n    {VOID} {name}\n"
            "  it is no class: give void=255, or add this line to classes.txt\n    255 void"
        )
    names = [f"{encoding.classes[n]} ({own[n]})" for n in without]
    first = without[0]
    lines = [f"{VOID if n == first else own[n]} {encoding.classes[n]}" for n in sorted(own, key=own.__getitem__)]
    listed = "\n".join(f"    {line}" for line in lines[:8]) + ("\n    …" if len(lines) > 8 else "")
    more = "" if len(names) < 5 else f" and {len(names) - 4} more"
    return Undecided(
        f"{where}: has the number 255{share}, which the classes do not name, and no mask of the split has a pixel of "
        f"{', '.join(names[:4])}{more}. 255 has two readings; say which:\n"
        f"  it is {encoding.classes[first]}: write classes.txt as\n{listed}\n"
        "  it is no class: give void=255, or add this line to classes.txt\n    255 void"
    )


def word_of(encoding: Encoding, form: str, given: Sequence[int]) -> str:
    """Say why pixels of these masks are of no class: the format, the setting, the file of classes, or nothing but the split."""
    numbers = sorted(value for value, number in encoding.values.items() if number == VOID)
    said = "colours of `void` in classes.txt" if encoding.coloured else ", ".join(map(str, numbers[:6]))
    said += ", …" if not encoding.coloured and len(numbers) > 6 else ""
    if form != "pairs":
        return f"{said}, as format={form} has it"
    if encoding.assumed and numbers != [VOID]:
        declared = f"{said.removesuffix(f', {VOID}')}, by {'void=' if given else 'classes.txt'}"
        return f"{declared}, or {VOID}, which nothing declares; every class has pixels without it"
    if encoding.assumed:
        return f"{said}, which nothing declares; every class has pixels without it"
    return said if encoding.coloured else f"{said}, by {'void=' if given else 'classes.txt'}"
