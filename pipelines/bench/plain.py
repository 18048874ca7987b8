"""Plain torchvision loops, as anybody would write them from its references: what `bench` measures us beside."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import nn
from torchvision import datasets, transforms
from torchvision.transforms.functional import InterpolationMode

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def train_transform(size: int) -> Callable:
    """Build the references' training preset with its defaults: Pillow crop and flip, then normalise.

    It turns a Pillow picture into `(3, size, size)` float32.
    """
    return transforms.Compose(
        [
            transforms.RandomResizedCrop(size, interpolation=InterpolationMode.BILINEAR, antialias=True),
            transforms.RandomHorizontalFlip(),
            transforms.PILToTensor(),
            transforms.ConvertImageDtype(torch.float),
            transforms.Normalize(MEAN, STD),
        ]
    )


def loader(folder: Path, size: int, batch: int, workers: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Iterate once over an `ImageFolder` with that preset: `(B, 3, S, S)` float32 images and `(B,)` int64 labels."""
    photos = (".jpg", ".jpeg", ".png")
    data = datasets.ImageFolder(str(folder), train_transform(size), is_valid_file=lambda p: p.lower().endswith(photos))
    return iter(
        torch.utils.data.DataLoader(data, batch, shuffle=True, num_workers=workers, drop_last=True, pin_memory=False)
    )


def sgd(model: nn.Module, lr: float, beside: torch.optim.Optimizer) -> torch.optim.SGD:
    """Build torch's SGD with momentum in our two groups (norms and biases do not decay), as `beside` is foreach or fused."""
    learning = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": own, "weight_decay": decay}
        for decay, wide in ((1e-4, True), (0.0, False))
        if (own := [p for p in learning if (p.ndim > 1) == wide])
    ]
    ours = beside.param_groups[0]
    return torch.optim.SGD(groups, lr, momentum=0.9, foreach=ours["foreach"], fused=ours["fused"])


class Loop:
    """The references' `train_one_epoch` body: forward, loss, zero_grad, backward, step."""

    def __init__(self, arch: str, classes: int, precision: str, channels_last: bool, device: str, beside: Any):
        self.precision, self.device = precision, torch.device(device)
        self.net = torchvision.models.get_model(arch, num_classes=classes).to(self.device)
        self.format = torch.channels_last if channels_last else torch.contiguous_format
        self.net = self.net.to(memory_format=self.format)  # type: ignore[call-overload]
        self.net.train()
        self.loss = nn.CrossEntropyLoss()
        self.optimizer = sgd(self.net, 0.01, beside)

    def predict(self, images: torch.Tensor) -> torch.Tensor:
        """Compute the probabilities `(N, K)` of `(N, 3, H, W)` float32 images, on the CPU."""
        self.net.eval()
        images = images.contiguous(memory_format=self.format)
        with torch.inference_mode(), torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            found = self.net(images).float().softmax(1).cpu()
        self.net.train()
        return found

    def update(self, images: torch.Tensor, labels: torch.Tensor) -> float:
        """Take one step with `(N, 3, H, W)` float32 images and `(N,)` int64 labels, and return the loss.

        The loss is read in every step, as the references' metric logger does.
        """
        images, labels = images.to(self.device), labels.to(self.device)
        images = images.contiguous(memory_format=self.format)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            loss = self.loss(self.net(images), labels)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss.item()
