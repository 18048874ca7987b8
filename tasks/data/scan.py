"""Decode a whole split before training starts, to find what on_bad_sample=skip leaves out."""

from functools import partial

from trunkline.ground.errors import DataError, Undecided

from ..images.decode import HOW_TO_GO_ON
from ..samples import Samples
from .file_loaders import Crash, run_all


def scan(samples: Samples, loaders: int | None = None, progress: bool = True) -> dict[str, str]:
    """Decode every sample, and return id to reason of those that cannot be used, as `samples.without` takes it.

    `loaders` processes (None: one a core; 0: this one, which a crashing decoder ends). Raises Undecided where the data
    has two readings: leaving out samples would hide it.
    """
    reasons: dict[str, str] = {}
    for i, what in run_all(partial(_why_not, samples), len(samples), loaders, "decoding", progress):
        if what is not None:
            reasons[samples.id(i)] = what.what if isinstance(what, Crash) else what
    return dict(sorted(reasons.items()))


def _why_not(samples: Samples, index: int) -> str | None:
    try:
        samples[index]
    except Undecided:
        raise
    except DataError as error:
        return getattr(error, "what", "") or str(error).removesuffix(f"; {HOW_TO_GO_ON}")
    return None
