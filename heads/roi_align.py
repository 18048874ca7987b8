"""RoIAlign over the levels of a pyramid, its strides known from the start; on a CPU as one sum of weighted rows."""

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import MultiScaleRoIAlign

SAMPLES = 2  # in each direction of a bin


class RoIAlign(MultiScaleRoIAlign):
    """`size` x `size` bins of 2 x 2 samples from the level that suits each box; a level's scale is 1 over its stride.

    He et al. 2017, section 3; levels by Lin et al. 2017, equation 1. `strides` are those of the levels by name.
    torchvision's own takes the scales from the first image that it sees, and keeps them: an image of 20 to 22 or 33 to
    45 pixels makes all of them wrong.

    On a CPU this gives the numbers of torchvision's kernel in a tenth of the time: a bin is a weighted sum of 16 places
    of a map, so all bins of all levels are one `embedding_bag` over the maps' places, which uses vectors and threads in
    both directions. Other devices use torchvision's kernel.
    """

    def __init__(self, strides: Mapping[str, int], size: int) -> None:
        super().__init__(list(strides), size, SAMPLES)
        side = max(strides.values()) * 4  # a first call on an image that every stride divides
        with torch.device("cpu"):  # its scales are numbers that are read, also where a head is made without memory
            maps = {name: torch.zeros(1, 1, side // stride, side // stride) for name, stride in strides.items()}
            super().forward(maps, [torch.tensor([[0.0, 0.0, 1.0, 1.0]])], [(side, side)])

    def forward(self, x: dict[str, Tensor], boxes: list[Tensor], image_shapes: list[tuple[int, int]]) -> Tensor:
        """Pool the maps to `(R, C, size, size)`, in their dtype, for the R boxes of all images.

        `boxes` has `(n, 4)` x1, y1, x2, y2 in pixels for each image.
        """
        maps = [x[name] for name in self.featmap_names]
        if maps[0].device.type != "cpu":
            return super().forward(x, boxes, image_shapes)
        assert self.scales is not None and self.map_levels is not None
        table = torch.cat([m.permute(0, 2, 3, 1).reshape(-1, m.shape[1]) for m in maps])
        table = table.to(torch.promote_types(table.dtype, torch.float32))  # a place in bf16 is half a pixel off at 128
        level = self.map_levels(boxes).clamp(0, len(maps) - 1)  # for a box of NaN too
        image = torch.cat([torch.full((len(own),), n) for n, own in enumerate(boxes)])
        shapes = torch.tensor([m.shape for m in maps])  # N, C, H, W of each level
        height, width = shapes[level, 2], shapes[level, 3]
        sizes = shapes[:, 0] * shapes[:, 2] * shapes[:, 3]
        start = (sizes.cumsum(0) - sizes)[level] + image * height * width
        scaled = torch.cat(boxes).to(table.dtype) * torch.tensor(self.scales, dtype=table.dtype)[level, None]
        bins = self.output_size[0]
        columns, across = _places(scaled[:, 0], scaled[:, 2], bins, width)
        rows, down = _places(scaled[:, 1], scaled[:, 3], bins, height)
        rows = start[:, None, None] + rows * width[:, None, None]
        places = (rows[:, :, None, :, None] + columns[:, None, :, None, :]).reshape(-1, (2 * SAMPLES) ** 2)
        weights = (down[:, :, None, :, None] * across[:, None, :, None, :]).reshape(places.shape)
        found = F.embedding_bag(places, table, per_sample_weights=weights, mode="sum")
        return found.view(-1, bins, bins, table.shape[1]).permute(0, 3, 1, 2).to(maps[0].dtype)


def _places(low: Tensor, high: Tensor, bins: int, length: Tensor) -> tuple[Tensor, Tensor]:
    """Find the places of a map that each of `bins` reads in one direction, and each one's share: two `(R, bins, 4)`.

    `low` and `high` `(R,)` are the boxes' ends in the map's places, `length` `(R,)` is the map's number of places. A
    sample between two places reads both. One that lies outside the map by at most one place reads the nearest, one
    farther outside reads nothing.
    """
    step = (high - low).clamp(min=1) / bins
    offsets = (torch.arange(bins * SAMPLES, dtype=low.dtype) + 0.5) / SAMPLES
    at, last = low[:, None] + offsets * step[:, None], (length - 1)[:, None]
    inside = (at >= -1) & (at <= length[:, None])
    at = torch.minimum(at.clamp(min=0), last.to(at.dtype))
    below = at.detach().nan_to_num().long()  # NaN of a diverged run stays in the weights, so that the loss shows it
    part = at - below
    weights = torch.stack([1 - part, part], 2) * inside[:, :, None] / SAMPLES
    places = torch.stack([below, torch.minimum(below + 1, last)], 2)
    return places.view(-1, bins, 2 * SAMPLES), weights.view(-1, bins, 2 * SAMPLES)
