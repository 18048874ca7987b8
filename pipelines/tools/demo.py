"""The demonstration: generated scenes on disk, a training, an evaluation and a report, without a download."""

from pathlib import Path

from trunkline.ground.errors import RecipeError
from trunkline.ground.storage import at_home

from ..runs.run import Run
from ..show import note


def demo(folder: str | Path = "demo", *, epochs: float | None = None, seed: int = 0, smoke: bool = False) -> Run:
    """Write scenes of ten shapes into FOLDER/data, train ResNet-18 on them, evaluate and report in FOLDER/run.

    epochs         of training; by default the recipe's
    smoke          a tiny set and two updates
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
    settings = {"data": str(data), "seed": seed, "smoke": smoke} | ({} if epochs is None else {"epochs": epochs})
    run = train(resolve("demo", settings), root / "run")
    note(
        "\nNow with your own pictures, in folders named after their classes (photos/cat/1.jpg, photos/dog/2.jpg, …):\n"
        "  trunkline check photos/\n"
        "  trunkline train transfer data=photos/ val=0.2 mode=probe --run runs/mine\n"
        "  trunkline evaluate runs/mine\n"
        "  trunkline predict runs/mine new-photos/"
    )
    return run
