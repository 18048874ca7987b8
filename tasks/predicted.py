"""What a prediction of one file is to people and machines: a line of JSON, a row of a table, a picture."""

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

if TYPE_CHECKING:
    from PIL.Image import Image

    from ..heads.contract import Prediction


@dataclass
class Predicted:
    """One file, and why it could not be read, if so; each task adds what it says of it."""

    columns: ClassVar[tuple[str, ...]] = ()  # of a CSV file, behind the file's name
    headings: ClassVar[tuple[str, ...]] = ()  # of a table for people

    file: str
    error: str | None = None

    @classmethod
    def of(cls, file: str, prediction: "Prediction", task: Any) -> Self:
        """From what the task's `infer` gave for the file."""
        raise NotImplementedError

    def line(self) -> dict[str, Any]:
        """As JSON."""
        return {"file": self.file, **({"error": self.error} if self.error else self.found())}

    @classmethod
    def from_line(cls, line: dict[str, Any]) -> Self:
        """Back from JSON."""
        return cls(**line)

    def found(self) -> dict[str, Any]:
        """What it says, as JSON."""
        raise NotImplementedError

    def row(self) -> list[str]:
        """A cell for each of `columns`."""
        raise NotImplementedError

    def cells(self) -> list[str]:
        """A cell for each of `headings`."""
        return self.row()

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.image().save(buffer, "PNG")
        return buffer.getvalue()

    def image(self) -> "Image":
        """The picture with what is said of it."""
        raise NotImplementedError

    def caption(self) -> str:
        """A few words below a small picture."""
        raise NotImplementedError

    def small(self) -> Any:
        """The small picture: the file's own, or one drawn upon."""
        from .images import read_image

        return read_image(self.file)
