"""95 % intervals: Wilson's for a share, the bootstrap over samples, or over groups of them, for everything else."""

from collections.abc import Callable, Iterator
from statistics import NormalDist

import numpy as np

LEVEL = 0.95
RESAMPLES = 1000


def wilson(hits: np.ndarray, trials: np.ndarray, level: float = LEVEL) -> tuple[np.ndarray, np.ndarray]:
    """Compute the low and high end of Wilson's score interval for `hits` of `trials`, elementwise, in float64.

    They are 0 and 1 where nothing was tried. Source: Wilson 1927; Brown, Cai, DasGupta 2001, section 3.1.1.
    """
    hits, trials = np.asarray(hits, np.float64), np.asarray(trials, np.float64)
    z = NormalDist().inv_cdf(0.5 + level / 2)
    n = np.maximum(trials, 1)
    share = hits / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * np.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    low = np.where(hits == 0, 0.0, centre - half)  # exact ends, which rounding would miss by 1e-17
    high = np.where(hits == trials, 1.0, centre + half)
    return np.where(trials == 0, 0.0, low), np.where(trials == 0, 1.0, high)


def resamples(samples: int, count: int = RESAMPLES, seed: int = 0) -> Iterator[np.ndarray]:
    """Draw `samples` samples with replacement, `count` times, and count how often each is drawn.

    Yields `(R, samples)` float64 blocks of about 16 MB at most (or one row); all their R sum to `count`.
    """
    draw = np.random.Generator(np.random.PCG64(seed))
    block = max(1, 2_000_000 // samples)
    for first in range(0, count, block):
        rows = min(block, count - first)
        drawn = draw.integers(0, samples, size=(rows, samples), dtype=np.int64)
        drawn += samples * np.arange(rows)[:, None]
        yield np.bincount(drawn.ravel(), minlength=rows * samples).reshape(rows, samples).astype(np.float64)


def bootstrap(
    statistics: Callable[[np.ndarray], np.ndarray],
    samples: int,
    count: int = RESAMPLES,
    seed: int = 0,
    level: float = LEVEL,
    groups: np.ndarray | None = None,
) -> np.ndarray:
    """Compute percentile bootstrap intervals of M statistics of the same samples: `(2, M)` float64, low ends first.

    `statistics` takes `(R, samples)` weights (how often each sample counts) to `(R, M)` values, with NaN for what a
    resample cannot give; these are left out. An interval is NaN where no resample gives the statistic. With `groups`
    `(samples,)`, numbers from 0, whole groups are drawn, so that the weights' sum differs from resample to resample:
    samples of one group (a person, a video) are alike, and say less than as many that are not. Source: Efron and Tibshirani
    1993, ch. 13; Davison and Hinkley 1997, section 3.8 (groups).
    """
    if groups is None:
        values = np.concatenate([statistics(weights) for weights in resamples(samples, count, seed)])
    else:
        drawn = np.concatenate([*resamples(int(groups.max()) + 1, count, seed)])
        block = max(1, 2_000_000 // samples)
        values = np.concatenate([statistics(drawn[at : at + block][:, groups]) for at in range(0, count, block)])
    ends = np.full((2, values.shape[1]), np.nan)
    for column in range(values.shape[1]):
        known = values[:, column][~np.isnan(values[:, column])]
        if len(known):
            ends[:, column] = np.quantile(known, [(1 - level) / 2, (1 + level) / 2])
    return ends


def over_groups(groups: np.ndarray | None, unit: str = "samples") -> tuple[np.ndarray | None, tuple[str, ...]]:
    """Return the groups that intervals are over, and a line that says so; none where nothing says groups.

    `groups` `(N,)` are numbers from 0. Of a single group nothing can be drawn: the interval is over its samples, which is said.
    """
    if groups is None or not len(groups):
        return None, ()
    count = int(groups.max()) + 1
    if count < 2:
        return None, (f"all {unit} are of one group: intervals are over its {unit}, and say nothing of other groups",)
    return groups, (f"intervals are over {count} groups of {unit} (whole groups are drawn)",)
