"""Super-resolution: small pictures in, large ones out, by a trunk of stride 1 and a tail that upscales."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from trunkline.ground.errors import DataError, WeightsError

from ...backbones.contract import Backbone, Preprocessing, within
from ...backbones.table import SPANDREL, SUPER_RESOLUTION
from ...backbones.weights import Weights
from ...heads.contract import Batch, Player, Prediction
from ...heads.model import Model
from ...heads.super_resolution.critic import make_critic
from ...heads.super_resolution.perceptual import PerceptualLoss, perceptual_loss
from ...heads.super_resolution.players import players_of
from ...heads.super_resolution.upscaling import (
    ForeignHead,
    PictureLosses,
    UpscalingHead,
    picture_losses,
    receptive_field,
)
from ..contract import Published, Sample, Samples, Task
from .draw import against_truth, beside_bicubic, shown
from .evaluator import PictureEvaluator
from .files import Picture, look_at, read_picture, why_not
from .options import Options
from .predicted import PredictedUpscale
from .samples import PicturePairs, tensor_of
from .seeing import Enlarged, Seeing, rescaled
from .splits import read_split, read_whole
from .tiles import check_tiles
from .transforms import eval_transform, train_transform


class SuperResolution(Task):
    """Large pictures, or pairs, in; pictures `scale` times as large out."""

    name = "super_resolution"
    predicted = PredictedUpscale
    together = 1

    def __init__(self, options: Options, preprocessing: Preprocessing, facts: dict[str, Any] | None = None):
        super().__init__(options, preprocessing, facts)
        self._splits: dict[str, PicturePairs] = {}
        self._perceptual: PerceptualLoss | None = None
        self._bicubic: dict[str, float] = {}  # what bicubic scores on each picture that was scored
        self._read: dict[str, Picture] = {}  # of the files of a batch: their formats and colour profiles

    @property
    def facts(self) -> dict[str, Any]:
        """What a checkpoint says: the scale. Reads no data."""
        if self._facts is None:
            self._facts = {"scale": self.options.scale}
        return self._facts

    def samples(self, split: str) -> Samples:
        """Read the split `train` or `val`, once. Raises DataError with every problem of its files."""
        if split not in self._splits:
            self._splits[split] = read_split(self.options, split)
        return self._splits[split]

    def whole(self) -> PicturePairs:
        """Read all pictures, of train and val together. Raises DataError where there are none; their sides are not looked at."""
        return read_whole(self.options)

    def transform(self, training: bool) -> Callable[[Sample], Sample]:
        """Build the transform: for training aligned crops; else the whole pair."""
        return train_transform(self.options) if training else eval_transform(self.options)

    def collate(self, samples: list[Sample]) -> Batch:
        """Join samples: crops `(N * K, 3, c, c)` with `hr` `(N * K, 3, C, C)`; else whole pictures, padded, with their sizes.

        Outside of training `hr` is a list of `(C, H, W)` and `kind` `(N, 2)`: channels and bits of the file.
        """
        if samples[0].image.ndim == 4:
            images, large = [s.image for s in samples], [s.targets["hr"] for s in samples]
            ids = [s.id for s in samples for _ in s.image]
            return Batch(self.name, ids, _joined(images), targets={"hr": _joined(large)})
        sizes = torch.tensor([s.image.shape[-2:] for s in samples])
        height, width = sizes.max(0).values.tolist()
        kind = torch.float32 if any(s.image.is_floating_point() for s in samples) else torch.uint8
        images = torch.zeros(len(samples), 3, height, width, dtype=kind)
        for row, s in zip(images, samples, strict=True):
            row[:, : s.image.shape[1], : s.image.shape[2]] = s.image
        targets: dict[str, Any] = {"kind": torch.stack([s.targets["kind"] for s in samples])}
        for name in ("hr", "alpha"):
            if any(name in s.targets for s in samples):
                targets[name] = [s.targets.get(name) for s in samples]
        return Batch(self.name, [s.id for s in samples], images, sizes, targets)

    def head(self, backbone: Backbone, weights: Weights | None = None) -> nn.Module:
        """Build the tail for the options' scale; `weights` that hold one fill it.

        Raises WeightsError where they do not fit, RecipeError for tiles that are too small for what the network reaches.
        """
        head = self._tail(within(backbone), weights)
        check_tiles(self.options.tiles, self.options.overlap, receptive_field(backbone, head))
        return head

    def _tail(self, trunk: Any, weights: Weights | None) -> nn.Module:
        if trunk.arch.startswith(SPANDREL):
            return ForeignHead(self.options.scale)
        unshuffle = getattr(trunk, "settings", {}).get("unshuffle", 1)
        head = UpscalingHead(
            trunk.arch, trunk.channels, self.options.scale, unshuffle=unshuffle, preprocessing=self.preprocessing,
            weighted=self._losses,
        )  # fmt: skip
        if weights is not None and weights.rest:
            head.fill(weights)
            if report := trunk.report:  # it counts the trunk alone
                report.loaded, report.total = report.loaded + len(weights.rest), report.total + len(weights.rest)
        return head

    @property
    def _losses(self) -> PictureLosses:
        return PictureLosses(self.options.l1, self.options.mse, self.options.charbonnier)

    @classmethod
    def reads(cls, weights: Weights) -> Published | None:
        """Read what a file says: ours in its header, others' by the scale that their tensors have."""
        if (own := super().reads(weights)) is not None:
            return own
        if weights.arch not in SUPER_RESOLUTION or not weights.rest:
            return None
        scale = int(weights.info["trunkline_scale"])
        return Published({"scale": scale}, {"scale": scale})

    def beside(self) -> dict[str, nn.Module]:
        """Build the critic, where the options have one."""
        o = self.options
        if o.adversarial is None:
            return {}
        return {"critic": make_critic(o.adversarial.critic, o.crop, o.adversarial.width, o.adversarial.norm)}

    def players(self, model: Model, playing: tuple[str, ...]) -> dict[str, Player]:
        """Say who learns: the generator, and the critic where there is one (`heads.super_resolution.players`)."""
        o = self.options
        if not playing or "critic" in playing:
            self.before_training()
        pixel = partial(picture_losses, weighted=self._losses)
        return players_of(model, self.name, o.adversarial, pixel, self._perceptual, playing)

    def before_training(self) -> None:
        """Build the network of the perceptual loss, once, where there is one. Raises WeightsError, which names `perceptual`."""
        settings = self.options.perceptual
        if self._perceptual is not None or settings is None:
            return
        try:
            self._perceptual = perceptual_loss(settings)
        except WeightsError as error:
            said = str(error)
            for place in (f"perceptual.weights={settings.weights}: ", "perceptual.", f"{settings.weights}: "):
                said = said.removeprefix(place)
            raise WeightsError(
                f"perceptual={settings.weights}: {said} (tasks.{self.name}.perceptual.weights)"
            ) from None

    def read(self, address: str) -> Sample:
        """Read a picture as what it is; its transparency becomes `alpha` `(H, W)`.

        Raises DataError where it cannot be used, or where what becomes of it cannot be written in the format that is asked for.
        """
        self._check_target(address)
        picture = read_picture(address)
        self._read[address] = replace(picture, pixels=picture.pixels[:0], alpha=None)
        pixels = tensor_of(picture)
        targets: dict[str, Any] = {"kind": torch.tensor([pixels.shape[0], 8 * pixels.element_size()])}
        if picture.alpha is not None:
            targets["alpha"] = torch.from_numpy(picture.alpha)
        return Sample(address, Path(address), pixels, targets)

    def _check_target(self, address: str) -> None:
        look = look_at(address)
        scale = self.writing.outscale or self.options.scale
        larger = replace(look, height=round(look.height * scale), width=round(look.width * scale))
        if wrong := why_not(f"x.{self._ext(address)}", larger):
            raise DataError(f"{address}: {wrong} (ext=png)")

    def _ext(self, file: str) -> str:
        return (self.writing.end or Path(file).suffix.lower()).removeprefix(".")

    def infer(self, model: nn.Module, batch: Batch) -> list[Prediction]:
        """Upscale each picture by itself, in tiles where it is large: an Enlarged each, of the file's channels and bits."""
        assert isinstance(model, Model) and batch.images is not None and batch.sizes is not None
        made: list[Prediction] = []
        alphas = batch.targets.get("alpha") or [None] * len(batch)
        rows = zip(batch.ids, batch.images, batch.sizes.tolist(), batch.targets["kind"].tolist(), alphas, strict=True)
        for name, image, (h, w), (channels, bits), alpha in rows:
            see = Seeing(model, self.name, self.options)
            picture = see.picture(image[:, :h, :w], channels, bits)
            larger = None if alpha is None else see.alpha(alpha.cpu().numpy())
            made.append(Enlarged(name, picture, larger, see.remark))
        return made

    def finished(self, file: str, prediction: Enlarged) -> tuple[Picture, str]:
        """Make the picture that is written for a file, with its colour profile, and the end of its name."""
        about, scale, wanted = self._read.pop(file), self.options.scale, self.writing.outscale
        picture = replace(about, pixels=prediction.picture, alpha=prediction.alpha)
        if wanted and wanted != scale:
            height, width = (max(1, round(side / scale * wanted)) for side in picture.pixels.shape[:2])
            picture = rescaled(picture, height, width)
        return picture, self._ext(file)

    def evaluator(self, samples: Samples) -> PictureEvaluator:
        """Build the evaluator of these pairs."""
        assert isinstance(samples, PicturePairs)
        return PictureEvaluator(samples, self._bicubic)

    def draw(self, sample: Sample, prediction: Prediction) -> Image.Image:
        """Draw where the picture is farthest from its truth, large: bicubic, what was made, the truth."""
        assert isinstance(prediction, Enlarged)
        pair = self.transform(False)(sample)
        if "hr" not in pair.targets:
            return beside_bicubic(shown(prediction.picture), str(sample.source))
        small = pair.image.round().to(torch.uint8).permute(1, 2, 0).numpy()
        return against_truth(small, prediction.picture, pair.targets["hr"].permute(1, 2, 0).numpy())


def _joined(stacks: list[Tensor]) -> Tensor:
    """Join `(K, 3, h, w)` each to one; float where one of them is."""
    return torch.cat([s.float() for s in stacks] if any(s.is_floating_point() for s in stacks) else stacks)
