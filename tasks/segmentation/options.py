"""What decides a segmentation task, as data. Imports no torch."""

from dataclasses import dataclass
from typing import Any, Literal

from trunkline.ground.ranges import COUNT, SHARE, Range, ranged

from ..options import (
    DROPOUT,
    OVERLAP,
    PADDING,
    PIXELS,
    SCALES,
    TILES,
    WEIGHT,
    TaskOptions,
    depth_of_pictures,
    following,
    of_data,
    of_training,
    pair_problems,
    window_problems,
)

CLASS_WEIGHTS = Range(0, 1e6, "numbers above 0", low_in=False)
MOST_OF_A_CROP = Range(0, 1, "a share above 0, up to 1", low_in=False)
LONGEST = Range(0, 65536, "a number of pixels from 1 to 65536", low_in=False)
SIZES = Range(0, 16384, "numbers of pixels from 1 to 16384", low_in=False)
CROP = 512
JITTER = (0.5, 2.0)


@dataclass(frozen=True)
class Options(TaskOptions):
    """Every choice of a segmentation task; a recipe writes them, `tasks.segmentation.KEY=` changes one.

    `train` and `val` are lists (VOC, SBD), annotation files (COCO) or names of folders (`train` and `val` otherwise), below
    `data`. Of objects (COCO, YOLO, LabelMe, Label Studio) the polygons are drawn; `val=0.2` holds out a share of one set.
    """

    format: Literal[
        "voc", "sbd", "coco", "pairs", "camvid", "cityscapes", "ade20k", "yolo", "yolo-seg", "labelme", "labelstudio"
    ] = of_data("voc", kept=True)
    train: tuple[str, ...] = of_data(())
    val: tuple[str, ...] = of_data(())
    void: tuple[int, ...] = of_data(())  # pairs: numbers in the masks that mean no class
    masks: str = of_data("")  # VOC: another folder of masks than SegmentationClass
    sbd: str = of_data("")  # VOC: SBD's folder below data, whose pictures join the training (trainaug)
    train_images: str = of_data("")  # COCO: the folders of the pictures
    val_images: str = of_data("")
    categories: tuple[str, ...] = of_data(())  # of objects: only these; the others are background
    annotator: str = of_data("")  # Label Studio: whose labels count, an id or an address, first or last
    least: int = of_data(0)  # of objects: train only on pictures whose objects cover more pixels than this
    exif: Literal["stop", "turn", "ignore"] = of_data(
        "stop"
    )  # masks are of a picture as EXIF turns it, or as it is stored
    limit: int = of_data(0, within=COUNT)  # only the first so many pictures of a split; 0 takes all
    depth: str = depth_of_pictures()
    head: Literal["deeplabv3", "deeplabv3plus", "fcn", "unet", "fpn", "semantic_fpn"] = "deeplabv3plus"
    dropout: float | None = of_training(None, within=DROPOUT)  # of the head; none leaves it as published
    aux: float = ranged(0.0, WEIGHT)  # weight of an auxiliary FCN on c4; 0 has none
    cross_entropy: float = of_training(1.0, within=WEIGHT)  # the losses' weights; 0 leaves one out
    dice: float = of_training(0.0, within=WEIGHT)
    focal: float = of_training(0.0, within=WEIGHT)
    lovasz: float = of_training(0.0, within=WEIGHT)
    class_weights: tuple[float, ...] = of_training((), within=CLASS_WEIGHTS)  # in the cross-entropy, one for each class
    view: Literal["crop", "fit"] = (
        "crop"  # training sees squares cut from pictures; fit: whole ones, as a detector does
    )
    crop: int | None = of_training(None, within=PIXELS)  # crop: squares of so many pixels; none: 512
    short: int | None = of_training(None, within=PIXELS)  # crop: the shorter side before the jitter; none: its own
    jitter: tuple[float, ...] | None = of_training(
        None
    )  # two scales between which a picture is resized; none: 0.5, 2. fit: to squares of `size`, and none is no jitter
    cat_max_ratio: float = of_training(
        1.0, within=MOST_OF_A_CROP
    )  # crop: look for another one, ten times, where one class covers more than this
    padding: int = ranged(64, PADDING)  # fit: the sides of a batch are multiples of so many pixels, as a detector's
    sizes: tuple[int, ...] = of_training((), within=SIZES)  # fit: train at one of these shorter sides each time
    flip: float = of_training(0.5, within=SHARE)  # chance of a horizontal flip
    photometric: bool = of_training(False)  # random brightness, contrast, saturation, hue
    size: int | None = ranged(
        None, PIXELS
    )  # evaluation (fit: training too) sees the shorter side at so many pixels; none: in its own size
    longest: int | None = following("size", None, within=LONGEST)  # fit: most pixels of the longer side; none: 2 * size
    tiles: int = ranged(0, TILES)  # see a larger picture in windows of so many pixels a side; 0: whole
    overlap: float = ranged(0.5, OVERLAP)  # of neighbouring windows
    flips: bool = False  # see every picture mirrored too
    scales: tuple[float, ...] = ranged((), SCALES)  # see every picture at these multiples of its size
    crf: bool = False  # let a fully connected CRF follow the picture's edges
    absent: Literal["truth", "either"] = "truth"  # which classes mIoU is over: those of the truth, or of either side
    palette: tuple[
        tuple[int, int, int], ...
    ] = ()  # the classes' colours in what is drawn and written; empty: the data's
    written: bool = False  # records hold the predicted masks

    def problems(self) -> list[str]:
        """Check the pair of scales, the windows, what belongs to the view and the head, the losses' weights and the colours."""
        found = pair_problems("jitter", self.jitter or ()) + window_problems(self.tiles, self.overlap)
        found += self._of_view() + self._of_head()
        if not any((self.cross_entropy, self.dice, self.focal, self.lovasz)):
            found.append("every loss has the weight 0; give one of cross_entropy, dice, focal and lovasz")
        if any(not 0 <= channel <= 255 for colour in self.palette for channel in colour):
            found.append("palette: expected three numbers from 0 to 255 for each class")
        return found

    def _of_view(self) -> list[str]:
        """List options of the other view, and what fit lacks."""
        if self.view == "crop":
            given = {"longest": self.longest, "sizes": ",".join(map(str, self.sizes))}
            given |= {} if self.padding == 64 else {"padding": self.padding}
            why = "view=crop cuts squares from pictures; leave it out, or set view=fit"
            return [f"{key}={value}: {why}" for key, value in given.items() if value]
        given = {"crop": self.crop, "short": self.short, "cat_max_ratio": f"{self.cat_max_ratio:g}"}
        why = "view=fit sees whole pictures and cuts none; leave it out (or view=, where a run was trained on crops)"
        found = [f"{key}={value}: {why}" for key, value in given.items() if value not in (None, "1")]
        if self.size is None:
            found.append("size=none: view=fit needs the pixels of the shorter side: set size=, as size=640")
        if self.sizes and self.jitter:
            found.append(f"sizes={','.join(map(str, self.sizes))}: jitter= says the size already; give one of them")
        return found

    def _of_head(self) -> list[str]:
        """List options that the head has no use for."""
        if self.head != "semantic_fpn":
            return []
        found = [f"aux={self.aux:g}: head=semantic_fpn trains none beside; set aux=0"] if self.aux else []
        if self.dropout is not None:
            found.append(f"dropout={self.dropout:g}: head=semantic_fpn has none, as published; leave it out")
        return found

    def misfits(self, network: Any) -> list[str]:
        """Say whether a head on a pyramid lacks the pyramid, or a trunk of stride 32; a plug-in's wrapper may have one."""
        from ...heads.pixels.segmentation_trunk import network_misfits

        return network_misfits(self.head, network.pyramid, network.output_stride) if network.wrapper == "none" else []

    @property
    def crop_side(self) -> int:
        """The side of the squares of view=crop."""
        return CROP if self.crop is None else self.crop

    @property
    def scale_jitter(self) -> tuple[float, ...]:
        """The two scales between which a picture is resized; empty: none."""
        usual = JITTER if self.view == "crop" else ()
        return usual if self.jitter is None else self.jitter

    @property
    def fitted(self) -> tuple[int, int]:
        """The pixels of the shorter side of view=fit, and the most of the longer one."""
        assert self.size is not None  # `problems` has looked
        return self.size, 2 * self.size if self.longest is None else self.longest
