"""What a classifier says of one file."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Self

from ..predicted import Predicted

if TYPE_CHECKING:
    from PIL.Image import Image

    from ...heads.contract import Prediction


@dataclass
class PredictedClass(Predicted):
    """The likeliest class, its probability, and the likeliest ones with theirs, best first."""

    columns: ClassVar[tuple[str, ...]] = ("label", "confidence")
    headings: ClassVar[tuple[str, ...]] = ("class", "", "next")

    label: str | None = None
    confidence: float = 0.0
    top: list[tuple[str, float]] = field(default_factory=list)

    @classmethod
    def of(cls, file: str, prediction: "Prediction", task: Any) -> Self:
        """List the likeliest classes by the prediction's `probabilities` `(K,)`; the task's `top` says how many."""
        probabilities = prediction.probabilities  # type: ignore[attr-defined]
        order = (-probabilities).argsort(kind="stable")[: task.options.top]
        best = [(task.classes[i], float(probabilities[i])) for i in order]
        return cls(file, None, best[0][0], best[0][1], best)

    @classmethod
    def from_line(cls, line: dict[str, Any]) -> Self:
        """Rebuild a prediction from a line of JSON."""
        return cls(**{**line, "top": [(name, share) for name, share in line.get("top", ())]})

    def found(self) -> dict[str, Any]:
        """Return label, confidence and likeliest classes as data for JSON."""
        return {"label": self.label, "confidence": self.confidence, "top": [list(pair) for pair in self.top]}

    def row(self) -> list[str]:
        """Return label and confidence as text; both are empty where there is no label."""
        return [self.label or "", f"{self.confidence:.6f}" if self.label else ""]

    def cells(self) -> list[str]:
        """Return label, confidence, and the next two classes with theirs, as text."""
        return [self.label or "", f"{self.confidence:.1%}", ", ".join(f"{n} {c:.1%}" for n, c in self.top[1:3])]

    def caption(self) -> str:
        """Return the class and its probability as text."""
        return f"{self.label} {self.confidence:.0%}"

    def image(self) -> "Image":
        """Draw the picture with its likeliest class below it."""
        from ..images.drawing import contact_sheet

        return contact_sheet([(self.small(), self.caption())], columns=1)
