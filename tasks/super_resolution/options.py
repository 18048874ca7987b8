"""What decides a super-resolution task, as data. Imports no torch."""

from dataclasses import dataclass, field
from typing import Literal

from trunkline.ground.ranges import COUNT, SHARE, Range, Texts, ranged

from ...heads.super_resolution.adversarial import Adversarial, Perceptual
from ..options import WEIGHT, TaskOptions, of_data, of_scores, of_training, pair_problems

SCALE = Range(1, 8, "a whole number from 1 to 8")
CROP = Range(0, 4096, "a number of pixels from 1 to 4096", low_in=False)
CROPS = Range(1, 64)
OVERLAP = Range(0, 1024)
TILES = Range(0, 65536)
TRAINING = {"of": "training"}
LEAST = 8  # pixels of the low-resolution side of a picture that is trained on
OWN = 8  # pixels of a tile that are not its neighbours' at least; with fewer a picture becomes thousands of tiles
MEASURES = ("ms_ssim", "haarpsi", "gmsd", "lpips", "dists")


def share_of(val: str) -> float:
    """Return the share that `val` holds out; 0 where it names a folder or nothing."""
    try:
        return float(val or 0)
    except ValueError:
        return 0.0


def _is_place(text: str) -> bool:
    """Say whether a text is a folder's name below the data, or a share."""
    try:
        return 0 < float(text) < 1
    except ValueError:
        return True


def tile_problems(tiles: int | None, overlap: int, why: str = "") -> list[str]:
    """List what is wrong with tiles of so many pixels that overlap by so many; `why` says where the overlap comes from."""
    least = 2 * overlap + OWN
    if tiles is None or not 0 < tiles < least or overlap < 0:
        return []
    less = f", or overlap={(tiles - OWN) // 2} or less" if tiles >= OWN else ""
    return [
        f"tiles={tiles}: a tile overlaps its neighbours by overlap={overlap} pixels on each side{why}, which leaves too little "
        f"of its own; expected 0 (whole pictures), or at least 2 x {overlap} + {OWN} = {least}{less}"
    ]


PLACE = Texts(_is_place, "a folder below data, or a share to hold out, above 0 and below 1, as 0.1")


@dataclass(frozen=True)
class Options(TaskOptions):
    """Every choice of a super-resolution task; a recipe writes them, `tasks.super_resolution.KEY=` changes one.

    `train` and `val` name folders of high-resolution pictures below `data` (else they are found); `val=0.1` holds out a share
    of one set. `train_lr` and `val_lr` name those of the low-resolution ones; where there are none, they are made.
    """

    format: Literal["auto", "pictures", "pairs"] = of_data(
        "auto"
    )  # pictures: small ones are made even where there are some
    scale: int = ranged(4, SCALE, of="network")
    train: str = of_data("")
    val: str = ranged("", PLACE, of="data", kept=False)
    train_lr: str = of_data("")
    val_lr: str = of_data("")
    together: tuple[str, ...] = of_data(())  # pictures that stay on one side of a share: a+b names two
    border: Literal["mirror", "replicate"] = of_data(
        "mirror", kept=True, hint="edge= says how many pixels at each side scores leave out"
    )  # of the bicubic that makes the small pictures
    limit: int = of_data(0, within=COUNT)  # only the first so many pictures of a split; 0 takes all
    crop: int = of_training(96, within=CROP)  # training sees squares of so many pixels of the large picture
    crops: int = of_training(1, within=CROPS)  # so many of them each time that a picture is decoded
    flip: float = of_training(0.5, within=SHARE)  # chance of a flip from left to right
    turn: float = of_training(0.5, within=SHARE)  # chances of a flip upside down, and of rows for columns
    jitter: tuple[float, ...] = of_training(())  # two scales up to 1 between which a large picture is resized first
    l1: float = of_training(1.0, within=WEIGHT)  # the losses' weights; 0 leaves one out
    mse: float = of_training(0.0, within=WEIGHT)
    charbonnier: float = of_training(0.0, within=WEIGHT)
    adversarial: Adversarial | None = field(
        default=None, metadata=TRAINING
    )  # learn against a critic, in phases in which it plays
    perceptual: Perceptual | None = field(
        default=None, metadata=TRAINING
    )  # and by the maps of a network that does not learn
    tiles: int | None = ranged(
        None, TILES
    )  # see a picture in squares of so many pixels; none: as memory allows, 0: whole
    overlap: int | None = ranged(
        None, OVERLAP
    )  # pixels that a tile sees beyond its own; none: the network's reach, up to 48
    ensemble: bool = False  # see every picture flipped and turned too, and take the mean of the eight
    alpha: Literal["bicubic", "network"] = "bicubic"  # how transparency is made larger
    grey: Literal["rgb", "own"] = of_scores(
        "rgb"
    )  # a grey picture is scored as three equal channels, or as its own luma
    edge: int | None = of_scores(None, COUNT)  # pixels that scores leave out at each side; none: as many as the scale
    more: tuple[str, ...] = of_scores(())  # other measures, of piq: ms_ssim, haarpsi, gmsd, lpips, dists

    def uncached(self) -> str:
        """Say that maps of crops that differ each time cannot be cached."""
        return "sees other crops in every epoch"

    def problems(self) -> list[str]:
        """Check that crops are made of whole small pixels, that a loss is left, and the names of measures."""
        found = []
        if self.crop % self.scale:
            near = max(1, round(self.crop / self.scale)) * self.scale
            found.append(f"crop={self.crop}: expected a multiple of scale={self.scale}, such as {near}")
        elif self.crop < LEAST * self.scale:
            found.append(f"crop={self.crop}: expected at least {LEAST} x scale, {LEAST * self.scale}")
        found += pair_problems("jitter", self.jitter, most=1)
        if self.overlap is not None:  # else the network says it
            found += tile_problems(self.tiles, self.overlap)
        found += self._losses()
        if self.format == "pictures":
            found += [
                f"{key}={name}: names small pictures, and format=pictures makes them; leave one of the two out"
                for key, name in (("train_lr", self.train_lr), ("val_lr", self.val_lr))
                if name
            ]
        if self.val_lr and share_of(self.val):
            found.append(
                f"val_lr={self.val_lr}: val={self.val} is a share of one set, whose small pictures train_lr= names; leave it out"
            )
        if unknown := [name for name in self.more if name not in MEASURES]:
            found.append(f"more={','.join(unknown)}: expected of {', '.join(MEASURES)}")
        return found

    def _losses(self) -> list[str]:
        """Say where nothing is left to learn from, with the critic or without it."""
        found = []
        if not (self.l1 or self.mse or self.charbonnier):
            found.append(
                "l1=0: mse and charbonnier are 0 too, and the pixel phase needs a loss: give one of l1, mse, charbonnier a "
                "weight above 0 (adversarial.pixel=0 leaves them out beside the critic)"
            )
        against, maps = self.adversarial, self.perceptual
        by_maps = maps is not None and maps.weight > 0 and any(maps.layers.values())
        if against and not (against.weight or against.pixel or by_maps):
            found.append(
                "adversarial.weight=0: adversarial.pixel is 0 too and no perceptual loss counts, so that the generator has "
                "nothing to learn from: give one of them a weight above 0"
            )
        if maps and not against:
            found.append(
                "perceptual: counts in the updates against a critic alone: give adversarial too, or leave it out"
            )
        return found
