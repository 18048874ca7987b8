"""The demonstration: generated pictures and clips on disk, trainings, evaluations and reports, without a download."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from trunkline.ground.errors import RecipeError
from trunkline.ground.storage import at_home

from ..runs.run import Run
from ..show import note

SCALE = 4
_UPSCALER = {"backbone": "msrresnet", "blocks": 4, "width": 32}
_UPDATES = 300  # of the upscaler: about a minute of one core
_ACTION = {
    "weights": "none", "backbone": "resnet18", "shift": True, "size": 64, "frames": 4, "stride": 2, "batch": 8, "lr": 1e-3,
    "tasks.action.dropout": 0.0, "tasks.action.clips": 2, "evaluation.every": 2, "evaluation.batch": 25,
}  # fmt: skip
_EPOCHS = 6  # of the clips: the order of frames is learnt in the fourth or fifth
_TOGETHER = {"classification": "demo", "boxes": "demo:boxes", "pixels": "demo:pixels", "clips": "demo:clips"}
_SHOWN = 4  # clips that are predicted, of each class


def demo(
    folder: str | Path = "demo",
    *,
    tasks: tuple[str, ...] = (),
    epochs: float | None = None,
    seed: int = 0,
    smoke: bool = False,
) -> dict[str, Run]:
    """Train on generated data in FOLDER: a classifier (FOLDER/run), an upscaler (FOLDER/upscaler), and actions (FOLDER/actions).

    The classifier is a ResNet-18 on scenes of ten shapes (FOLDER/data); the second network learns on FOLDER/pictures, and what
    it makes of those in FOLDER/small goes to FOLDER/large, with a sheet beside bicubic. The third tells clips in which a shape
    falls from the same backwards (FOLDER/clips), and says what some of them show (FOLDER/seen). Returns the runs by their
    tasks' names; that of several tasks is called `joint`.

    tasks          all: in their place classes, boxes, pixels and clips on one trunk (FOLDER/joint; `demo-joint` is the recipe);
                   one of classification, boxes, pixels, clips: this one alone, with the same settings (FOLDER/alone-NAME)
    epochs         of each training; by default as many as it needs
    smoke          tiny sets and two updates
    """
    root = Path(at_home(folder))
    if root.exists() and not root.is_dir():
        raise RecipeError(f"{root}: is a file; give a folder")
    if tasks:
        if epochs is not None:
            raise RecipeError(f"epochs={epochs:g}: with tasks= the length is counted in updates; leave it out")
        return _together(root, tasks, {"seed": seed, "smoke": smoke})
    settings = {"seed": seed, "smoke": smoke} | ({} if epochs is None else {"epochs": epochs})
    runs = {
        "classification": _shapes(root, settings),
        "super_resolution": _pictures(root, settings),
        "action": _clips(root, settings),
    }
    note(
        "\nNow with your own pictures, in folders named after their classes (photos/cat/1.jpg, photos/dog/2.jpg, …):\n"
        "  trunkline check photos/\n"
        "  trunkline train transfer data=photos/ val=0.2 mode=probe --run runs/mine\n"
        "  trunkline evaluate runs/mine\n"
        "  trunkline predict runs/mine new-photos/\n"
        "or, to make pictures larger, in a folder as they are:\n"
        "  trunkline train upscale data=photos/ val=0.1 --run runs/x4\n"
        "  trunkline predict runs/x4 new-photos/ out=large\n"
        "or with clips, in folders named after what happens in them (clips/jump/1.mp4, clips/run/2.mp4, …; pip install "
        "'trunkline[video]' brings the decoder):\n"
        "  trunkline check clips/\n"
        "  trunkline train action data=clips/ val=0.2 mode=probe --run runs/actions\n"
        "  trunkline predict runs/actions new-clips/ out=seen pictures=true"
    )
    return runs


def _together(root: Path, tasks: tuple[str, ...], settings: dict[str, Any]) -> dict[str, Run]:
    """Train several tasks on one trunk, or one of them with the same settings."""
    from ..recipe.demo_data import write
    from ..recipes.demo_joint import chosen_of

    names = chosen_of(tasks)
    if "boxes" in names and not (find_spec("hotcoco") or find_spec("pycocotools")):
        raise RecipeError(
            f"tasks={','.join(tasks)}: boxes are scored by another package: pip install 'trunkline[coco]'"
        )
    data = {}
    for name in names:
        made = f"{_TOGETHER[name]}:smoke" if settings["smoke"] else _TOGETHER[name]
        data[f"tasks.{name}.data"] = str(write(made, root / made.replace(":", "-")))
        note(f"data: {data[f'tasks.{name}.data']} ({name})")
    place = root / ("joint" if len(names) > 1 else f"alone-{names[0]}")
    run = _trained("demo-joint", {"tasks": ",".join(names), **settings, **data}, place)
    note(
        "\nNow with your own data, in one folder or in one for each task:\n"
        "  trunkline train joint tasks=detection,segmentation,multilabel data=VOC2012 format=voc --run runs/together\n"
        "  trunkline train joint tasks=classification,detection tasks.classification.data=photos/ tasks.detection.data=boxes/\n"
        f"  trunkline evaluate {run.path}"
    )
    return {"joint" if len(names) > 1 else names[0]: run}


def _shapes(root: Path, settings: dict[str, Any]) -> Run:
    from ..recipe.demo_data import write

    data = write("demo:smoke" if settings["smoke"] else "demo", root / "data")
    note(f"data: {data} (class folders of generated scenes)")
    return _trained("demo", {"data": str(data), **settings}, root / "run")


def _pictures(root: Path, settings: dict[str, Any]) -> Run:
    from ..recipe.demo_data import write

    smoke = settings["smoke"]
    pictures = write("demo:pictures:smoke" if smoke else "demo:pictures", root / "pictures")
    note(f"\ndata: {pictures} (generated pictures, to be made {SCALE} times larger)")
    long = {} if smoke or "epochs" in settings else {"updates": _UPDATES}
    larger = {"data": str(pictures), "scale": SCALE, **_UPSCALER, **settings, **long}
    upscaler = _trained("upscale", larger, root / "upscaler")
    _beside_bicubic(upscaler, pictures / "val", root)
    return upscaler


def _clips(root: Path, settings: dict[str, Any]) -> Run:
    """Train on clips that one frame does not tell apart, and predict some of those that were held out, with strips."""
    from ..recipe.demo_data import write

    smoke = settings["smoke"]
    clips = write("demo:clips:smoke" if smoke else "demo:clips", root / "clips")
    note(f"\ndata: {clips} (folders of frames: a shape falls, or the same backwards: it rises; only the order tells)")
    long = {} if smoke or "epochs" in settings else {"epochs": _EPOCHS}
    run = _trained("action", {"data": str(clips), **_ACTION, **settings, **long}, root / "actions")
    _see(run, clips / "val", root)
    return run


def _see(run: Run, clips: Path, root: Path) -> None:
    """Predict some clips of each class, draw them as strips of frames, and say how many are right."""
    from ..prediction.predict import predict

    some = [clip for cls in sorted(clips.iterdir()) for clip in sorted(cls.iterdir())[:_SHOWN]]
    found = predict(run.path, some, out=root / "seen", pictures=True)
    right = sum(one.found()["label"] == Path(one.file).parent.name for one in found)
    note(
        f"{right} of {len(found)} clips right\n  strips {root / 'seen/sheet.png'}, and each in {root / 'seen/pictures'}/"
    )


def _trained(recipe: str, settings: dict[str, Any], place: Path) -> Run:
    """Train by a recipe with these settings."""
    from ..recipe.knobs import resolve
    from ..training.train import train

    return train(resolve(recipe, settings), place)


def scores_of(runs: dict[str, Run]) -> dict[str, Any]:
    """Join the scores as `--json` prints them: the first run's (the classifier's, or that of `tasks`) at the top level.

    The others stand under their tasks' names.
    """
    scores = {name: {key: value for key, value in run.scores.items() if key != "details"} for name, run in runs.items()}
    return scores.pop(next(iter(runs))) | scores


def _beside_bicubic(upscaler: Run, large: Path, root: Path) -> None:
    """Make the small ones of a folder of pictures larger by the network and by bicubic, and say how both score."""
    from ...tasks.super_resolution.files import Picture, read_picture, write_picture
    from ...tasks.super_resolution.resize import shrunk
    from ..prediction.bicubic import bicubic
    from ..prediction.predict import predict
    from ..score.score_images import images

    small = root / "small"
    small.mkdir(exist_ok=True)
    for file in sorted(large.iterdir()):
        write_picture(small / file.name, Picture(shrunk(read_picture(file).pixels, SCALE)))
    predict(upscaler.path, small, out=root / "large")
    list(bicubic(small, scale=SCALE, out=root / "bicubic"))
    plain, ours = images(large, root / "bicubic", scale=SCALE).metrics, upscaler.scores
    note(
        f"psnr_y {ours['psnr_y']:.2f} dB, bicubic {plain['psnr_y']:.2f}; ssim_y {ours['ssim_y']:.3f}, bicubic "
        f"{plain['ssim_y']:.3f}\n  pictures {root / 'large/sheet.png'}: left halves by bicubic, right halves by the network"
    )
