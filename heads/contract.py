"""What a head is to the floors above: feature maps in; losses or predictions out."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from ..backbones.contract import Features


VOID = 255  # in a mask, a pixel that has no class


@dataclass
class Batch:
    """What one forward pass takes; with a `key` it is a micro-batch.

    `images` are `(N, C, H, W)` uint8, of clips `(N, C, T, H, W)`; `sizes` `(N, 2)` int64 (height and width before
    padding); `features` stand in for images where the trunk's maps are cached. `targets` are tensors with N rows or
    lists of N tensors, by name. `key` seeds whatever is random inside the model. Where several tasks share an update,
    `loss_weight` is the task's, and the loss is multiplied by `scale` before its backward. A worker without a
    micro-batch gets a `stand_in`, which counts for nothing. `remarks` are lines that people should know of how samples
    were read, by their ids.

    A batch that several tasks share has the images, and a part for each of them: `targets` and `ids` of those images that
    the task labels, at the positions `rows` `(n,)` int64 (None: all of them). `labelled` is their share of the images.
    """

    task: str
    ids: list[str]
    images: "Tensor | None" = None
    sizes: "Tensor | None" = None
    targets: dict[str, Any] = field(default_factory=dict)
    features: "Features | None" = None
    key: int = 0
    loss_weight: float = 1.0
    scale: float = 1.0
    stand_in: bool = False
    remarks: dict[str, tuple[str, ...]] = field(default_factory=dict)
    parts: "tuple[Batch, ...]" = ()
    rows: "Tensor | None" = None
    labelled: float = 1.0

    def __len__(self) -> int:
        return len(self.ids)

    def each(self, change: "Callable[[Tensor], Tensor]") -> "Batch":
        """Make a batch whose tensors are what `change` returns for each of these."""
        changed = {f.name: _each(getattr(self, f.name), change) for f in fields(self) if f.name in _TENSORS}
        return replace(self, parts=tuple(part.each(change) for part in self.parts), **changed)

    def to(self, device: "torch.device | str") -> "Batch":
        """Copy the batch to another device (asynchronously from pinned memory)."""
        return self.each(lambda t: t.to(device, non_blocking=True))

    def pin_memory(self) -> "Batch":
        """Copy the batch into pinned memory; the loader calls it."""
        return self.each(lambda t: t.pin_memory())


_TENSORS = ("images", "sizes", "targets", "features", "rows")


def _each(value: Any, change) -> Any:
    if value is None:
        return None
    if isinstance(value, dict):
        return {k: _each(v, change) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_each(v, change) for v in value]
    return change(value)


@dataclass
class Prediction:
    """What a head says of one sample; each task has its own kind."""

    id: str


HEAD = ("needs", "losses", "predict", "condense", "published")
"""What a head must have."""


@dataclass(frozen=True)
class Player:
    """Who learns in a turn of an update: `losses(module, batch)` of the micro-batches of `tasks` (empty: all).

    It sits out the first `waits` updates of a phase. `watch(update, numbers)` is told what an update's report says of
    it, by name; it returns lines for the notes of the run, each of which is written once, and raises EngineError where
    the run should not go on. `uses` are networks that its losses call and that never learn, for what counts memory.
    """

    module: "nn.Module"
    losses: "Callable[[nn.Module, Batch], dict[str, Tensor]]"
    tasks: tuple[str, ...] = ()
    waits: int = 0
    watch: "Callable[[int, Mapping[str, float]], list[str]] | None" = None
    uses: "tuple[nn.Module, ...]" = ()


@runtime_checkable
class Head(Protocol):
    """`needs` names the maps it reads; losses are scalars, summed for the gradient."""

    @property
    def needs(self) -> tuple[str, ...]:
        """The names of the maps."""
        ...

    def losses(self, features: "Features", batch: Batch) -> "dict[str, Tensor]":
        """Compute the named scalar losses of one micro-batch, each the mean that its docstring states."""
        ...

    def predict(self, features: "Features", batch: Batch) -> list[Prediction]:
        """Predict one result for each sample, in the batch's order, on the CPU."""
        ...

    def condense(self, features: "Features") -> "Features":
        """Reduce the maps to what may be cached when the trunk is frozen; losses and predictions stay the same."""
        ...

    def published(self, tensors: "dict[str, Tensor]") -> "dict[str, Tensor]":
        """Return the head's own tensors under the names, and in the form, that others read."""
        ...
