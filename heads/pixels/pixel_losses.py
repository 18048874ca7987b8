"""Losses of a class for every pixel: cross-entropy, Dice, focal and Lovász, weighted and summed."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.nn import functional as F

from trunkline.ground.errors import WeightsError

from ..contract import VOID


@dataclass(frozen=True)
class Weighted:
    """The weight of each loss in their sum (0 leaves it out), and the classes' weights in the cross-entropy."""

    cross_entropy: float = 1.0
    dice: float = 0.0
    focal: float = 0.0
    lovasz: float = 0.0
    class_weights: tuple[float, ...] = ()


def pixel_losses(logits: Tensor, truth: Tensor, weighted: Weighted) -> dict[str, Tensor]:
    """Compute the losses whose weight is not 0, by name, each times its weight: scalars from logits `(N, K, H, W)`.

    `truth` is `(N, H, W)` int64 from 0, 255 where there is no class. All losses are over the micro-batch's pixels that
    have a class; where none has, all are 0. Cross-entropy is torch's mean (divided by the sum of the pixels' class
    weights). The others are those of segmentation-models-pytorch: Dice over the classes that are there (Milletari et
    al. 2016), focal with gamma 2 (Lin et al. 2017), Lovász-softmax (Berman et al. 2018).
    """
    found: dict[str, Tensor] = {}
    if weighted.cross_entropy:
        weights = logits.new_tensor(weighted.class_weights) if weighted.class_weights else None
        by_device = _cross_entropy if logits.device.type == "cpu" else cross_entropy_by_rows
        found["cross_entropy"] = by_device(logits, truth, weights)
    others = [name for name in ("dice", "focal", "lovasz") if getattr(weighted, name)]
    somewhere = bool(others) and bool((truth != VOID).any())
    for name in others:
        found[name] = _others(name)(logits, truth) if somewhere else logits.sum() * 0.0
    return {name: value * getattr(weighted, name) for name, value in found.items()}


def _cross_entropy(logits: Tensor, truth: Tensor, weights: Tensor | None) -> Tensor:
    if not (truth != VOID).any():
        return logits.sum() * 0.0
    return F.cross_entropy(logits, truth, weights, ignore_index=VOID)


def cross_entropy_by_rows(logits: Tensor, truth: Tensor, weights: Tensor | None) -> Tensor:
    """Compute the cross-entropy of logits `(N, K, H, W)` from one row for each pixel, for devices other than the CPU.

    torch's form for maps is not deterministic on CUDA. Where no pixel has a class the loss is 0, without a test that
    would wait for the device. `truth` is `(N, H, W)` int64, `weights` `(K,)` or None.
    """
    rows, labels = logits.permute(0, 2, 3, 1).flatten(0, 2), truth.flatten()
    known = labels != VOID
    total = F.cross_entropy(rows, labels, weights, ignore_index=VOID, reduction="sum")
    if weights is None:
        return total / known.sum().clamp(min=1)
    counted = (weights[labels.where(known, 0)] * known).sum()
    return total / counted.where(counted > 0, 1.0)


def _others(name: str) -> Any:
    try:
        from segmentation_models_pytorch import losses
    except ImportError:
        raise WeightsError(
            f"the loss {name} needs segmentation-models-pytorch: pip install 'trunkline[segmentation]'"
        ) from None
    kinds: dict[str, Any] = {"dice": losses.DiceLoss, "focal": losses.FocalLoss, "lovasz": losses.LovaszLoss}
    return kinds[name]("multiclass", ignore_index=VOID)
