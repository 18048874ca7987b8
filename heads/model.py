"""A trunk with its heads: one module that a task, an engine and a checkpoint share."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from trunkline.ground.errors import EngineError
from trunkline.ground.keys import key, seed_model

from ..backbones.contract import Features, Preprocessing
from ..backbones.norm import PerTask, norms_of
from ..backbones.pyramid import Pyramid
from .called import check_images, chosen
from .contract import Batch, Prediction

CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}
"""The memory format with channels last, by rank: of images, and of clips."""


class Model(nn.Module):
    """Images in; losses or predictions of the batch's task out. `heads` maps a task's name to its head.

    `beside` holds networks, by name, that learn beside the model but are no part of it (a critic) or of its state dict.
    `reading`, where a loss balance wants to see what comes back from a head, is given the task's batch and the maps that it
    reads, and returns the maps in their place.
    """

    mean: Tensor
    std: Tensor
    beside: dict[str, nn.Module]

    def __init__(
        self,
        backbone: nn.Module,
        heads: dict[str, nn.Module],
        preprocessing: Preprocessing,
        beside: dict[str, nn.Module] | None = None,
    ):
        super().__init__()
        self.backbone, self.heads = backbone, nn.ModuleDict(heads)
        self.preprocessing = preprocessing
        self.__dict__["beside"] = beside or {}  # past nn.Module, which would take them in
        self.still: tuple[str, ...] = ()
        self._never = {name for name, p in self.heads.named_parameters() if not p.requires_grad}  # a kept classifier
        self.reading: Callable[[Batch, Features], Features] | None = None
        self.channels_last = False  # whether images are laid out so; all maps follow them
        self.norms = [m for m in backbone.modules() if isinstance(m, PerTask)]  # they are told whose each pass is
        for name in ("mean", "std"):
            numbers = torch.tensor(getattr(preprocessing, name)).view(1, -1, 1, 1)
            self.register_buffer(name, numbers, persistent=False)

    def freeze(self, stages: int, still: Sequence[str] = ()) -> None:
        """Freeze the trunk's first `stages` parts (the stem is the first), and what `still` names; thaw the rest.

        That are tasks, whose heads keep their weights and statistics, and `pyramid`, which keeps its.
        """
        self.still = tuple(still)
        self.backbone.freeze(stages)  # type: ignore[operator]
        for pyramid in (m for m in self.backbone.modules() if isinstance(m, Pyramid)):
            pyramid.fpn.requires_grad_("pyramid" not in self.still)
        for name, head in self.heads.items():
            for own, p in head.named_parameters():
                p.requires_grad_(name not in self.still and f"{name}.{own}" not in self._never)
        self.train(self.training)

    def train(self, mode: bool = True) -> "Model":
        """Set the mode as in torch, but keep the norms of heads that are still in eval mode."""
        super().train(mode)
        for name in self.still:
            if name in self.heads:
                for part in self.heads[name].modules():
                    if isinstance(part, _BatchNorm):
                        part.eval()
        return self

    def units(self) -> tuple[str, ...]:
        """List the prefixes of parameters that are in an update together or not at all: heads, stages of the trunk.

        A head that reads only some of the maps leaves the parts behind them without a gradient.
        """
        found = [f"heads.{name}." for name in self.heads]
        for name, part in self.backbone.named_children():
            inner = [child for child, _ in part.named_children()] if hasattr(part, "channels") else []
            found += [f"backbone.{name}.{child}." for child in inner] or [f"backbone.{name}."]
        return tuple(found)

    def of_tasks(self, tasks: Sequence[str]) -> tuple[str, ...]:
        """List how the names of tensors begin that these tasks have for themselves: their heads, statistics of their own."""
        heads = [f"heads.{task}." for task in tasks]
        return (*heads, *(f"{norm}.statistics.{task}." for norm in norms_of(self) for task in tasks))

    def normalise(self, batch: Batch) -> Tensor:
        """Convert images `(N, C, *T, H, W)` uint8 to normalised floats; padding (by `sizes`) is zero after it."""
        images = batch.images
        assert images is not None
        if self.channels_last and images.shape[1] > 1:
            images = images.contiguous(memory_format=CHANNELS_LAST[images.ndim])
        between = (1,) * (images.ndim - 2)
        mean, std = self.mean.view(1, -1, *between), self.std.view(1, -1, *between)
        x = images.to(dtype=self.mean.dtype, copy=True)  # so that images which are floats stay as they are
        x = x.div_(255).sub_(mean).div_(std)
        if batch.sizes is not None:
            rows = torch.arange(x.shape[-2], device=x.device) < batch.sizes[:, :1]
            columns = torch.arange(x.shape[-1], device=x.device) < batch.sizes[:, 1:]
            inside = rows[:, :, None] & columns[:, None, :]
            x = x * inside.view(len(x), *(1,) * (x.ndim - 3), *inside.shape[1:])
        return x

    def maps(self, batch: Batch) -> Features:
        """Compute the trunk's maps by name, or return the batch's own where they are cached.

        The pass is that of the batch's task, of a batch that several share the first one's: their norms are of one kind.
        """
        if batch.features is not None:
            return batch.features
        for norm in self.norms:
            norm.take(batch.parts[0].task if batch.parts else batch.task)
        return self.backbone(self.normalise(batch))

    def statistics(self, task: str) -> str:
        """Say whose running statistics the trunk has for a task in evaluation: the task's own, or "", those that tasks share."""
        return task if any(task in norm.statistics for norm in self.norms) else ""

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Compute the named scalar losses `task/loss` of one micro-batch; all that is random comes from `batch.key`.

        Of a batch that several tasks share the maps are computed once.
        """
        seed_model(key(batch.key, "trunk"), self.mean.device.type)
        features = self.maps(batch)
        named: dict[str, Tensor] = {}
        for part in batch.parts or (batch,):
            seed_model(key(batch.key, part.task), self.mean.device.type)
            named |= self._of_part(features, part, batch)
        return named

    def _of_part(self, features: Features, part: Batch, whole: Batch) -> dict[str, Tensor]:
        """Compute the losses of one task, of the images that it labels."""
        head: Any = self.heads[part.task]
        if part is not whole:
            images = whole.images if part.rows is None or whole.images is None else whole.images[part.rows]
            part = replace(part, images=images)
        if self.reading or part.rows is not None:
            features = {name: features[name] for name in head.needs}
        if part.rows is not None:
            features = {name: found[part.rows] for name, found in features.items()}
        if self.reading:
            features = self.reading(part, features)
        named = head.losses(features, part)
        if not isinstance(named, dict) or any(getattr(value, "ndim", None) != 0 for value in named.values()):
            raise EngineError(
                f"the head of the task {part.task} gave {_said(named)}; expected a dict of scalar tensors"
            )
        return {f"{part.task}/{name}": value for name, value in named.items()}

    def forward(self, images: Tensor, tasks: str | Sequence[str] = ()) -> dict[str, list[Prediction]]:
        """Predict images `(N, C, H, W)` uint8, or clips `(N, C, T, H, W)`, with every head, or those of `tasks`.

        `tasks` are names, in one text with commas or one by one; `all` is every head, as none is. The trunk runs once, and once
        more for each task that has running statistics of its own.

        Each head sees the images as they are given: resizing is the caller's. Ids are the positions in the batch. Call it
        under `torch.inference_mode()` and in eval mode. Raises EngineError for a task that the model has no head of, for what are
        no images of uint8 as its trunk reads them, in training mode, and where a task reads clips and these are pictures, or the
        other way round.
        """
        names = chosen(tasks, [*self.heads])
        if self.training:
            raise EngineError("the model is in training mode, and was called for predictions: call model.eval() first")
        check_images(images, names, self.backbone, self.heads, self.mean.shape[1])
        batch = Batch("", [str(n) for n in range(len(images))], images.to(self.mean.device))
        alike = {self.statistics(name): replace(batch, task=name) for name in names}
        maps = {whose: self.maps(one) for whose, one in alike.items()}
        each = {name: replace(batch, task=name, features=maps[self.statistics(name)]) for name in names}
        return {name: self.predict(one) for name, one in each.items()}

    def predict(self, batch: Batch) -> list[Prediction]:
        """Predict one result a sample, in the batch's order. Call it under `torch.inference_mode()` and in eval mode."""
        return self.heads[batch.task].predict(self.maps(batch), batch)  # type: ignore[operator]


def _said(named: Any) -> str:
    """Describe what should have been named scalar losses."""
    if not isinstance(named, dict):
        return f"losses of type {type(named).__name__}"
    wrong = [(name, value) for name, value in named.items() if getattr(value, "ndim", None) != 0]
    shown = (f"{name}: {tuple(v.shape) if torch.is_tensor(v) else type(v).__name__}" for name, v in wrong)
    return f"the losses {', '.join(shown)}"


SPREAD = "log_variance"
"""The parameter of a head that the balance by uncertainty learns; it is no part of a published head."""


def add_spreads(model: Model) -> None:
    """Give every head the logarithm of a variance, `(1,)`, which begins at 0. (DeepSpeed takes no scalars.)"""
    for head in model.heads.values():
        head.register_parameter(SPREAD, nn.Parameter(torch.zeros(1)))


def spread_of(model: Model, task: str) -> nn.Parameter:
    """Return the parameter that `add_spreads` gave to the head of a task."""
    return getattr(model.heads[task], SPREAD)


def losses(model: nn.Module, batch: Batch) -> dict[str, Tensor]:
    """Compute the losses of one micro-batch; engines are given this function."""
    assert isinstance(model, Model)
    return model.losses(batch)
