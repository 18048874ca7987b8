"""What a model takes that is called for predictions: tasks that it has, and images of the kind that their heads read."""

import json
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from trunkline.ground.errors import EngineError
from trunkline.ground.names import nearest

SHAPES = {4: "(N, C, H, W)", 5: "(N, C, T, H, W)"}
"""What is given to a model, by rank: pictures, and clips."""
_AS_TENSOR = {
    "ndarray": "; give torch.from_numpy(images), where channels are last with .permute(0, 3, 1, 2)",
    "list": "; of tensors of one size give torch.stack(images)",
    "tuple": "; of tensors of one size give torch.stack(images)",
}
"""How to make a tensor of what is given to a model instead, by its type."""
_AS_UINT8 = {
    True: "floats from 0 to 1 are made so by (images * 255).round().to(torch.uint8), from 0 to 255 by "
    "images.round().to(torch.uint8); the model normalises itself",
    False: "integers from 0 to 255 are made so by images.to(torch.uint8)",
}
"""How to make bytes of floats (True) and of other integers."""


def chosen(tasks: str | Sequence[str], heads: Sequence[str]) -> list[str]:
    """List the tasks that are asked for, of those that have heads. Raises EngineError for one that has none."""
    text = isinstance(tasks, str)
    names = [name.strip() for name in tasks.split(",") if name.strip()] if text else [*tasks]
    if not names or names == ["all"]:
        return [*heads]
    if unknown := [name for name in names if name not in heads]:
        given = f"tasks={tasks if text else ','.join(map(str, tasks))}"
        near = nearest(str(unknown[0]), heads)
        said = "" if given == f"tasks={unknown[0]}" else f"there is no {unknown[0]}{near}; "
        raise EngineError(f"{given}: {said}this model has the heads {', '.join(heads)}{'' if said else near}")
    return names


def check_images(images: Any, names: Sequence[str], backbone: nn.Module, heads: nn.ModuleDict, channels: int) -> None:
    """Raise EngineError for what is no batch of pictures or clips, uint8, that the trunk and the heads of these names read.

    `channels` are those of the model's mean; one mean may serve several channels.
    """
    if getattr(backbone, "stages", 1) == 0:  # it computes nothing, and says so itself
        backbone(images)
    if channels == 1:
        convolutions = (m.in_channels for m in backbone.modules() if isinstance(m, _ConvNd))
        channels = next(convolutions, 1)
    clips = [name for name, head in heads.items() if getattr(head, "reads_clips", False)]
    kinds = {4: "images"} if len(clips) < len(heads) else {}
    if clips or getattr(backbone, "time_strides", None):
        kinds[5] = "clips"
    shapes = " or ".join(f"{kind} {SHAPES[n].replace('C', str(channels))}" for n, kind in kinds.items())
    wanted = f"expected {shapes} in a tensor of uint8, 0 to 255"
    if not torch.is_tensor(images):
        count = f" of {len(images)}" if isinstance(images, (list, tuple)) else ""
        kind = type(images).__name__
        raise EngineError(f"the model was given {kind}{count}: {wanted}{_AS_TENSOR.get(kind, '')}")
    given = f"the model was given {tuple(images.shape)}, {str(images.dtype).removeprefix('torch.')}"
    wrong = _wrong_shape(images, channels, kinds)
    if images.dtype != torch.uint8:
        wrong.append(_AS_UINT8[images.is_floating_point()])
    if wrong:
        raise EngineError(f"{given}: {wanted}; {'; '.join(wrong)}")
    if clips:  # where no head says that it reads clips, each is believed to read what it is given
        _check_read(images, names, [name for name in heads if name not in clips], clips)


def _wrong_shape(images: Tensor, channels: int, kinds: dict[int, str]) -> list[str]:
    """Say what is wrong with the shape of what is given to a model that reads `kinds`, by rank, of so many channels."""
    if images.ndim not in SHAPES:
        return ["one picture is picture[None]" if images.ndim == 3 else f"it has {images.ndim} dimensions"]
    if images.ndim == 5 and 5 not in kinds:
        return [f"no head reads clips, {SHAPES[5]}"]
    if not images.numel():
        return ["it is empty"]
    if images.shape[1] == channels:
        return []
    order = ", ".join(map(str, (0, images.ndim - 1, *range(1, images.ndim - 1))))
    hint = f": where they are last give images.permute({order})" if images.shape[-1] == channels else ""
    return [f"it has {images.shape[1]} channels{hint}"]


def _check_read(images: Tensor, names: Sequence[str], pictures: list[str], clips: list[str]) -> None:
    """Raise EngineError with those of the names that read clips where pictures are given, or pictures of clips."""
    reading = {4: pictures, 5: clips}
    given, other = ("pictures", "clips") if images.ndim == 4 else ("clips", "pictures")
    wrong = [name for name in names if name not in reading[images.ndim]]
    if wrong:
        ways = [
            f"{kind} {SHAPES[n]} as model({kind}, {json.dumps(reading[n])})"
            for n, kind in ((4, "pictures"), (5, "clips"))
            if reading[n]
        ]
        raise EngineError(
            f"{', '.join(wrong)} read{'s' * (len(wrong) == 1)} {other}, and these are {given}, {tuple(images.shape)}: give "
            f"{' and '.join(ways)}"
        )
