"""What networks of super-resolution have as published, and what a file says of theirs. Imports no torch."""

from collections.abc import Mapping
from typing import Any

from trunkline.ground.errors import WeightsError

from ..contract import Preprocessing
from ..table import SETTINGS

UNSHUFFLES = (1, 2, 4)
_EDSR_MEAN = (0.4488, 0.4371, 0.4040)  # of DIV2K, in RGB (BasicSR's edsr_arch.py)
_LARGE = (32, 256)  # blocks and width from which EDSR scales its residuals (Lim et al. 2017, table 1)


def usual_preprocessing(arch: str) -> Preprocessing:
    """Return what a network's input is normalised by: EDSR's mean and its range of 255, else nothing. Size means nothing."""
    if arch == "edsr":
        return Preprocessing(mean=_EDSR_MEAN, std=(1 / 255,) * 3)
    return Preprocessing(mean=(0.0,) * 3, std=(1.0,) * 3)


def usual_scale(arch: str, blocks: int, width: int) -> float:
    """Return what residuals are multiplied by as published: 0.1 in the large EDSR, else 1 (a dense block's is fixed)."""
    return 0.1 if arch == "edsr" and (blocks, width) == _LARGE else 1.0


def settings_in(info: Mapping[str, Any], source: str) -> dict[str, Any]:
    """Read a trunk's settings from `Weights.info`, by name. Raises WeightsError for what is no number."""
    found: dict[str, Any] = {}
    for name in SETTINGS:
        if (said := info.get(f"trunkline_{name}")) is not None:
            try:
                found[name] = float(said) if name == "residual_scale" else int(said)
            except ValueError:
                raise WeightsError(f"{source}: trunkline_{name}={said} in its header: expected a number") from None
    return found


def agreed(given: Mapping[str, Any], stated: Mapping[str, Any], source: str) -> dict[str, Any]:
    """Join the settings asked for with those that a file states; `given` has None, and an unshuffle of 1, where not asked.

    Raises WeightsError with those that differ.
    """
    asked = {name: value for name, value in given.items() if value is not None and (name, value) != ("unshuffle", 1)}
    if wrong := [f"{name}={stated[name]:g} by the file, {name}={value:g} asked for"
                 for name, value in asked.items() if name in stated and stated[name] != value]:  # fmt: skip
        raise WeightsError(f"{source}: {'; '.join(wrong)}; leave it out")
    return {**asked, **stated}
