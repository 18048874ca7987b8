"""The demonstration: generated pictures on disk, two trainings, evaluations and reports, without a download."""

from pathlib import Path
from typing import Any

from trunkline.ground.errors import RecipeError
from trunkline.ground.storage import at_home

from ..runs.run import Run
from ..show import note

SCALE = 4
_UPSCALER = {"backbone": "msrresnet", "blocks": 4, "width": 32}
_UPDATES = 300  # of the upscaler: about a minute of one core


def demo(
    folder: str | Path = "demo", *, epochs: float | None = None, seed: int = 0, smoke: bool = False
) -> dict[str, Run]:
    """Train on generated pictures in FOLDER: a classifier in FOLDER/run, and a network that makes them larger in FOLDER/upscaler.

    The classifier is a ResNet-18 on scenes of ten shapes (FOLDER/data); the other network learns on FOLDER/pictures, and what it
    makes of those in FOLDER/small goes to FOLDER/large, with a sheet beside bicubic. Returns the two runs by their tasks' names.

    epochs         of each training; by default as many as it needs
    smoke          tiny sets and two updates
    """
    from ..recipe.demo_data import write
    from ..recipe.knobs import resolve
    from ..training.train import train

    root = Path(at_home(folder))
    if root.exists() and not root.is_dir():
        raise RecipeError(f"{root}: is a file; give a folder")
    data = root / "data"
    write("demo:smoke" if smoke else "demo", data)
    note(f"data: {data} (class folders of generated scenes)")
    settings = {"seed": seed, "smoke": smoke} | ({} if epochs is None else {"epochs": epochs})
    run = train(resolve("demo", {"data": str(data), **settings}), root / "run")

    pictures = root / "pictures"
    write("demo:pictures:smoke" if smoke else "demo:pictures", pictures)
    note(f"\ndata: {pictures} (generated pictures, to be made {SCALE} times larger)")
    if epochs is None and not smoke:
        settings["updates"] = _UPDATES
    larger = {"data": str(pictures), "scale": SCALE, **_UPSCALER, **settings}
    upscaler = train(resolve("upscale", larger), root / "upscaler")
    _beside_bicubic(upscaler, pictures / "val", root)
    note(
        "\nNow with your own pictures, in folders named after their classes (photos/cat/1.jpg, photos/dog/2.jpg, …):\n"
        "  trunkline check photos/\n"
        "  trunkline train transfer data=photos/ val=0.2 mode=probe --run runs/mine\n"
        "  trunkline evaluate runs/mine\n"
        "  trunkline predict runs/mine new-photos/\n"
        "or, to make pictures larger, in a folder as they are:\n"
        "  trunkline train upscale data=photos/ val=0.1 --run runs/x4\n"
        "  trunkline predict runs/x4 new-photos/ out=large"
    )
    return {"classification": run, "super_resolution": upscaler}


def scores_of(runs: dict[str, Run]) -> dict[str, Any]:
    """Join the scores as `--json` prints them: the classifier's at the top level, the other run's under its task's name."""
    scores = {name: {key: value for key, value in run.scores.items() if key != "details"} for name, run in runs.items()}
    return scores.pop("classification") | scores


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
