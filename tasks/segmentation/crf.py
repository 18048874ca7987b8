"""A fully connected CRF that lets classes follow a picture's edges.

Krähenbühl and Koltun 2011, "Efficient Inference in Fully Connected CRFs with Gaussian Edge Potentials"; the weights are
those of Chen et al. 2018, "DeepLab", for VOC 2012. Sums over all pixels by a lattice: Adams, Baek and Davis 2010, "Fast
High-Dimensional Filtering Using the Permutohedral Lattice".
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

EXACT = 4096
"""Up to so many pixels the sum over all pairs is taken as it stands; from there on by the lattice."""
MOST = 2_000_000
"""Pixels of a picture that the lattice is built for: with 21 classes and a noisy picture it then takes 6 GiB."""
_CUT = 5.0  # widths of a Gaussian beyond which it counts as 0
Sum = Callable[[Tensor], Tensor]
"""From `(N, K)` to the sum over all pixels, by a kernel, `(N, K)`."""


@dataclass(frozen=True)
class Crf:
    """Mean-field steps, and the weights and widths (in pixels, and in steps of 0 to 255) of two Gaussian kernels."""

    steps: int = 10
    near: float = 3.0  # weight of the kernel of positions
    near_width: float = 1.0
    alike: float = 4.0  # weight of the kernel of positions and colours
    alike_width: float = 67.0
    colour_width: float = 3.0


def refine(probabilities: Tensor, image: Tensor, crf: Crf = Crf(), exact: int = EXACT) -> Tensor:
    """Refine probabilities `(K, H, W)` by mean-field inference; the result is `(K, H, W)` float32 on the CPU.

    `image` is `(3, H, W)` uint8. Potts compatibility. Each kernel is normalised on both sides by the roots of its sums,
    and the sum for a pixel includes the pixel itself, as in the authors' code.
    """
    classes, height, width = probabilities.shape
    unary = probabilities.float().clamp(min=1e-8).log().reshape(classes, -1).T.contiguous()
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    position = torch.stack([rows, columns], -1).reshape(-1, 2).float()
    colour = image.cpu().reshape(3, -1).T.float()
    both = torch.cat([position / crf.alike_width, colour / crf.colour_width], 1)
    dense = height * width <= exact
    kernels = [
        (crf.near, _normalised(_blurred(height, width, crf.near_width), len(unary))),
        (crf.alike, _normalised(_pairs(both) if dense else lattice(both), len(unary))),
    ]
    unary = unary.cpu()
    found = unary.softmax(1)
    for _ in range(crf.steps):
        message = unary.clone()
        for weight, kernel in kernels:
            message += weight * kernel(found)
        found = message.softmax(1)
    return found.T.reshape(classes, height, width)


def _normalised(kernel: Sum, count: int) -> Sum:
    root = (kernel(torch.ones(count, 1)) + 1e-20).rsqrt()
    return lambda values: root * kernel(root * values)


def _pairs(features: Tensor) -> Sum:
    """Build the plain quadratic sum over all pairs of N points `(N, d)`."""
    weights = torch.cdist(features, features).square_().mul_(-0.5).exp_()
    return lambda values: weights @ values


def _blurred(height: int, width: int, sigma: float) -> Sum:
    """Build the sum for positions alone, by a product of two kernels, each cut off where it is below 4e-6."""
    reach = min(max(height, width) - 1, round(_CUT * sigma))
    line = (torch.arange(-reach, reach + 1).float() / sigma).square_().mul_(-0.5).exp_()

    def blur(values: Tensor) -> Tensor:
        classes = values.shape[1]
        grid = values.reshape(1, height, width, classes).permute(0, 3, 1, 2)
        for shape, padding in (((1, 1, -1, 1), (reach, 0)), ((1, 1, 1, -1), (0, reach))):
            grid = F.conv2d(grid, line.reshape(shape).expand(classes, -1, -1, -1), padding=padding, groups=classes)
        return grid.permute(0, 2, 3, 1).reshape(height * width, classes)

    return blur


def lattice(features: Tensor) -> Sum:
    """Build an approximation of `_pairs` for N points `(N, d)`: splat to a lattice's corners, blur there, slice.

    Only corners of simplices that hold points are kept: few where features lie close together.
    """
    dims = features.shape[1]
    corners, weights = _simplices(features)
    numbers, steps = _numbered(corners)
    keys, place = torch.unique(numbers, return_inverse=True)
    none = torch.full_like(keys, len(keys))  # the row of zeros after the others
    own = torch.arange(len(keys))
    blurs = [torch.stack([own, _rows(keys, keys - step, none), _rows(keys, keys + step, none)], 1) for step in steps]
    halves = features.new_tensor([1.0, 0.5, 0.5]).expand(len(keys), 3).contiguous()
    order = place.reshape(-1).argsort(stable=True)
    points, shares = order // (dims + 1), weights.reshape(-1)[order]
    starts = torch.bincount(place.reshape(-1), minlength=len(keys)).cumsum(0).roll(1)
    starts[0] = 0

    def filtered(values: Tensor) -> Tensor:
        zeros = values.new_zeros(1, values.shape[1])
        there = F.embedding_bag(points, values, starts, mode="sum", per_sample_weights=shares)
        for blur in blurs:
            there = F.embedding_bag(blur, torch.cat([there, zeros]), mode="sum", per_sample_weights=halves)
        return F.embedding_bag(place, there, mode="sum", per_sample_weights=weights)

    return filtered


def _simplices(features: Tensor) -> tuple[Tensor, Tensor]:
    """Find the corners of each point's simplex, `(N, d + 1, d)` int64, and the point's weights there, `(N, d + 1)`.

    A corner's last coordinate is left out: it is what makes their sum 0.
    """
    count, dims = features.shape
    # scaled so that splat, blur and slice together spread by 1 (Adams et al., section 3.1)
    scale = (dims + 1) * (2 / 3) ** 0.5 / torch.arange(1, dims + 1).mul(torch.arange(2, dims + 2)).sqrt()
    scaled = features * scale
    later = torch.cat([scaled.flip(1).cumsum(1).flip(1), scaled.new_zeros(count, 1)], 1)
    elevated = later.clone()
    elevated[:, 1:] -= torch.arange(1, dims + 1) * scaled
    nearest = (elevated / (dims + 1)).round()
    zero = nearest * (dims + 1)
    residue = nearest.sum(1).long()
    away = elevated - zero
    rank = torch.empty_like(zero, dtype=torch.int64)
    rank.scatter_(1, away.neg().sort(dim=1, stable=True).indices, torch.arange(dims + 1).expand(count, -1))
    rank += residue[:, None]
    low, high = rank < 0, rank > dims
    zero += (low.float() - high.float()) * (dims + 1)
    rank += (low.long() - high.long()) * (dims + 1)
    away = (elevated - zero) / (dims + 1)
    barycentric = features.new_zeros(count, dims + 2)
    barycentric.scatter_add_(1, dims - rank, away)
    barycentric.scatter_add_(1, dims + 1 - rank, -away)
    weights = barycentric[:, : dims + 1].clone()
    weights[:, 0] += 1 + barycentric[:, dims + 1]
    steps = torch.arange(dims + 1)
    canonical = torch.where(
        rank[:, None, :dims] <= dims - steps[None, :, None], steps[None, :, None], steps[None, :, None] - (dims + 1)
    )
    return zero[:, None, :dims].long() + canonical, weights


def _numbered(corners: Tensor) -> tuple[Tensor, list[int]]:
    """Number the corners `(N, d + 1)`, linearly in their coordinates, and list the d + 1 steps to a neighbour."""
    dims = corners.shape[2]
    low, high = (
        corners.amin((0, 1)) - dims - 1,
        corners.amax((0, 1)) + dims + 2,
    )  # neighbours lie within too, so no two share a number
    radix = [1] * dims
    for axis in range(dims - 2, -1, -1):
        radix[axis] = radix[axis + 1] * int(high[axis + 1] - low[axis + 1])
    numbers = ((corners - low) * torch.tensor(radix)).sum(2)
    return numbers, [(dims + 1) * radix[axis] - sum(radix) if axis < dims else -sum(radix) for axis in range(dims + 1)]


def _rows(keys: Tensor, wanted: Tensor, none: Tensor) -> Tensor:
    """Find the rows of ascending `keys` that hold what is wanted; `none` where no row does."""
    at = torch.searchsorted(keys, wanted).clamp(max=len(keys) - 1)
    return torch.where(keys[at] == wanted, at, none)
