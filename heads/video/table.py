"""The heads for clips, as data. Imports no torch."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """What stands between the features of a clip's steps and its classifier.

    over_time  `module:name` of the class that makes one vector of `(N, T, C)`
    width      of what it learns; 0 where it learns nothing, which is blind to the order of the steps
    layers     how many
    """

    over_time: str
    width: int = 0
    layers: int = 0


_HERE = "trunkline.heads.video.over_time"
HEADS: dict[str, Row] = {
    "average": Row(f"{_HERE}:Mean"),
    "lstm": Row(f"{_HERE}:Recurrent", width=128, layers=1),
    "transformer": Row(f"{_HERE}:Encoder", width=128, layers=2),
    "pool3d": Row(f"{_HERE}:Mean"),
}
"""`average` on a 3-D trunk and `pool3d` are one computation under the names that 2-D and 3-D networks know it by."""
