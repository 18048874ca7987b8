"""From the name of a trunk for clips to the trunk, as far as it is not made of a 2-D one."""

from trunkline.ground.errors import WeightsError

from ..norm import norm_layer
from ..residual import Staged
from .c3d import C3D
from .residual3d import residual3d
from .slowfast import SlowFast

_SLOWFAST = {"slowfast_r50": (4, 7), "slowfast_r50_4x16": (8, 5)}
"""Of each, alpha and the frames of its lateral connections: 8 x 8 and 4 x 16 of the paper's table 1 and of PySlowFast."""


def clip_trunk(name: str, norm: str = "batch") -> Staged:
    """Build R3D-18, MC3-18, R(2+1)D-18, C3D or SlowFast with torch's random values; `norm` is a policy of `norm_layer`.

    Raises WeightsError for an unknown policy, and for any but batch where there are no norms.
    """
    if name == "c3d" and norm != "batch":
        raise WeightsError(f"norm={norm}: c3d has no norms; leave it out")
    layer = norm_layer(norm, clips=True)
    if name == "c3d":
        return C3D()
    return SlowFast(*_SLOWFAST[name], layer) if name in _SLOWFAST else residual3d(name, layer)
