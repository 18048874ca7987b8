"""What the options of all tasks share. Fields can belong to a data folder or to training, or follow another field.

Imports no torch.
"""

import math
from dataclasses import MISSING, dataclass, fields
from typing import Any, Literal

from trunkline.ground.ranges import Range, Texts, ranged

PIXELS = Range(0, 16384, "a number of pixels from 1 to 16384", low_in=False)
WEIGHT = Range(0, 1e6)
DROPOUT = Range(0, 0.999)
SCALES = Range(0, 16, "numbers above 0, up to 16", low_in=False)
NUMBER_OF_RESULTS = Range(0, 1e6, "a number above 0", low_in=False)
TILES = Range(0, 65536)
PADDING = Range(0, 4096, "a number of pixels from 1 to 4096", low_in=False)
OVERLAP = Range(0, 0.9)
FOLDS = Range(0, 1e6)


@dataclass(frozen=True)
class TaskOptions:
    """What a task's own options inherit from.

    data           the folder that the files are in
    on_bad_sample  what becomes of a sample that cannot be read: it stops the work, or is left out
    strict         what would be mended in the data is a mistake
    group          what belongs together (a person's pictures, a video's clips) and stays on one side of a split: a regular
                   expression that is searched in each id; where a table says the samples, also the name of a column
    folds          divide all samples into so many folds, of which each is validated once; 0: none; groups: a fold for each
    fold           which of them is validated, from 0; none: each in its turn (where one is looked at, the first)
    """

    data: str = ""
    on_bad_sample: Literal["stop", "skip"] = "stop"
    strict: bool = False
    group: str = ranged("", of="data", kept=False)
    folds: int | Literal["groups"] = ranged(0, within=FOLDS, of="data", kept=False)
    fold: int | None = ranged(None, within=FOLDS, of="data", kept=False)

    def uncached(self) -> str:
        """Say why these options cannot be trained on cached maps; empty where they can."""
        return "cannot be trained on cached maps"

    def misfits(self, network: Any) -> list[str]:
        """List what of a recipe's network these options cannot do with, as far as its settings say; each line as `problems`.

        It is asked before anything is loaded. `network` has the fields of the recipe's.
        """
        return []

    def problems(self) -> list[str]:
        """List what the ranges of single options cannot say; each line begins `KEY=VALUE:`, or is about all of them."""
        return []


def split_problems(options: Any) -> list[str]:
    """List what does not go together of the options that divide the samples; each line begins `KEY=VALUE`."""
    folds, fold, val = options.folds, options.fold, getattr(options, "val", "")
    share = next((text for text in (val if isinstance(val, tuple) else (val,)) if _is_number(text)), 0)
    found = []
    if folds == 1:
        found.append("folds=1: expected 2 or more, groups (a fold for each group), or 0 for none")
    if folds and share:
        found.append(f"folds={folds} and val={share}: folds validate every sample once, a share some; give one of them")
    if fold is not None and not folds:
        found.append(
            f"fold={fold}: says which of the folds is validated, and there are none; give folds=, or leave it out"
        )
    elif fold is not None and isinstance(folds, int) and folds > 1 and fold >= folds:
        found.append(f"fold={fold}: of folds={folds} expected 0 to {folds - 1}")
    return found


def _is_number(value: Any) -> bool:
    """Say whether a value is a share above 0, as a number or as its text."""
    try:
        return float(value or 0) > 0
    except ValueError:
        return False


FULL = "full"


def _is_depth(text: str) -> bool:
    low, colon, high = text.partition(":")
    numbers = colon and all(end.isascii() and end.isdigit() for end in (low, high))
    return text in ("", FULL) or bool(numbers and int(low) < int(high) <= 65535)


DEPTH = Texts(_is_depth, "full, or LOW:HIGH with whole numbers from 0 to 65535, the lower first, as 0:4095")


