"""A head for clips: pooling over space, one vector of the steps in time, dropout and a linear classifier."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from trunkline.ground.errors import WeightsError
from trunkline.ground.names import load_named, nearest

from ...backbones.contract import Features
from ..classification import class_losses, class_predictions
from ..contract import Batch, Prediction
from .table import HEADS


class ClipHead(nn.Module):
    """Pool each map over space, make one vector of its steps in time, join the maps' vectors, drop out, classify.

    over_time        makes a vector of steps (`over_time.py`), for each map by itself
    channels         of the maps that it reads, by their names
    time_strides     frames that one step of each stands for
    classes          how many there are, K
    dropout          share of the classifier's inputs that is set to zero in training, 0 to below 1
    label_smoothing  share of the target spread evenly over all classes, 0 to 1 (Szegedy et al. 2016, section 7)

    Where clips are padded at their end, `targets["frames"]`, `(N,)` int64, says how many frames of each are real, 1 to T;
    without it all are. A step that stands for padding alone counts for nothing.
    """

    reads_clips = True  # and no pictures: `Model` says so where it is called with some

    def __init__(
        self, over_time: nn.Module, channels: Mapping[str, int], time_strides: Mapping[str, int], classes: int, *,
        dropout: float = 0.0, label_smoothing: float = 0.0,
    ) -> None:  # fmt: skip
        super().__init__()
        self.needs = tuple(channels)
        self.time_strides = {name: time_strides[name] for name in channels}
        self.over_time, self.dropout, self.label_smoothing = over_time, nn.Dropout(dropout), label_smoothing
        self.fc = nn.Linear(over_time.width or sum(channels.values()), classes)  # type: ignore[arg-type, operator]

    @property
    def trunk(self) -> str:
        """Where the trunk's tensors stand in a published file: at its top, as others have them, if `fc` is all of the head."""
        return "backbone." if self.over_time.width else ""

    def published(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the tensors as they are: `fc.…`, and what an LSTM or a transformer has besides."""
        return tensors

    def condense(self, features: Features) -> Features:
        """Pool each map over space to `(N, C, T, 1, 1)`, in fp32 or better; pooling it again changes nothing.

        Steps are kept apart: heads that see their order and those that do not read the same features.
        """
        maps = {name: features[name] for name in self.needs}
        return {name: x.mean((3, 4), True, dtype=_at_least_fp32(x)) for name, x in maps.items()}

    def forward(self, features: Features, frames: Tensor | None = None) -> Tensor:
        """Compute the logits `(N, K)` from maps `(N, C, T, H, W)`. The first `frames` `(N,)` of each clip are real."""
        vectors = []
        for name, pooled in self.condense(features).items():
            steps = pooled.flatten(2).transpose(1, 2)
            vectors.append(self.over_time(steps, self._real(name, steps, frames)))
        return self.fc(self.dropout(torch.cat(vectors, 1)))

    def _real(self, name: str, steps: Tensor, frames: Tensor | None) -> Tensor | None:
        """Say which steps `(N, T)` stand for a real frame at least."""
        if frames is None:
            return None
        place = torch.arange(steps.shape[1], device=steps.device)
        return place * self.time_strides[name] < frames[:, None]

    def losses(self, features: Features, batch: Batch) -> dict[str, Tensor]:
        """Compute `cross_entropy`, the mean over the micro-batch's clips, in fp32 or better; `label` is `(N,)` int64."""
        return class_losses(self(features, batch.targets.get("frames")), batch, self.label_smoothing)

    def predict(self, features: Features, batch: Batch) -> list[Prediction]:
        """Predict a ClassPrediction for each clip. Views of one video are clips by themselves here."""
        return class_predictions(self(features, batch.targets.get("frames")), batch)


def _at_least_fp32(x: Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, torch.float32)


def clip_head(
    kind: str, channels: Mapping[str, int], classes: int, *, time_strides: Mapping[str, int], reads: tuple[str, ...],
    width: int | None = None, layers: int | None = None, dropout: float = 0.5,
    label_smoothing: float = 0.0,
) -> ClipHead:  # fmt: skip
    """Make a head of the table for a trunk that states `channels` and `time_strides`.

    reads          the names of the maps that it pools (`pooled_maps` of backbones/contract.py)
    width, layers  of an LSTM or a transformer; None leaves the table's
    dropout        before the classifier, and in a transformer's blocks

    Raises WeightsError with all that speaks against it: an unknown kind, a trunk without time, several maps for a head
    that reads one, settings that the head has no use for or cannot take.
    """
    if said := problems(kind, channels, reads, time_strides, width, layers):
        raise WeightsError("; ".join(said))
    row = HEADS[kind]
    read = {name: channels[name] for name in reads}
    learns = {"width": width or row.width, "layers": layers or row.layers, "dropout": dropout} if row.width else {}
    over_time = load_named(row.over_time)(*(read.values() if learns else ()), **learns)
    return ClipHead(over_time, read, time_strides, classes, dropout=dropout, label_smoothing=label_smoothing)


def problems(
    kind: str, channels: Mapping[str, int], reads: tuple[str, ...], time_strides: Mapping[str, int],
    width: int | None = None, layers: int | None = None,
) -> list[str]:  # fmt: skip
    """List what speaks against a head of this kind, with these settings, on a trunk with these maps."""
    if kind not in HEADS:
        return [f"head={kind}: expected one of {', '.join(HEADS)}{nearest(kind, HEADS)}"]
    row, found = HEADS[kind], []
    if absent := [name for name in reads if name not in channels]:
        found.append(f"head={kind} reads {', '.join(absent)}; this trunk has {', '.join(channels)}")
    if any(name not in time_strides for name in reads):
        found.append(f"head={kind} reads maps over time, and this trunk's have none: set network.wrapper=frames")
    if row.width and len(reads) > 1:
        found.append(f"head={kind} reads one map, and this trunk ends in {', '.join(reads)}: set head=pool3d")
    if not row.width and (width or layers):
        found.append(f"head={kind} learns a classifier alone: leave width= and layers= out")
    if kind == "transformer" and (width or row.width) % 8:
        found.append(f"width={width}: expected a multiple of 8, for four attention heads and pairs of positions")
    return found
