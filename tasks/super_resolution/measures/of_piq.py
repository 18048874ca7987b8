"""Measures of `piq` beside PSNR and SSIM: MS-SSIM, HaarPSI and GMSD, which need no weights; LPIPS and DISTS, which do.

Each is the number that piq gives for the two RGB pictures, cropped as for PSNR, from 0 to 1 in float32. Nothing is downloaded.
"""

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from trunkline.ground.errors import DataError, RecipeError
from trunkline.ground.names import nearest

from ...scores import Metric

NAMES = {
    "ms_ssim": Metric("MS-SSIM", most=1.0),
    "haarpsi": Metric("HaarPSI", most=1.0),
    "gmsd": Metric("GMSD", better="lower"),
    "lpips": Metric("LPIPS (VGG-16)", better="lower"),
    "dists": Metric("DISTS", better="lower"),
}
_SMALLEST = {"ms_ssim": 161, "haarpsi": 16, "gmsd": 4, "lpips": 16, "dists": 16}  # a side, in pixels
_PIQ = "https://github.com/photosynthesis-team/piq/releases/download"
_VGG = ("vgg16-397923af.pth", "https://download.pytorch.org/models/vgg16-397923af.pth")
_WEIGHTS = {  # the files that piq loads: their names, and where they come from
    "lpips": (_VGG, ("lpips_weights.pt", f"{_PIQ}/v0.4.0/lpips_weights.pt")),
    "dists": (_VGG, ("dists_weights.pt", f"{_PIQ}/v0.4.1/dists_weights.pt")),
}


def check(names: tuple[str, ...]) -> None:
    """Raise RecipeError for measures that are unknown, or cannot be computed here, with what to do for each."""
    problems = [
        f"more={name}: there is no such measure{nearest(name, NAMES)}; there are {', '.join(NAMES)}"
        for name in names
        if name not in NAMES
    ]
    try:
        import piq  # noqa: F401 # pyright: ignore[reportMissingImports]
    except ImportError:
        problems.append(f"more={','.join(names)}: needs piq: pip install piq")
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    problems += [
        f"more={name}: needs the weights {folder / file}, which are not there: download them from {url}"
        for name in names
        for file, url in _WEIGHTS.get(name, ())
        if not (folder / file).is_file()
    ]
    if problems:
        raise RecipeError(problems)


def measure(truth: np.ndarray, found: np.ndarray, names: tuple[str, ...]) -> dict[str, float]:
    """Compute the named measures of two RGB pictures `(H, W, 3)`, float64 from 0 to 255.

    Raises RecipeError as `check`, and DataError for pictures that are too small for one of them.
    """
    one, other = (_tensor(p) for p in (found, truth))
    scores = {}
    with torch.inference_mode():
        for name in names:
            function = _function(name)
            if min(one.shape[2:]) < _SMALLEST[name]:
                size = f"{one.shape[3]} x {one.shape[2]}"
                raise DataError(
                    f"{size} pixels are too few for {name}, which needs {_SMALLEST[name]}: leave more={name} out"
                )
            scores[name] = float(function(one, other))
    return scores


def _tensor(pixels: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(pixels.astype(np.float32).transpose(2, 0, 1)[None].copy()) / 255


@lru_cache
def _function(name: str) -> Callable[[torch.Tensor, torch.Tensor], Any]:
    check((name,))
    import piq  # pyright: ignore[reportMissingImports]

    if name in ("lpips", "dists"):
        return {"lpips": piq.LPIPS, "dists": piq.DISTS}[name]().eval()
    return {"ms_ssim": piq.multi_scale_ssim, "haarpsi": piq.haarpsi, "gmsd": piq.gmsd}[name]
