"""The fully connected CRF: the plain sum, its approximation, and that it follows edges."""

import pytest
import torch

from trunkline.tasks.segmentation.crf import Crf, _normalised, _pairs, lattice, refine


def scene(side: int, noise: float = 4.0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """A picture of two colours, what is true there, and probabilities that are wrong near the edge."""
    torch.manual_seed(0)
    rows, columns = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    truth = ((rows - side / 2) ** 2 + (columns - side / 2) ** 2 < (side / 3) ** 2).long()
    image = torch.tensor([[40.0, 60, 200], [200, 120, 30]])[truth].permute(2, 0, 1)
    image = (image + noise * torch.randn(image.shape)).clamp(0, 255).byte()
    coarse = torch.nn.functional.one_hot(truth, 3).permute(2, 0, 1).float()[None]
    coarse = torch.nn.functional.interpolate(
        torch.nn.functional.avg_pool2d(coarse, 8), size=(side, side), mode="bilinear"
    )
    return image, truth, (3 * coarse[0] + torch.randn(3, side, side)).softmax(0)


def plain(probabilities: torch.Tensor, image: torch.Tensor, crf: Crf) -> torch.Tensor:
    """Mean-field by the formula, both sums over all pairs, in double precision."""
    classes, height, width = probabilities.shape
    unary = probabilities.double().log().reshape(classes, -1).T
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    place, colour = torch.stack([rows, columns], -1).reshape(-1, 2).double(), image.reshape(3, -1).T.double()

    def squares(points: torch.Tensor, sigma: float) -> torch.Tensor:
        return ((points[:, None] - points[None]) / sigma).square().sum(-1)

    kernels = [crf.near * scaled(torch.exp(-squares(place, crf.near_width) / 2))]
    both = squares(place, crf.alike_width) + squares(colour, crf.colour_width)
    kernels.append(crf.alike * scaled(torch.exp(-both / 2)))
    found = unary.softmax(1)
    for _ in range(crf.steps):
        found = (unary + sum(kernel @ found for kernel in kernels)).softmax(1)
    return found.T.reshape(classes, height, width)


def scaled(kernel: torch.Tensor) -> torch.Tensor:
    root = kernel.sum(1).rsqrt()
    return root[:, None] * kernel * root


def test_small_pictures_are_the_plain_sum_and_the_lattice_is_near_it():
    image, _, probabilities = scene(32)
    wanted = plain(probabilities, image, Crf())
    assert (refine(probabilities, image) - wanted).abs().max() < 1e-3
    near = refine(probabilities, image, exact=0)
    assert (near - wanted).abs().mean() < 1e-3 and (near.argmax(0) == wanted.argmax(0)).float().mean() > 0.995


def test_it_follows_the_edges_of_the_picture():
    image, truth, probabilities = scene(96)
    before = (probabilities.argmax(0) == truth).float().mean()
    after = (refine(probabilities, image).argmax(0) == truth).float().mean()
    assert before < 0.97 and after > 0.99


@pytest.mark.parametrize("dims", [1, 2, 5])
def test_the_lattice_is_a_blur_with_a_gaussians_width(dims):
    torch.manual_seed(1)
    points, values = torch.randn(500, dims) * 1.5, torch.rand(500, 2)
    wanted, found = (_normalised(kernel(points), 500)(values) for kernel in (_pairs, lattice))
    assert (wanted - found).abs().mean() < (0.06 if dims < 3 else 0.12) * wanted.abs().mean()  # far apart: its worst
    assert lattice(points)(values * 3).allclose(3 * lattice(points)(values), rtol=1e-4)
