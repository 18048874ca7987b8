"""What a detector says of one file."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from ..predicted import Predicted
from .draw import LEAST, draw, drawn

if TYPE_CHECKING:
    from PIL.Image import Image

    from ...heads.contract import Prediction


@dataclass
class PredictedObjects(Predicted):
    """Objects, best score first: `boxes` x, y, width, height in the picture's pixels, `labels`, `scores`; with masks their
    run-length codes (COCO's compressed form)."""

    columns: ClassVar[tuple[str, ...]] = ("objects", "best")
    headings: ClassVar[tuple[str, ...]] = ("objects", "best")
    labels_as: ClassVar[tuple[str, ...]] = ("coco", "voc", "yolo", "labelme", "labelstudio", "csv")

    boxes: list[list[float]] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    masks: list[dict[str, Any]] | None = None
    numbers: list[int] = field(default_factory=list)  # of each label's class, which decides its colour
    drawn: float = LEAST  # the lowest score that pictures show

    @classmethod
    def of(cls, file: str, prediction: "Prediction", task: Any) -> Self:
        """Build it from a prediction of the task's `infer`."""
        from .evaluator import record

        said = record(prediction, task.classes)  # type: ignore[arg-type]
        said.pop("id")
        return cls(
            file,
            **said,
            drawn=drawn(task.options),
        )

    def found(self) -> dict[str, Any]:
        """Return the objects as data for JSON."""
        masks = {} if self.masks is None else {"masks": self.masks}
        drawn = {} if self.drawn == LEAST else {"drawn": self.drawn}
        return {
            "boxes": self.boxes,
            "labels": self.labels,
            "scores": self.scores,
            **masks,
            "numbers": self.numbers,
            **drawn,
        }

    def row(self) -> list[str]:
        """Count the objects of each class, and list the best three with their scores."""
        counts = ", ".join(f"{n} {name}" for name, n in Counter(self.labels).most_common())
        return [counts or "none", ", ".join(f"{n} {s:.2f}" for n, s in zip(self.labels[:3], self.scores, strict=False))]

    def caption(self) -> str:
        """Count the objects of each class, of those that the picture shows."""
        shown = Counter(n for n, s in zip(self.labels, self.scores, strict=True) if s >= self.drawn)
        return ", ".join(f"{n} {name}" for name, n in shown.most_common()) or "nothing found"

    def small(self) -> Any:
        """Draw the picture with its objects."""
        return self.image()

    def image(self) -> "Image":
        """Draw the picture with its objects: masks, boxes, names, scores."""
        import numpy as np

        from ...heads.boxes import BoxPrediction
        from ..contract import Sample
        from ..images.decode import read_as

        names = dict(zip(self.numbers, self.labels, strict=True))
        corners = np.array(self.boxes, np.float64).reshape(-1, 4)
        corners[:, 2:] += corners[:, :2]
        labels = np.array(self.numbers, np.int64)
        prediction = BoxPrediction(self.file, corners, labels, np.array(self.scores), codes=self.masks)
        return draw(
            Sample(self.file, self.file, read_as(self.file, self.depth, self.exif)), prediction, names, self.drawn
        )

    @classmethod
    def write_labels(cls, form: str, folder: Path, found: Iterable[Self], task: Any) -> list[str]:
        """Write the objects that pictures show as labels of a format, beside links to the pictures; list what is lost."""
        from ..images.decode import stored_size
        from ..objects.labels.labelled import Labelled, Picture
        from ..objects.labels.write import Split, write

        pictures, sources, names = [], [], Counter()
        for one in found:
            if one.error:
                continue
            height, width, turned = stored_size(one.file)
            masks = one.masks or [None] * len(one.boxes)
            objects = [
                Labelled(label, tuple(box), mask, score=score)  # type: ignore[arg-type]
                for label, box, mask, score in zip(one.labels, one.boxes, masks, one.scores, strict=True) if score >= one.drawn
            ]  # fmt: skip
            path = Path(one.file)
            names[path.stem] += 1
            again = f"-{names[path.stem]}" if names[path.stem] > 1 else ""
            sides = (height, width) if turned > 4 and one.exif != "ignore" else (width, height)
            pictures.append(Picture(f"{path.stem}{again}{path.suffix}", *sides, objects))
            sources.append(path.absolute())
        if not pictures:
            return []
        return write(
            form,
            folder,
            [Split("predicted", Path("/"), pictures)],
            task.classes,
            "link",
            sources={"predicted": sources},
        )
