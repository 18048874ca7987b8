"""Average precision of classes that are there or not, of pictures that count several times or not at all."""

import numpy as np


class Ranking:
    """The known pictures of one class by falling score, to be scored under any weights of theirs.

    Average precision is the sum over the distinct scores, from the highest, of (recall here - recall before) x precision here,
    each over the pictures with this score or a higher one (scikit-learn's `average_precision_score`): no interpolation, and
    pictures of equal scores come in at once, so that their order does not matter.

    scores  `(n,)`, of the class in each picture
    truth   `(n,)` int8: 1 there, 0 not there, -1 unknown: such a picture counts for nothing
    """

    def __init__(self, scores: np.ndarray, truth: np.ndarray) -> None:
        known = np.flatnonzero(truth >= 0)
        self.order = known[np.argsort(-scores[known], kind="stable")]
        self.there = truth[self.order] == 1
        falling = scores[self.order]
        self.ends = np.flatnonzero(np.r_[falling[1:] != falling[:-1], True]) if len(falling) else np.zeros(0, np.int64)

    def average_precision(self, weights: np.ndarray) -> np.ndarray:
        """Compute it `(R,)` float64 where picture i counts `weights[r, i]` times; NaN where the class is in none."""
        own = weights[:, self.order]
        hits = np.cumsum(own * self.there, 1)[:, self.ends]
        counted = np.cumsum(own, 1)[:, self.ends]
        objects = hits[:, -1] if hits.shape[1] else np.zeros(len(weights))
        gained = np.diff(hits, axis=1, prepend=0.0)
        precision = np.divide(hits, counted, out=np.zeros_like(hits), where=counted > 0)
        return np.divide((gained * precision).sum(1), objects, out=np.full(len(weights), np.nan), where=objects > 0)
