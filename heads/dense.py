"""How a head without anchors learns what lies at each place of each level: which places an object has, and what that costs.

One code for boxes in pictures and for events in time: an event is a box of height 1, from `(start, 0)` to `(end, 1)`, and its
places are `(x, 0.5)`, in steps. Assignment and targets of Feng et al. 2021, "TOOD", section 3.2; the loss of classes of Li et al.
2020, "Generalized Focal Loss", equation 2; that of boxes of Rezatofighi et al. 2019, "Generalized Intersection over Union".
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import box_iou, generalized_box_iou_loss

ALPHA, BETA = 0.5, 6.0  # exponents of score and overlap in the measure by which places are chosen
TOP = 10  # places that an object may have
GAMMA = 2.0  # the larger, the less a place counts that is nearly right
BOXES = 2.0  # weight of the boxes' loss
START = 4.0  # strides from a place to each side before anything is learnt
PRIOR = 0.01  # score of every class before anything is learnt


def dense_losses(
    logits: Tensor,
    boxes: Tensor,
    places: Tensor,
    strides: Tensor,
    truth: Sequence[Tensor],
    labels: Sequence[Tensor],
    valid: Tensor | None = None,
) -> dict[str, Tensor]:
    """Compute `classes` and `boxes`: sums over the micro-batch, divided by its sum of target scores (at least 1).

    `logits` `(N, A, K)`, `boxes` `(N, A, 4)`, `places` `(A, 2)` and `strides` `(A,)` are what a head says; `truth` has `(n, 4)`
    fp32 for each sample, `labels` `(n,)` int64 from 0. Places that are not `valid` `(N, A)` count for nothing.
    """
    wanted = torch.zeros_like(logits)
    kept, sought, weights = [], [], []
    for i, (own, names) in enumerate(zip(truth, labels, strict=True)):
        if not len(own):
            continue
        real: Any = slice(None) if valid is None else valid[i].nonzero()[:, 0]
        said = logits[i, real].detach().sigmoid(), boxes[i, real].detach(), places[real], strides[real]
        at, of, quality = assign(*said, own, names)
        at = at if valid is None else real[at]
        wanted[i, at, names[of]] = quality
        kept.append(boxes[i, at])
        sought.append(own[of])
        weights.append(quality)
    total = wanted.sum().clamp(min=1.0)
    each = F.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
    each = each * (logits.sigmoid() - wanted).abs().pow(GAMMA)
    classes = (each if valid is None else each * valid[..., None]).sum() / total
    if not kept:
        return {"classes": classes, "boxes": boxes.sum() * 0.0}
    apart = generalized_box_iou_loss(torch.cat(kept), torch.cat(sought))
    return {"classes": classes, "boxes": BOXES * (apart * torch.cat(weights)).sum() / total}


def assign(
    scores: Tensor, boxes: Tensor, places: Tensor, strides: Tensor, truth: Tensor, labels: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Match places to the objects of one image: places `(P,)`, their objects `(P,)`, and target scores `(P,)` of 0..1.

    `scores` `(A, K)` and `boxes` `(A, 4)` are what the `places` `(A, 2)` say now; `truth` `(n, 4)` and `labels` `(n,)`
    are the objects. A place's measure for an object is score**ALPHA times overlap**BETA. An object takes the TOP best
    places within its box. Where its box holds no place, it takes the nearest one; where no box overlaps it yet, the
    place inside that is nearest its centre. A place that several objects want goes to the one that it overlaps most.
    The targets are the measures, scaled so that the best place of an object has the object's best overlap.
    """
    overlap = box_iou(truth, boxes)
    inside = ((places[None] > truth[:, None, :2]) & (places[None] < truth[:, None, 2:])).all(2)
    empty = ~inside.any(1)
    if empty.any():
        centres = (truth[empty, :2] + truth[empty, 2:]) / 2
        near = torch.cdist(centres, places) + strides[None]  # at the same distance the finer level
        inside[torch.nonzero(empty)[:, 0], near.argmin(1)] = True
    measure = scores[:, labels].T.pow(ALPHA) * overlap.pow(BETA) * inside
    best, at = measure.topk(min(TOP, measure.shape[1]), dim=1)
    chosen = torch.zeros_like(inside)
    chosen.scatter_(1, at, best > 0)
    lacking = torch.nonzero(~chosen.any(1))[:, 0]  # no box overlaps it yet: the place nearest its centre
    if len(lacking):
        centres = (truth[lacking, :2] + truth[lacking, 2:]) / 2
        far = torch.cdist(centres, places).masked_fill(~inside[lacking], math.inf)
        chosen[lacking, far.argmin(1)] = True
    owner = torch.where(chosen, overlap, -1.0).argmax(0)
    place = torch.nonzero(chosen.any(0))[:, 0]
    of = owner[place]
    own = torch.zeros_like(measure)
    own[of, place] = measure[of, place]
    reached = torch.zeros_like(overlap)
    reached[of, place] = overlap[of, place]
    share = own[of, place] / own.max(1).values.clamp(min=torch.finfo(own.dtype).tiny)[of]
    return place, of, (share * reached.max(1).values[of]).clamp(0.0, 1.0)


def best_of_levels(
    scores: Tensor, strides: Tensor, levels: Sequence[int], least: float, most: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Choose candidates: of each level the `most` best scores above `least`; their places, classes and scores, `(P,)` each.

    `scores` are `(A, K)`, `strides` `(A,)` says the level of each place by its stride, `levels` lists them.
    """
    rows, labels, values = [], [], []
    for stride in levels:
        own = torch.nonzero(strides == stride)[:, 0]
        level = scores[own].flatten()
        above = torch.nonzero(level > least)[:, 0]
        best = above[level[above].argsort(descending=True, stable=True)[:most]]
        rows.append(own[best // scores.shape[1]])
        labels.append(best % scores.shape[1])
        values.append(level[best])
    return torch.cat(rows), torch.cat(labels), torch.cat(values)
