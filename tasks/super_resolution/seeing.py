"""What a network makes of one picture: whole or in tiles, in eight views or one, grey as grey, transparency too."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from ...backbones.contract import sizes_of
from ...heads.contract import Batch, Prediction
from ...heads.model import Model
from ...heads.super_resolution.upscaling import receptive_field
from .files import Picture
from .options import Options
from .resize import resized_integers
from .tiles import difference, overlap_of, side_for, upscale

_GREY = np.array([0.299, 0.587, 0.114])  # luma of BT.601, full range
_VIEWS = [(turns, mirrored) for mirrored in (False, True) for turns in range(4)]
"""The eight views of a self-ensemble: quarter turns, each mirrored or not (Timofte et al. 2016, "Seven ways", section 3.6)."""


@dataclass
class Enlarged(Prediction):
    """`picture` is `(H, W, C)` uint8 or uint16, C 1 (grey) or 3; `alpha` `(H, W)` of the same kind, or None.

    `remark` says how its tiles fit, where they may not be exact.
    """

    picture: np.ndarray
    alpha: np.ndarray | None = None
    remark: str = ""


@dataclass
class Seeing:
    """A model with the options that decide how it sees; `remark` says how tiles fit where they may not be exact."""

    model: Model
    task: str
    options: Options
    remark: str = ""

    def picture(self, image: Tensor, channels: int, bits: int) -> np.ndarray:
        """Make `(3, h, w)` larger: `(H, W, channels)` uint8 or uint16. `image` is uint8, or float in 0..255."""
        most, scale = 2**bits - 1, self.options.scale
        device, unit = self.model.mean.device, sizes_of(self.model.backbone).unit
        reach = receptive_field(self.model.backbone, self.model.heads[self.task])
        overlap = overlap_of(reach, self.options.overlap)
        side = self.options.tiles
        if side is None:
            side = side_for(max(self.model.backbone.channels.values()), scale, overlap) if device.type == "cpu" else 0  # type: ignore[union-attr]
        found = upscale(image.cpu(), self._see, scale, side, overlap, most, device, unit)
        if side and max(image.shape[-2:]) > side and (reach is None or overlap < reach):
            apart = difference(image.cpu(), self._see, scale, side, overlap, device, unit)
            said = "an unknown distance" if reach is None else f"{reach} pixels"
            self.remark = (
                f"tiles of {side} pixels overlap by {overlap}, and the network reaches {said}: the middle pair of tiles "
                f"differs by {apart * most:.2g} of {most} from both seen at once; others may differ more"
            )
        pixels = found.permute(1, 2, 0).numpy()
        if channels == 1:
            pixels = np.floor(pixels @ _GREY + 0.5)[:, :, None]
        return np.ascontiguousarray(pixels.astype(np.uint8 if bits == 8 else np.uint16))

    def alpha(self, alpha: np.ndarray) -> np.ndarray:
        """Make transparency `(h, w)` larger: by bicubic, or as a grey picture by the network."""
        bits, scale = alpha.itemsize * 8, self.options.scale
        if self.options.alpha == "bicubic":
            return resized_integers(alpha, alpha.shape[0] * scale, alpha.shape[1] * scale)
        plane = torch.from_numpy(alpha.astype(np.float32) / (1 if bits == 8 else 257))
        return self.picture(plane.expand(3, *plane.shape), 1, bits)[:, :, 0]

    def _see(self, tile: Tensor) -> Tensor:
        views = _VIEWS if self.options.ensemble else _VIEWS[:1]
        total: Tensor | None = None
        for turns, mirrored in views:
            seen = torch.rot90(tile.flip(-1) if mirrored else tile, turns, (-2, -1))
            found = torch.rot90(self._one(seen), -turns, (-2, -1))
            found = found.flip(-1) if mirrored else found
            total = found if total is None else total + found
        assert total is not None
        return total / len(views) if len(views) > 1 else total

    def _one(self, tile: Tensor) -> Tensor:
        batch = Batch(self.task, [""], tile)
        return self.model.heads[self.task](self.model.maps(batch), batch)


def rescaled(picture: Picture, height: int, width: int) -> Picture:
    """Bring a picture to another size by bicubic, antialiased."""
    alpha = None if picture.alpha is None else resized_integers(picture.alpha, height, width)
    return replace(picture, pixels=resized_integers(picture.pixels, height, width), alpha=alpha)
