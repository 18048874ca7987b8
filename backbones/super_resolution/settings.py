"""What networks of super-resolution have as published. Imports no torch."""

from ..contract import Preprocessing

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
