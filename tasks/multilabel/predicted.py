"""What a model of several labels says of one file."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Self

from ..predicted import Predicted

if TYPE_CHECKING:
    from PIL.Image import Image

    from ...heads.contract import Prediction


@dataclass
class PredictedLabels(Predicted):
    """The classes of at least the task's `threshold`, and the likeliest ones whatever it is, best first with probabilities."""

    columns: ClassVar[tuple[str, ...]] = ("labels", "probabilities")
    headings: ClassVar[tuple[str, ...]] = ("classes", "likeliest")

    labels: list[tuple[str, float]] = field(default_factory=list)
    top: list[tuple[str, float]] = field(default_factory=list)

    @classmethod
    def of(cls, file: str, prediction: "Prediction", task: Any) -> Self:
        """List the classes by the prediction's `probabilities` `(K,)`; the task's `top` says how many of the likeliest."""
        probabilities = prediction.probabilities  # type: ignore[attr-defined]
        order = (-probabilities).argsort(kind="stable")
        every = [(task.classes[i], float(probabilities[i])) for i in order]
        return cls(file, None, [(n, p) for n, p in every if p >= task.options.threshold], every[: task.options.top])

    @classmethod
    def from_line(cls, line: dict[str, Any]) -> Self:
        """Rebuild a prediction from a line of JSON."""
        pairs = {key: [(name, p) for name, p in line.get(key, ())] for key in ("labels", "top")}
        return cls(**{**line, **pairs})

    def found(self) -> dict[str, Any]:
        """Return the classes that are there, and the likeliest ones, as data for JSON."""
        return {"labels": [list(pair) for pair in self.labels], "top": [list(pair) for pair in self.top]}

    def row(self) -> list[str]:
        """Return the classes and their probabilities as text, separated by |; both are empty where there is none."""
        return ["|".join(name for name, _ in self.labels), "|".join(f"{p:.6f}" for _, p in self.labels)]

    def cells(self) -> list[str]:
        """Return the classes with their probabilities, and the likeliest of the others, as text."""
        others = [pair for pair in self.top if pair not in self.labels]
        return [_listed(self.labels) or "none", _listed(others[:2])]

    def caption(self) -> str:
        """Return the classes with their probabilities as text."""
        return ", ".join(f"{name} {p:.0%}" for name, p in self.labels) or "none"

    def image(self) -> "Image":
        """Draw the picture with its classes below it."""
        from ..images.drawing import contact_sheet

        return contact_sheet([(self.small(), self.caption())], columns=1)


def _listed(pairs: list[tuple[str, float]]) -> str:
    return ", ".join(f"{name} {p:.1%}" for name, p in pairs)
