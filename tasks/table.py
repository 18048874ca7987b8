"""The tasks that there are: a row each. Imports no torch."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import entry_points
from typing import Any

from trunkline.ground.names import load_named

from .data.media import Media


@dataclass(frozen=True)
class Scenes:
    """Generated data: `write(folder, train=, val=, size=)`, the numbers of samples, and pixels of a side."""

    write: str | Callable[..., Any]
    train: int
    val: int
    size: int


@dataclass(frozen=True)
class Row:
    """A task: its class and its options' class, as they are or as `module:name`.

    formats  how its data may lie in folders, the usual one first
    check    `check(root, format, classes, loaders=, progress=)`: what a look at a whole folder of such data finds
    looks_by the task's options that this look reads, as its `options=`
    media    what lies in its class folders and tables, as a `Media`: by it a folder is known whose format several tasks read
    scenes   generated data sets, by their name in `data=`
    """

    task: Any
    options: Any
    formats: tuple[str, ...] = ()
    check: str | Callable[..., Any] | None = None
    looks_by: tuple[str, ...] = ()
    media: str | Media | None = None
    scenes: Mapping[str, Scenes] = field(default_factory=dict)


TASKS: dict[str, Row] = {
    "classification": Row(
        "trunkline.tasks.classification.task:Classification",
        "trunkline.tasks.classification.options:Options",
        ("folders", "csv"),
        "trunkline.tasks.classification.check:check_folders",
        ("depth", "group"),
        "trunkline.tasks.images.suffixes:PHOTOS",
        {
            "demo": Scenes("trunkline.tasks.scenes:write_scenes", 2000, 500, 64),
            "demo:smoke": Scenes("trunkline.tasks.scenes:write_scenes", 40, 20, 32),
        },
    ),
    "detection": Row(
        "trunkline.tasks.detection.task:Detection",
        "trunkline.tasks.detection.options:Options",
        ("coco", "voc", "yolo", "yolo-seg", "yolo-obb", "labelme", "labelstudio", "csv"),
        "trunkline.tasks.detection.check:check_boxes",
        (
            "depth",
            "train",
            "val",
            "train_images",
            "val_images",
            "categories",
            "exif",
            "origin",
            "rotated",
            "annotator",
            "group",
        ),
        None,
        {
            "demo:boxes": Scenes("trunkline.tasks.detection.scenes:write_box_scenes", 400, 100, 128),
            "demo:boxes:smoke": Scenes("trunkline.tasks.detection.scenes:write_box_scenes", 16, 8, 64),
        },
    ),
    "multilabel": Row(
        "trunkline.tasks.multilabel.task:MultiLabel",
        "trunkline.tasks.multilabel.options:Options",
        ("coco", "voc", "yolo", "yolo-seg", "yolo-obb", "labelme", "labelstudio", "csv", "table"),
        "trunkline.tasks.multilabel.check:check_labels",
        (
            "depth",
            "train",
            "val",
            "train_images",
            "val_images",
            "categories",
            "exif",
            "origin",
            "rotated",
            "annotator",
            "group",
        ),
        None,
        {
            "demo:labels": Scenes("trunkline.tasks.detection.scenes:write_box_scenes", 400, 100, 128),
            "demo:labels:smoke": Scenes("trunkline.tasks.detection.scenes:write_box_scenes", 16, 8, 64),
        },
    ),
    "segmentation": Row(
        "trunkline.tasks.segmentation.task:Segmentation",
        "trunkline.tasks.segmentation.options:Options",
        ("voc", "sbd", "coco", "pairs", "camvid", "cityscapes", "ade20k", "yolo", "yolo-seg", "labelme", "labelstudio"),
        "trunkline.tasks.segmentation.check:check_masks",
        (
            "depth",
            "train",
            "val",
            "void",
            "masks",
            "sbd",
            "train_images",
            "val_images",
            "categories",
            "exif",
            "annotator",
            "group",
        ),
        None,
        {
            "demo:pixels": Scenes("trunkline.tasks.segmentation.scenes:write_pixel_scenes", 400, 100, 128),
            "demo:pixels:smoke": Scenes("trunkline.tasks.segmentation.scenes:write_pixel_scenes", 16, 8, 64),
        },
    ),
    "super_resolution": Row(
        "trunkline.tasks.super_resolution.task:SuperResolution",
        "trunkline.tasks.super_resolution.options:Options",
        ("pictures", "pairs"),
        "trunkline.tasks.super_resolution.check:check_pictures",
        ("scale", "train", "val", "train_lr", "val_lr", "border", "group"),
        None,
        {
            "demo:pictures": Scenes("trunkline.tasks.super_resolution.scenes:write_pictures", 200, 20, 192),
            "demo:pictures:smoke": Scenes("trunkline.tasks.super_resolution.scenes:write_pictures", 8, 2, 64),
        },
    ),
    "action": Row(
        "trunkline.tasks.video.task:Action",
        "trunkline.tasks.video.options:Options",
        ("folders", "csv", "ucf101", "hmdb51", "kinetics", "ssv2"),
        "trunkline.tasks.video.check:check_clips",
        ("split", "group"),
        "trunkline.tasks.video.suffixes:CLIPS",
        {
            "demo:clips": Scenes("trunkline.tasks.video.scenes:write_clips", 400, 100, 64),
            "demo:clips:smoke": Scenes("trunkline.tasks.video.scenes:write_clips", 8, 4, 32),
        },
    ),
    "events": Row(
        "trunkline.tasks.events.task:Events",
        "trunkline.tasks.events.options:Options",
        ("activitynet", "thumos", "events"),
        "trunkline.tasks.events.check:check_events",
        ("features", "train", "val", "on_bad_event", "stride", "span", "rate", "group"),
        None,
        {
            "demo:events": Scenes("trunkline.tasks.events.scenes:write_videos", 40, 20, 128),
            "demo:events:smoke": Scenes("trunkline.tasks.events.scenes:write_videos", 6, 4, 64),
        },
    ),
}

_ADDED: dict[str, Row] = {}


def add(tasks: dict[str, Row]) -> None:
    """Register tasks by name in this process."""
    _ADDED.update(tasks)


def rows() -> dict[str, Row]:
    """List all tasks by name: ours, other packages' (entry points `trunkline.tasks`, each a Row), and the added ones.

    No other task can take the name of one of ours.
    """
    return {**TASKS, **_others(), **_ADDED, **TASKS}


@cache  # a look through all installed packages
def _others() -> dict[str, Row]:
    return {e.name: e.load() for e in entry_points(group="trunkline.tasks")}


def tasks() -> dict[str, Any]:
    """List the tasks' classes by name."""
    return {name: row.task for name, row in rows().items()}


def options() -> dict[str, Any]:
    """List the classes of the tasks' options by name."""
    return {name: row.options for name, row in rows().items()}


def kind_of(name: str, options: Any) -> str:
    """Find which task of the table these options are of: the one called `name`, or else the one whose options they are.

    So a recipe can have several tasks of a kind, each under a name of its own.
    """
    kinds = [kind for kind, row in rows().items() if load_named(row.options) is type(options)]
    return name if name in kinds or not kinds else kinds[0]


def scenes() -> dict[str, Scenes]:
    """List the generated data sets by their name in `data=`."""
    return {name: found for row in rows().values() for name, found in row.scenes.items()}
