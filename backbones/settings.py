"""What trunks have besides their names: settings that travel with their weights, and usual preprocessing. Imports no torch."""

from collections.abc import Mapping
from typing import Any

from trunkline.ground.errors import WeightsError

from .contract import Preprocessing
from .super_resolution.settings import usual_preprocessing as of_super_resolution
from .table import CLIPS, INFLATE, SETTINGS, SUPER_RESOLUTION, flat_of

KINETICS = Preprocessing(
    mean=(0.43216, 0.394666, 0.37645), std=(0.22803, 0.22145, 0.216989), size=112, resize=128, resize_width=171
)
"""Of torchvision's networks for clips: frames become 128 x 171 pixels, whatever their proportion."""
_PYSLOWFAST = Preprocessing(mean=(0.45,) * 3, std=(0.225,) * 3, size=256, resize=256)


def usual_preprocessing(arch: str) -> Preprocessing:
    """Return what a network's input is normalised by as published: ImageNet's numbers unless it has its own."""
    if arch in SUPER_RESOLUTION:
        return of_super_resolution(arch)
    if arch not in CLIPS or flat_of(arch):
        return Preprocessing()
    return _PYSLOWFAST if arch.startswith("slowfast") else KINETICS


def settings_in(info: Mapping[str, Any], source: str) -> dict[str, Any]:
    """Read a trunk's settings from `Weights.info`, by name. Raises WeightsError for what cannot be read."""
    found: dict[str, Any] = {}
    for name in SETTINGS:
        if (said := info.get(f"trunkline_{name}")) is not None:
            try:
                found[name] = _READ[name](said)
            except (ValueError, KeyError):
                raise WeightsError(
                    f"{source}: trunkline_{name}={said} in its header: expected {_EXPECTED.get(name, 'a number')}"
                ) from None
    return found


_READ: dict[str, Any] = {
    "blocks": int,
    "width": int,
    "unshuffle": int,
    "residual_scale": float,
    "inflate": {name: name for name in INFLATE}.__getitem__,
}
_EXPECTED = {"inflate": f"one of {', '.join(INFLATE)}"}


def agreed(given: Mapping[str, Any], stated: Mapping[str, Any], source: str) -> dict[str, Any]:
    """Join the settings asked for with those that a file states; `given` has None, and an unshuffle of 1, where not asked.

    Raises WeightsError with those that differ.
    """
    asked = {name: value for name, value in given.items() if value is not None and (name, value) != ("unshuffle", 1)}
    if wrong := [f"{name}={_said(stated[name])} by the file, {name}={_said(value)} asked for"
                 for name, value in asked.items() if name in stated and stated[name] != value]:  # fmt: skip
        raise WeightsError(f"{source}: {'; '.join(wrong)}; leave it out")
    return {**asked, **stated}


def _said(value: Any) -> str:
    return value if isinstance(value, str) else f"{value:g}"
