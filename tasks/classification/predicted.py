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
        """From probabilities; the task's `top` says how many classes are named."""
        probabilities = prediction.probabilities  # type: ignore[attr-defined]
        order = (-probabilities).argsort(kind="stable")[: task.options.top]
        best = [(task.classes[i], float(probabilities[i])) for i in order]
        return cls(file, None, best[0][0], best[0][1], best)

    @classmethod
    def from_line(cls, line: dict[str, Any]) -> Self:
        """Back from JSON."""
        return cls(**{**line, "top": [(name, share) for name, share in line.get("top", ())]})

    def found(self) -> dict[str, Any]:
        """As JSON."""
        return {"label": self.label, "confidence": self.confidence, "top": [list(pair) for pair in self.top]}

    def row(self) -> list[str]:
        """Label and confidence."""
        return [self.label or "", f"{self.confidence:.6f}" if self.label else ""]

    def cells(self) -> list[str]:
        """And the next two classes."""
        return [self.label or "", f"{self.confidence:.1%}", ", ".join(f"{n} {c:.1%}" for n, c in self.top[1:3])]

    def caption(self) -> str:
        """The class and its probability."""
        return f"{self.label} {self.confidence:.0%}"

    def image(self) -> "Image":
        """The picture with its likeliest class below it."""
        from ..images.drawing import contact_sheet

        return contact_sheet([(self.small(), self.caption())], columns=1)
