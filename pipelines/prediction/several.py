"""One file predicted by several tasks of a run, each picture through the trunk once."""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from trunkline.ground.errors import DataError, RecipeError

from ...tasks.contract import Task
from ...tasks.images.decode import HOW_TO_GO_ON, decoded_once
from ...tasks.images.drawing import contact_sheet
from ...tasks.predicted import Predicted
from ...tasks.samples import Sample
from ..evaluation.measure import inference
from ..evaluation.together import in_passes, passes
from ..models.assembly import Ready

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass
class PredictedBySeveral(Predicted):
    """What each task says of one file. A line of JSON has a field for each task."""

    across: ClassVar[int] = 2
    kinds: ClassVar[Mapping[str, type[Predicted]]] = {}

    by_task: dict[str, Predicted] = field(default_factory=dict)

    def found(self) -> dict[str, Any]:
        """Return what each task found, by its name."""
        return {name: own.found() for name, own in self.by_task.items()}

    @classmethod
    def from_line(cls, line: dict[str, Any]) -> Self:
        """Build it from what `line` gave."""
        how = {name: line[name] for name in ("depth", "exif") if name in line}
        remarks = tuple(line.get("remarks", ()))
        of = {
            name: kind.from_line({"file": line["file"], **how, **line[name]})
            for name, kind in cls.kinds.items()
            if name in line
        }
        return cls(line["file"], line.get("error"), of, remarks=remarks, **how)

    def row(self) -> list[str]:
        """Write the cells of every task."""
        return [cell for own in self.by_task.values() for cell in own.row()]

    def cells(self) -> list[str]:
        """Write the cells of every task for people."""
        return [cell for own in self.by_task.values() for cell in own.cells()]

    def caption(self) -> str:
        """Write every task's words, each with its name before them."""
        return "; ".join(self.below())

    def below(self) -> list[str]:
        """Write a line for each task, its name before its words."""
        return [f"{name}: {own.caption()}" for name, own in self.by_task.items()]

    def small(self) -> Any:
        """Draw what all tasks say in a square of pictures."""
        return self._page(math.isqrt(len(self.by_task) - 1) + 1)

    def files(self) -> dict[str, bytes]:
        """Give the files of every task, in folders `TASK-KIND`."""
        return {f"{name}-{kind}": data for name, own in self.by_task.items() for kind, data in own.files().items()}

    def image(self) -> "Image":
        """Draw what each task says of the picture, side by side, with its name below."""
        return self._page(len(self.by_task))

    def _page(self, columns: int) -> "Image":
        cells = [(own.image(), f"{name}: {own.caption()}") for name, own in self.by_task.items()]
        return contact_sheet(cells, columns=columns, width=320)


@dataclass(frozen=True)
class SeveralTasks:
    """Stands for the tasks where a prediction asks for the class of one; they read the same files."""

    name: str
    predicted: type[PredictedBySeveral]
    unit: str
    together: int
    inputs_are: str
    inputs: Callable[[str], Iterator[Path]]
    left_out: Callable[[str], str]


def several(kinds: Mapping[str, type[Task]], settings: Mapping[str, Any]) -> SeveralTasks:
    """Make what stands for several tasks. Raises RecipeError where they read other files, or write files of their own.

    `settings` are those of `predict` that only one task at a time can follow, by name; empty ones were not given.
    """
    given = f"tasks={','.join(kinds)}"
    first = next(iter(kinds.values()))
    reading: dict[Any, list[str]] = {}
    for name, kind in kinds.items():
        reading.setdefault(kind.inputs.__func__, []).append(name)  # type: ignore[attr-defined]
    if len(reading) > 1:
        said = "; ".join(f"{kinds[names[0]].inputs_are}s: {', '.join(names)}" for names in reading.values())
        raise RecipeError(
            f"{given}: predict different kinds of files ({said}); predict with those of one kind at a time"
        )
    if named := [name for name, kind in kinds.items() if kind.predicted.named]:
        raise RecipeError(f"{given}: {', '.join(named)} makes files of its own: predict with task={named[0]}")
    if alone := [f"{key}={value}" for key, value in settings.items() if value]:
        raise RecipeError(f"{', '.join(alone)}: is for one task; give task=, one of {', '.join(kinds)}")
    of = {name: kind.predicted for name, kind in kinds.items()}
    columns = tuple(f"{name} {column}" for name, kind in of.items() for column in kind.columns)
    headings = tuple(f"{name} {heading}".strip() for name, kind in of.items() for heading in kind.headings)
    made: Any = type("PredictedByThese", (PredictedBySeveral,), {"kinds": of, "columns": columns, "headings": headings})
    together = min(kind.together for kind in kinds.values())
    return SeveralTasks(",".join(kinds), made, first.unit, together, first.inputs_are, first.inputs, first.left_out)


def _how(task: Task) -> tuple[str, str]:
    """Return how deep the task's files are read, and `ignore` where their EXIF orientation is."""
    depth, exif = (getattr(task.options, name, "") for name in ("depth", "exif"))
    return depth, "ignore" if exif == "ignore" else ""


def computer_of(found: Ready, names: list[str], settings: dict[str, Any]) -> Callable[[list[str]], list[Predicted]]:
    """Return a function from a batch's file names to the predictions of all these tasks, one for each file."""
    tasks = {name: found.tasks[name] for name in names}
    kind = several({name: type(task) for name, task in tasks.items()}, {}).predicted
    transforms = {name: task.transform(False) for name, task in tasks.items()}
    device = next(found.model.parameters()).device

    how = {name: _how(task) for name, task in tasks.items()}

    def failed(file: str, error: DataError) -> Predicted:
        if settings["on_bad_sample"] == "stop":
            raise error
        return kind(file, error=str(error).partition(f"; {HOW_TO_GO_ON}")[0])

    def read(file: str) -> dict[str, Sample]:
        with decoded_once():
            return {name: transforms[name](task.read(file)) for name, task in tasks.items()}

    def predicted(group: list[dict[str, Sample]]) -> list[Predicted]:
        places = list(range(len(group)))
        batches = {name: (places, task.collate([one[name] for one in group])) for name, task in tasks.items()}
        said = in_passes(found.model, passes(batches), lambda name, batch: tasks[name].infer(found.model, batch))
        made = []
        for place, one in enumerate(group):
            file = next(iter(one.values())).id
            own = {name: type(tasks[name]).predicted.of(file, said[name][place], tasks[name]) for name in names}
            for name, predicted in own.items():
                predicted.depth, predicted.exif = how[name]
            depth, exif = max(how.values())
            made.append(kind(file, None, own, depth=depth, exif=exif))
        return made

    def infer(group: list[dict[str, Sample]]) -> list[Predicted]:
        try:
            return predicted(group)
        except DataError as error:  # of what is read while it is predicted: the others are taken without it
            if len(group) == 1:
                return [failed(next(iter(group[0].values())).id, error)]
            return [made for one in group for made in infer([one])]

    def compute(files: list[str]) -> list[Predicted]:
        result: dict[int, Predicted] = {}
        alike: dict[Any, list[tuple[int, dict[str, Sample]]]] = {}
        for n, file in enumerate(files):
            try:
                one = read(file)
            except DataError as error:
                result[n] = failed(file, error)
                continue
            mark = tuple(tasks[name].alike(sample) for name, sample in one.items())
            alike.setdefault(mark, []).append((n, one))
        with inference(found.model, settings["precision"], device):
            for group in alike.values():
                made = infer([one for _, one in group])
                result |= {n: p for (n, _), p in zip(group, made, strict=True)}
        return [result[n] for n in range(len(files))]

    return compute
