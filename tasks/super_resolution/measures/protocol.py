"""How near an upscaled picture comes to the true one: PSNR and SSIM by the protocol of the published tables.

All of it is in float64 on values from 0 to 255. The protocol: both pictures as integers; `border` pixels cropped on each side
(the scale, as a rule); PSNR and SSIM of each picture, then the mean over pictures, never one PSNR of a pooled error.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from trunkline.ground.errors import DataError

from ...intervals import bootstrap
from ...scores import Metric

Grey = Literal["rgb", "own"]
METRICS = {
    "psnr_y": Metric("PSNR on Y", "dB"),
    "ssim_y": Metric("SSIM on Y", most=1.0),
    "psnr_rgb": Metric("PSNR on RGB", "dB"),
    "ssim_rgb": Metric("SSIM on RGB", most=1.0),
}
PEAK = 255.0
_Y = (np.array([65.481, 128.553, 24.966]) / 255).tolist()
_WINDOW, _SIGMA = 11, 1.5
_C1, _C2 = (0.01 * PEAK) ** 2, (0.03 * PEAK) ** 2
_ROWS = 64  # of SSIM's map at a time
_TO_8_BITS = 257  # 65535 / 255


def luma(rgb: np.ndarray) -> np.ndarray:
    """Compute Y `(H, W)` of RGB `(H, W, 3)`: studio range, 16 for black to 235 for white, float64, unrounded.

    OpenCV's Y has the full range; PSNR on it is 1.32 dB lower. Source: ITU-R BT.601, as MATLAB's `rgb2ycbcr` on floats.
    """
    red, green, blue = (rgb[..., n].astype(np.float64) for n in range(3))
    return 16 + _Y[0] * red + _Y[1] * green + _Y[2] * blue


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    """Compute the peak signal-to-noise ratio of two arrays of one shape, in dB, with the peak 255; equal ones: infinity.

    Several channels have one common mean squared error.
    """
    error = np.mean(np.square(a.astype(np.float64) - b))
    return float(10 * np.log10(PEAK**2 / error)) if error else float("inf")


def ssim(a: np.ndarray, b: np.ndarray) -> float:
    """Compute the mean structural similarity of two pictures `(H, W)` or `(H, W, C)`, of C channels the mean.

    The window is an 11 x 11 Gaussian of sigma 1.5, the covariance the population's, K1 0.01, K2 0.03, the range 255, and only
    places where the whole window lies inside count. skimage's `structural_similarity(gaussian_weights=True, sigma=1.5,
    use_sample_covariance=False, data_range=255)` is the same number. Raises DataError for pictures with a side below 11.
    Source: Wang et al. 2004, section III.B.
    """
    height, width = a.shape[:2]
    if min(height, width) < _WINDOW:
        raise DataError(f"{width} x {height} pixels are too few for SSIM, whose window has {_WINDOW} x {_WINDOW}")
    one, other = (np.asarray(p, np.float64).reshape(height, -1) for p in (a, b))
    total, channels = 0.0, one.shape[1] // width
    for top in range(0, height - _WINDOW + 1, _ROWS):
        rows = slice(top, top + _ROWS + _WINDOW - 1)
        total += float(_similarity(one[rows], other[rows], channels).sum())
    return total / ((height - _WINDOW + 1) * (width - _WINDOW + 1) * channels)


def _similarity(a: np.ndarray, b: np.ndarray, channels: int) -> np.ndarray:
    """Compute SSIM's map of two strips `(H, W * C)` wherever the window fits."""
    x, y, squares, product = (_blurred(p, channels) for p in (a, b, a * a + b * b, a * b))
    both, means = x * y, x * x + y * y
    covariance, variances = product - both, squares - means
    return (2 * both + _C1) * (2 * covariance + _C2) / ((means + _C1) * (variances + _C2))


def _blurred(values: np.ndarray, channels: int) -> np.ndarray:
    """Average `(H, W * C)` under the window: `(H - 10, (W - 10) * C)`. Down first, then along."""
    down = _weighted([values[n : len(values) - _WINDOW + 1 + n] for n in range(_WINDOW)])
    end = down.shape[1] - (_WINDOW - 1) * channels
    return _weighted([down[:, n * channels : end + n * channels] for n in range(_WINDOW)])


def _weighted(shifted: list[np.ndarray]) -> np.ndarray:
    """Sum eleven shifted arrays with the window's weights, of which two and two are equal."""
    middle = _WINDOW // 2
    total = shifted[middle] * _WEIGHTS[middle]
    part = np.empty_like(total)
    for n in range(middle):
        np.add(shifted[n], shifted[-1 - n], out=part)
        part *= _WEIGHTS[n]
        total += part
    return total


def _gaussian() -> list[float]:
    weights = np.exp(-np.square(np.arange(_WINDOW) - _WINDOW // 2) / (2 * _SIGMA**2))
    return (weights / weights.sum()).tolist()


_WEIGHTS = _gaussian()


def compare(
    truth: np.ndarray,
    found: np.ndarray,
    border: int,
    grey: Grey = "rgb",
    more: tuple[str, ...] = (),
    key: str = "border",
) -> dict[str, float]:
    """Score an upscaled picture against the true one, both `(H, W)` or `(H, W, C)`, uint8 or uint16, C 1 or 3, without alpha.

    Returns `psnr_y`, `ssim_y`, `psnr_rgb`, `ssim_rgb`, and what `more` names (`of_piq.NAMES`). `border` pixels are cropped on
    each side first; `key` is the setting that errors name for it. Numbers of 16 bits are scored as number / 257, unrounded.
    Grey is repeated to RGB, whose Y has 219/255 of its range (1.32 dB more); with `grey="own"` the grey plane itself is the
    Y. Equal pictures have a PSNR of infinity (`summary` says what becomes of it). Raises DataError for other shapes or kinds,
    for pictures that are too small, and for `own` where one is grey and the other is not.
    """
    y, (true, other) = _planes(truth, found, border, grey, key)
    scores = {
        "psnr_y": psnr(*y),
        "ssim_y": ssim(*y),
        "psnr_rgb": psnr(true, other),
        "ssim_rgb": ssim(true, other),
    }
    if more:
        from .of_piq import measure

        scores |= measure(true, other, more)
    return scores


def psnr_y(truth: np.ndarray, found: np.ndarray, border: int, grey: Grey = "rgb", key: str = "border") -> float:
    """Compute the `psnr_y` of `compare` alone. Raises DataError as it does."""
    return psnr(*_planes(truth, found, border, grey, key)[0])


def _planes(
    truth: np.ndarray, found: np.ndarray, border: int, grey: Grey, key: str
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Crop both pictures, and return their Y planes and their RGB."""
    both = [_cropped(p, border, key) for p in (truth, found)]
    if truth.shape[:2] != found.shape[:2]:
        sizes = [f"{p.shape[1]} x {p.shape[0]}" for p in (found, truth)]
        raise DataError(f"the upscaled picture has {sizes[0]} pixels, the true one {sizes[1]}")
    rgb = [p.repeat(3, 2) if p.shape[2] == 1 else p for p in both]
    own = grey == "own" and any(p.shape[2] == 1 for p in both)
    return ([_grey_plane(p) for p in both] if own else [luma(p) for p in rgb]), rgb


def _cropped(pixels: np.ndarray, border: int, key: str) -> np.ndarray:
    """Bring a picture to float64 `(H, W, C)` from 0 to 255, without its border."""
    if pixels.dtype not in (np.uint8, np.uint16):
        raise DataError(f"pixels of the kind {pixels.dtype} cannot be scored: expected uint8 or uint16")
    pixels = pixels[:, :, None] if pixels.ndim == 2 else pixels
    if pixels.ndim != 3 or pixels.shape[2] not in (1, 3):
        raise DataError(f"pixels of the shape {pixels.shape} cannot be scored: expected (H, W, 1) or (H, W, 3)")
    height, width = pixels.shape[:2]
    if min(height, width) < 2 * border + _WINDOW:
        raise DataError(
            f"{width} x {height} pixels are too few: without a border of {border} pixels ({key}=), {_WINDOW} x {_WINDOW} must be "
            "left"
        )
    values = pixels[border : height - border, border : width - border].astype(np.float64)
    return values / _TO_8_BITS if pixels.dtype == np.uint16 else values


def _grey_plane(pixels: np.ndarray) -> np.ndarray:
    """Return the plane of a grey picture, which may be stored as three equal ones."""
    if pixels.shape[2] == 3 and (pixels != pixels[:, :, :1]).any():
        raise DataError(
            "grey=own scores a grey picture against a grey one, and one of the two has colours: leave it out"
        )
    return pixels[:, :, 0]


@dataclass(frozen=True)
class Summary:
    """The means over pictures by name, their 95 % intervals (bootstrap over pictures), and lines that people read."""

    metrics: dict[str, float | None]
    intervals: dict[str, tuple[float, float]]
    notes: tuple[str, ...] = ()


def summary(records: Iterable[Mapping[str, float]], groups: np.ndarray | None = None) -> Summary:
    """Average what `compare` gave of each picture.

    A PSNR of infinity (a picture that equals the truth) is in no mean: a note says of how many pictures. Where all are, the
    mean is None. Nothing is capped. With `groups` `(N,)`, numbers from 0, intervals are over whole groups.
    """
    rows = list(records)
    names = list(dict.fromkeys(name for row in rows for name in row))
    if not rows:
        return Summary(dict.fromkeys(METRICS), {})
    values = np.array([[row[name] for name in names] for row in rows], np.float64)
    there = np.isfinite(values).astype(np.float64)
    finite = np.where(there > 0, values, 0.0)

    def means(weights: np.ndarray) -> np.ndarray:
        counts = weights @ there
        return np.where(counts > 0, weights @ finite / np.maximum(counts, 1), np.nan)

    mean, ends = means(np.ones((1, len(rows))))[0], bootstrap(means, len(rows), groups=groups)
    known = {name: n for n, name in enumerate(names) if not np.isnan(mean[n])}
    return Summary(
        {name: float(mean[known[name]]) if name in known else None for name in names},
        {name: (float(ends[0, n]), float(ends[1, n])) for name, n in known.items()},
        tuple(
            f"{name}: {'all' if left == len(rows) else left} of {len(rows)} pictures equal the truth there: their PSNR is "
            f"infinite, and they are not in the mean"
            for name, left in zip(names, (len(rows) - there.sum(0)).astype(int).tolist(), strict=True)
            if left
        ),
    )
