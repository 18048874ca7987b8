"""Learning against a critic: what decides it, as data, and the losses on the critic's logits. Imports no torch by itself.

A critic gives a logit for each picture, high for a real one. Losses are means over a micro-batch, and so are the means
within the relativistic one. The weight is the generator's alone; the critic's losses have the weight 1.
"""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from trunkline.ground.ranges import COUNT, POSITIVE, Range, ranged

if TYPE_CHECKING:
    from torch import Tensor

WEIGHT = Range(0, 1e9)
KINDS = ("vanilla", "least_squares", "relativistic")


@dataclass(frozen=True)
class Adversarial:
    """How a generator learns against a critic, once it has learnt from pixels.

    kind     vanilla        cross-entropy of logits (Goodfellow et al. 2014), the generator's that does not saturate
             least_squares  of logits to 1 for real ones and 0 for made ones (Mao et al. 2017, b = c = 1, a = 0), not halved
             relativistic   each logit less the mean of the other kind's (Jolicoeur-Martineau 2018, RaSGAN), halved
    weight   of the critic's opinion in the generator's loss
    pixel    of the pixel loss beside it; 0 leaves it out
    reuse    the critic sees the pictures made before the generator's step, as in BasicSR, in place of new ones
    warmup   updates at the start of the phase in which the critic learns alone (BasicSR's net_d_init_iters)
    critic, width, norm  as in `make_critic`
    """

    kind: Literal["vanilla", "least_squares", "relativistic"] = "vanilla"
    weight: float = ranged(5e-3, WEIGHT)
    pixel: float = ranged(1e-2, WEIGHT)
    reuse: bool = False
    warmup: int = ranged(0, COUNT)
    critic: Literal["srgan", "vgg"] = "vgg"
    width: int = ranged(64, POSITIVE)
    norm: Literal["batch", "spectral"] = "batch"


@dataclass(frozen=True)
class Perceptual:
    """The distance of two pictures in the maps of a network that does not learn.

    weights    the network: a file of torchvision's VGG-19 or its name (vgg19), or what a trunk takes as its weights
    layers     the weight of each map: conv5_4 is VGG's before the ReLU, relu5_4 after it; c3, c4, … are a trunk's
    criterion  the mean of absolute (l1) or squared (mse) differences of a map
    weight     of their sum
    rescale    what maps are multiplied by before they are compared (Ledig et al. 2017: 1/12.75)
    """

    weights: str = ""
    layers: dict[str, float] = field(default_factory=lambda: {"conv5_4": 1.0}, metadata={"within": WEIGHT})
    criterion: Literal["l1", "mse"] = "l1"
    weight: float = ranged(1.0, WEIGHT)
    rescale: float = ranged(1.0, Range(0, 1e6, "a number above 0", low_in=False))

    def problems(self) -> list[str]:
        """List maps that cannot be of one network."""
        ours = [name for name in self.layers if is_trunks(name)]
        if not self.layers:
            return ["layers: expected at least one map, as conv5_4 or c4"]
        if ours and len(ours) < len(self.layers):
            return [f"layers={','.join(self.layers)}: maps of VGG-19 (conv5_4) and of a trunk (c4) do not go together"]
        return []


def is_trunks(layer: str) -> bool:
    """Say whether a map's name is a trunk's (c1, c2, …)."""
    return layer[:1] == "c" and layer[1:].isdigit()


def _softplus(logits: "Tensor") -> Any:
    from torch.nn import functional as F

    return F.softplus(logits)


def _at_odds(kind: str, real: "Tensor", fake: "Tensor") -> "tuple[Tensor, Tensor]":
    """Return what is judged of real and made pictures: the logits, or what they are above the other kind's mean."""
    if kind == "relativistic":
        return real - fake.mean(), fake - real.mean()
    return real, fake


def _towards(kind: str, logits: "Tensor", real: bool) -> "Tensor":
    """Compute the mean loss of logits that should say real, or made."""
    if kind == "least_squares":
        return (logits - float(real)).square().mean()
    loss = _softplus(-logits if real else logits).mean()  # cross-entropy with logits
    return loss * 0.5 if kind == "relativistic" else loss


def critic_losses(kind: str, real: "Tensor", fake: "Tensor") -> "dict[str, Tensor]":
    """Compute a critic's losses `real` and `fake`, scalars, of logits `(N, 1)` of real and of made pictures.

    The gradient of the relativistic ones flows through both means too (BasicSR cuts it there).
    """
    real, fake = _at_odds(kind, real, fake)
    return {"real": _towards(kind, real, True), "fake": _towards(kind, fake, False)}


def generator_loss(kind: str, fake: "Tensor", real: "Tensor | None" = None) -> "Tensor":
    """Compute a generator's loss, a scalar, of the logits `(N, 1)` of what it made, and without a weight.

    The relativistic one needs the logits of the real pictures too, which have no gradient: real ones should seem made.
    """
    if kind != "relativistic":
        return _towards(kind, fake, True)
    assert real is not None
    real, fake = _at_odds(kind, real, fake)
    return _towards(kind, real, False) + _towards(kind, fake, True)


def accuracies(kind: str, real: "Tensor", fake: "Tensor") -> "dict[str, Tensor]":
    """Compute the shares of real and of made pictures that the critic tells right, as scalars in fp32, on the device."""
    middle = 0.5 if kind == "least_squares" else 0.0
    real, fake = _at_odds(kind, real, fake)
    return {"real": (real > middle).float().mean(), "fake": (fake < middle).float().mean()}
