"""The run folder: all that a recipe produced, readable by people and machines. Imports no torch."""

import contextlib
import json
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from trunkline.ground.cache import cache_folder
from trunkline.ground.errors import RecipeError
from trunkline.ground.storage import at_home, is_remote, join

from .mirror import LEAVE, Mirror

FOLDS = "folds/"  # below a run: one for each fold, a run by itself

STATE = ("update", "engine", "facts", "phase", "over", "scores", "best", "stale", "total")
"""What a checkpoint of a run says besides its tensors."""


class Run:
    """A run's folder and what stands in it."""

    def __init__(self, path: str | Path):
        self.mirror = Mirror(str(path)) if is_remote(path) else None
        self.path = self.mirror.folder if self.mirror else Path(at_home(path))

    @property
    def shown(self) -> str:
        """The folder as its user knows it: its path, or its address."""
        return self.mirror.address if self.mirror else str(self.path)

    @property
    def logs(self) -> Path:
        """The folder of the logs of workers that do not lead."""
        if self.mirror is None:
            return self.path / "logs"
        return cache_folder() / "logs" / re.sub(r"\W+", "-", self.mirror.address)

    def pull(self, result: bool = False) -> None:
        """Fetch, of a run at an address, what is needed to go on with it; with `result`, what people look at instead."""
        if self.mirror:
            self.mirror.pull(("checkpoints/", "features/", FOLDS) if result else (*LEAVE, FOLDS))

    def push(self) -> None:
        """Send what changed, where the run is at an address."""
        if self.mirror:
            self.mirror.push()

    @property
    def checkpoints(self) -> Path:
        """The folder of the checkpoints."""
        return self.path / "checkpoints"

    @property
    def recipe(self) -> dict[str, Any]:
        """`recipe.json`: the recipe's name, what was given, every resolved field, and what `auto` became."""
        found = self.read("recipe.json")
        if not isinstance(found, dict) or not {"recipe", "resolved"} <= found.keys():
            raise RecipeError(
                f"{self.path / 'recipe.json'}: is no run's recipe; put the original back, or use another run"
            )
        return found

    @property
    def scores(self) -> dict[str, Any]:
        """`scores.json`: the metrics of the last evaluation at the top level, intervals and details."""
        return self.read("scores.json")

    @property
    def metrics(self) -> list[dict[str, Any]]:
        """The lines of `metrics.jsonl`; one that a crash cut off is left out."""
        file, found = self.path / "metrics.jsonl", []
        for line in file.read_text(encoding="utf-8", errors="replace").splitlines() if file.exists() else ():
            with contextlib.suppress(json.JSONDecodeError):
                found.append(json.loads(line))
        return found

    @property
    def weights(self) -> Path:
        """The published checkpoint: one safetensors file with class names and preprocessing."""
        return self.path / "weights.safetensors"

    @property
    def report(self) -> Path:
        """The report, one HTML file."""
        return self.path / "report.html"

    def exists(self) -> bool:
        """Say whether the folder holds a run."""
        return (self.path / "recipe.json").is_file()

    @property
    def trained(self) -> bool:
        """Whether anything was learnt that is kept: a checkpoint, or the published weights."""
        return self.weights.exists() or any(self.path.glob("weights/*.safetensors")) or self.saved > 0

    @property
    def saved(self) -> int:
        """The update of the newest checkpoint, of all folds where there are some; 0 where there is none."""
        patterns = ("checkpoints/[0-9]*/state.json", f"{FOLDS}[0-9]*/checkpoints/[0-9]*/state.json")
        names = (state.parent.name for pattern in patterns for state in self.path.glob(pattern))
        return max((int(name) for name in names if name.isdecimal()), default=0)

    def refuse_folds(self) -> None:
        """Raise RecipeError where the folder holds the runs of all folds of a data set, and no model of its own."""
        tasks = self.recipe["resolved"].get("tasks", {}).values() if self.exists() else ()
        if any(task.get("folds") and task.get("fold") is None for task in tasks):
            raise RecipeError(
                f"{self.shown}: holds a run for each fold of its data, and no model of its own: take one of them, such as "
                f"{self.fold(0)}; the pooled scores of all stand in {self.path / 'scores.json'}"
            )

    def fold(self, number: int) -> str:
        """Return the place of a fold's own run: a path, or an address."""
        return join(self.shown, f"{FOLDS}{number}")

    def forget(self, features: bool = False) -> None:
        """Remove what a failed start left: a run that has not trained yet may begin with another recipe.

        The features of a frozen trunk stay unless `features` is true: their files say which data and weights they are of.
        """
        if not self.exists() or self.trained:
            return
        names = ["metrics.jsonl", "environment.json", "load.json", "excluded.json"]
        files = [self.path / name for name in names]
        for pattern in (
            "data/*.tsv",
            "data/*/*.tsv",
            *(["features/*.safetensors", "features/*/*.safetensors"] * features),
        ):
            files += self.path.glob(pattern)
        files += self.path.glob("tensorboard/events.out.tfevents.*")
        for file in (*files, self.path / "recipe.json"):  # the recipe last
            file.unlink(missing_ok=True)
        for folder in ("data/*", "data", "features/*", "features", "tensorboard", "checkpoints", "folds"):
            for own in self.path.glob(folder):
                with contextlib.suppress(OSError):  # holds what is not ours
                    own.rmdir()

    def vanish(self) -> None:
        """Remove the folder after a first start that was a mistake, unless something was learnt or other files lie in it."""
        if not self.trained:
            self.forget(features=True)
            for own in (
                self.path / ".lock",
                *self.path.glob("logs/worker-*.log"),
                *self.path.glob("logs/ray/.validate*"),
            ):
                own.unlink(missing_ok=True)
            for folder in ("logs/ray", "logs"):
                with contextlib.suppress(OSError):  # not there, or holds what is not ours
                    (self.path / folder).rmdir()
            with contextlib.suppress(OSError):  # holds what is not ours
                self.path.rmdir()

    def manifest(self, split: str, task: str = "") -> list[str] | None:
        """Read the line of each sample that a split had when the run began; None where that is not known.

        `task` says which, where a run has several, here and in the methods below.
        """
        file = self.path / "data" / task / f"{split}.tsv"
        if not file.is_file():
            return None
        return file.read_text(encoding="utf-8", errors="surrogateescape").split("\n")[:-1]

    def keep_manifest(self, split: str, lines: list[str], task: str = "") -> None:
        """Store a line for each sample of a split as the run begins."""
        file = self.path / "data" / task / f"{split}.tsv"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8", errors="surrogateescape")

    def excluded(self, task: str = "") -> dict[str, str] | None:
        """Read what on_bad_sample=skip left out, the reason by the sample's id; None where nothing was checked."""
        found = self.read("excluded.json") if (self.path / "excluded.json").is_file() else None
        return found.get(task) if found is not None and task else found

    def keep_excluded(self, reasons: dict[str, str], task: str = "") -> None:
        """Store what is left out as the run begins: the reason by the sample's id."""
        before = self.read("excluded.json") if task and (self.path / "excluded.json").is_file() else {}
        self.write("excluded.json", {**before, task: reasons} if task else reasons)

    def records(self, task: str = "") -> Path:
        """Return the folder of the records of the last evaluation, and of examples."""
        return self.path / "predictions" / task

    def published(self, task: str = "") -> Path:
        """Return the file of the published weights; with several tasks there is one for each."""
        return self.path / "weights" / f"{task}.safetensors" if task else self.weights

    def read(self, name: str) -> Any:
        """Read a JSON file of the run. Raises RecipeError where it is missing or damaged."""
        try:
            return json.loads((self.path / name).read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise RecipeError(
                f"{self.path / name}: not there; is {self.path} a run's folder that has come this far?"
            ) from None
        except json.JSONDecodeError as error:
            raise RecipeError(
                f"{self.path / name}: damaged JSON ({error}); put the original back, or use another run"
            ) from None

    def write(self, name: str, value: Any) -> None:
        """Replace a JSON file of the run as one step."""
        self.path.mkdir(parents=True, exist_ok=True)
        beside = self.path / f".{name}.tmp"
        beside.write_text(json.dumps(value, indent=1, default=str), encoding="utf-8")
        beside.replace(self.path / name)

    def _repr_html_(self) -> str:
        import html

        return (
            f'<iframe srcdoc="{html.escape(self.report.read_text(encoding="utf-8"))}" width="100%" height="700"></iframe>'
            if self.report.exists()
            else f"<p>Run at <code>{html.escape(str(self.path))}</code></p>"
        )

    def __repr__(self) -> str:
        return f"Run({self.shown!r})"


@contextlib.contextmanager
def locked(run: Run, patience: float = 0.0) -> Iterator[None]:
    """Lock the run for this process. Raises RecipeError where another process still writes it after `patience` seconds."""
    run.path.mkdir(parents=True, exist_ok=True)
    try:
        import fcntl
    except ImportError:  # no such locks on this system
        yield
        return
    until = time.monotonic() + patience
    with (run.path / ".lock").open("w") as file:
        while True:
            try:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # not inherited by the loader's processes
                break
            except (BlockingIOError, PermissionError):
                if time.monotonic() < until:
                    time.sleep(0.25)
                    continue
                raise RecipeError(
                    f"{run.shown}: another process is writing this run; wait for it or choose another --run"
                ) from None
        yield


class Metrics:
    """Appends to `metrics.jsonl` and TensorBoard; on a resume what came after the checkpoint is dropped."""

    def __init__(self, run: Run, update: int, tensorboard: bool):
        self.file = run.path / "metrics.jsonl"
        kept = [m for m in run.metrics if m.get("update", 0) <= update and m["kind"] != "end"]
        beside = run.path / ".metrics.tmp"
        beside.write_text("".join(json.dumps(m) + "\n" for m in kept), encoding="utf-8")
        beside.replace(self.file)
        self.board: Any = None
        if tensorboard:
            os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
            from torch.utils.tensorboard import SummaryWriter

            self.board = SummaryWriter(str(run.path / "tensorboard"), purge_step=update + 1 if update else None)

    def add(self, line: dict[str, Any]) -> None:
        """Write one line; its floats go to TensorBoard as `kind/name` at its update."""
        with self.file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        if self.board:
            numbers = {**line, **line.get("losses", {}), **line.get("measured", {}), **line.get("metrics", {})}
            for player, own in line.get("players", {}).items():
                named = {**own, **own.get("losses", {}), **own.get("measured", {})}
                numbers |= {n if n.startswith(f"{player}/") else f"{player}/{n}": v for n, v in named.items()}
            for name, value in numbers.items():
                if isinstance(value, float) and name != "time":
                    self.board.add_scalar(f"{line['kind']}/{name}", value, line["update"])

    def close(self) -> None:
        """Write out what TensorBoard holds, and close it."""
        if self.board:
            self.board.close()
