"""A network's tensors for tests of files: ResNet-18's names, and shapes that make its architecture known, in 40 KB."""

import torch
import torchvision


def small(classes: int = 2, seed: int = 0) -> dict[str, torch.Tensor]:
    """ResNet-18's tensors at random, most convolutions cut to one input channel and one weight; 122 of them."""
    torch.manual_seed(seed)
    with torch.device("meta"):
        whole = torchvision.models.resnet18(num_classes=classes).state_dict()
    kept = ("conv1.weight", "layer1.0.conv2.weight")
    shapes = {n: t.shape if t.dim() < 4 or n in kept else (t.shape[0], 1, 1, 1) for n, t in whole.items()}
    return {n: torch.rand(shape) if shape else torch.tensor(0) for n, shape in shapes.items()}