def depth_of_pictures() -> Any:
    """Make the field of options that says how pictures of more than 8 bits a channel are read; empty: they are refused."""
    return ranged("", DEPTH)


def depth_of(options: Any) -> dict[str, str]:
    """Return the field of `depth_of_pictures` where it says something, as a file of weights states it."""
    return {"depth": options.depth} if options.depth else {}


def refuse_kind(task: str, kind: Any) -> list[str]:
    """List what is wrong with the class of a task's options."""
    if isinstance(kind, type) and issubclass(kind, TaskOptions) and "__dataclass_params__" in vars(kind):
        return []
    wanted = f"a frozen dataclass that inherits from {TaskOptions.__module__}.{TaskOptions.__name__}"
    return [f"{task}'s options: expected {wanted}"]


def of_data(default: Any, kept: bool = False, within: Range | None = None, hint: str = "") -> Any:
    """Make a field of options that belongs to `data`. With `kept` it also holds for other data, until it is set.

    `hint` follows what is said of a wrong value.
    """
    return ranged(default, within, of="data", kept=kept, hint=hint)


def of_scores(default: Any, within: Range | None = None) -> Any:
    """Make a field of options that nothing but scores reads."""
    return ranged(default, within, of="scores")


def of_training(default: Any, within: Range | None = None) -> Any:
    """Make a field of options that nothing but training reads."""
    return ranged(default, within, of="training")


def following(other: str, default: Any, within: Range | None = None) -> Any:
    """Make a field of options that keeps its proportion to the field `other` where only that is given."""
    return ranged(default, within, follows=other)


def followed(options: Any, given: dict[str, Any]) -> dict[str, Any]:
    """Compute the options that follow newly given ones and are not given themselves; none follows where one is None."""
    pairs = [(f.name, f.metadata["follows"]) for f in fields(options) if "follows" in f.metadata]
    changed = {name: (getattr(options, name), given[other], getattr(options, other))
               for name, other in pairs if other in given and name not in given}  # fmt: skip
    return {
        name: max(1, round(own * now / was)) for name, (own, now, was) in changed.items() if None not in (own, now, was)
    }


def belonging(options: Any, to: str) -> set[str]:
    """Find the names of the options that belong to `data`, `training`, `scores`, or to the `network`, which decide its layers."""
    return {f.name for f in fields(options) if f.metadata.get("of") == to}


def hint_of(options: Any, key: str) -> str:
    """Say what may have been meant where an option has a wrong value, as `; edge= says …`; empty: nothing is known."""
    return next((f"; {hint}" for f in fields(options) if f.name == key and (hint := f.metadata.get("hint"))), "")


def reset(options: Any) -> dict[str, Any]:
    """Return the options that do not hold for other data, at their defaults."""
    own = [f for f in fields(options) if f.metadata.get("of") == "data" and not f.metadata["kept"]]
    return {f.name: f.default for f in own if f.default is not MISSING}


def pair_problems(key: str, pair: tuple[float, ...], most: float = math.inf) -> list[str]:
    """List what is wrong with two bounds above 0; an empty pair is fine."""
    if not pair or (len(pair) == 2 and 0 < pair[0] <= pair[1] <= most):
        return []
    wanted = "two numbers above 0, the smaller one first" + ("" if most == math.inf else f" and none above {most:g}")
    return [f"{key}={','.join(f'{v:g}' for v in pair)}: expected {wanted}"]


def window_problems(tiles: int, overlap: float) -> list[str]:
    """List what is wrong with windows of `tiles` pixels a side, of which neighbours share `overlap` (0..0.9)."""
    if 0 < tiles < 64:
        return [f"tiles={tiles}: expected 0 (whole pictures), or windows of 64 pixels or more"]
    if tiles > 0 and overlap in OVERLAP and tiles * (1 - overlap) < 32:
        return [f"overlap={overlap:g}: of windows of {tiles} pixels expected up to {1 - 32 / tiles:.2f}"]
    return []
