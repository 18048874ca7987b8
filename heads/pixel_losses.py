"""Losses of a class for every pixel: cross-entropy, Dice, focal and Lovász, weighted and summed."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.nn import functional as F

from ..backbones.contract import WeightsError
from .contract import VOID


@dataclass(frozen=True)
class Weighted:
    """The weight of each loss in their sum (0 leaves it out), and the classes' weights in the cross-entropy."""

    cross_entropy: float = 1.0
    dice: float = 0.0
    focal: float = 0.0
    lovasz: float = 0.0
    class_weights: tuple[float, ...] = ()


def pixel_losses(logits: Tensor, truth: Tensor, weighted: Weighted) -> dict[str, Tensor]:
    """The losses whose weight is not 0, by name, each times its weight: scalars of logits `(N, K, H, W)`.

    `truth` is `(N, H, W)` int64 from 0, 255 where there is no class. All are over the pixels of the micro-batch that have
    one; where none has, all are 0. Cross-entropy is torch's mean (divided by the sum of the pixels' class weights); the
    others are those of segmentation-models-pytorch: Dice over the classes that are there (Milletari et al. 2016), focal
    with gamma 2 (Lin et al. 2017), Lovász-softmax (Berman et al. 2018).
    """
    nothing = logits.sum() * 0.0
    somewhere = bool((truth != VOID).any())
    found: dict[str, Tensor] = {}
    if weighted.cross_entropy:
        found["cross_entropy"] = _cross_entropy(logits, truth, weighted.class_weights) if somewhere else nothing
    for name in ("dice", "focal", "lovasz"):
        if getattr(weighted, name):
            found[name] = _others(name)(logits, truth) if somewhere else nothing
    return {name: value * getattr(weighted, name) for name, value in found.items()}


def _cross_entropy(logits: Tensor, truth: Tensor, class_weights: tuple[float, ...]) -> Tensor:
    weights = logits.new_tensor(class_weights) if class_weights else None
    return F.cross_entropy(logits, truth, weights, ignore_index=VOID)


def _others(name: str) -> Any:
    try:
        from segmentation_models_pytorch import losses
    except ImportError:
        raise WeightsError(
            f"the loss {name} needs segmentation-models-pytorch: pip install 'trunkline[segmentation]'"
        ) from None
    kinds: dict[str, Any] = {"dice": losses.DiceLoss, "focal": losses.FocalLoss, "lovasz": losses.LovaszLoss}
    return kinds[name]("multiclass", ignore_index=VOID)
