"""What a segmenter says of one file."""

import base64
import io
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, ClassVar, Self

from ..predicted import Predicted

if TYPE_CHECKING:
    from PIL.Image import Image

    from ...heads.contract import Prediction

_NAMED = 3  # classes in a table's cell


@dataclass
class PredictedMask(Predicted):
    """The classes found with their shares of the pixels, the largest first, and the `mask`: a palette PNG in base64.

    A pixel of the PNG is the number of its class, whose name stands in `classes`.
    """

    columns: ClassVar[tuple[str, ...]] = ("classes", "shares")
    headings: ClassVar[tuple[str, ...]] = ("classes",)

    shares: dict[str, float] = field(default_factory=dict)
    classes: list[str] = field(default_factory=list)
    mask: str = ""

    @classmethod
    def of(cls, file: str, prediction: "Prediction", task: Any) -> Self:
        """Build it from what the task's `infer` gave for the file."""
        import numpy as np

        from ...heads.pixels.pixel_head import PixelPrediction
        from .formats.palette_png import palette_png

        assert isinstance(prediction, PixelPrediction)
        labels = prediction.labels
        counts = np.bincount(labels.ravel(), minlength=len(task.classes))
        order = [int(n) for n in np.argsort(-counts, kind="stable") if counts[n]]
        shares = {task.classes[n]: round(float(counts[n] / labels.size), 6) for n in order}
        png = base64.b64encode(palette_png(labels, task.palette)).decode()
        return cls(file, None, shares, list(task.classes), png)

    @classmethod
    def from_line(cls, line: dict[str, Any]) -> Self:
        """Read it back from JSON, or from an evaluation's record with its mask."""
        return cls(**{f.name: line[f.name] for f in fields(cls) if f.name in line})

    def found(self) -> dict[str, Any]:
        """Return the shares, the classes and the mask, for JSON."""
        return {"shares": self.shares, "classes": self.classes, "mask": self.mask}

    def row(self) -> list[str]:
        """Return two cells: the classes, and their shares."""
        return [", ".join(self.shares), ", ".join(f"{share:.4f}" for share in self.shares.values())]

    def cells(self) -> list[str]:
        """Return one cell: the three largest classes with their shares."""
        return [self.caption()]

    def caption(self) -> str:
        """Name the three largest classes with their shares."""
        from .draw import share_of

        return ", ".join(f"{name}\xa0{share_of(share)}" for name, share in list(self.shares.items())[:_NAMED])

    def files(self) -> dict[str, bytes]:
        """Return the bytes of the mask's PNG, for the folder `masks`."""
        return {"masks": base64.b64decode(self.mask)}

    def small(self) -> Any:
        """Draw the picture with its classes."""
        return self._drawn(False)

    def image(self) -> "Image":
        """Draw the picture with its classes and a legend."""
        return self._drawn(True)

    def _drawn(self, legend: bool) -> "Image":
        import numpy as np
        from PIL import Image

        from ..images.decode import read_as
        from .draw import draw, shaded

        with Image.open(io.BytesIO(base64.b64decode(self.mask))) as png:
            labels = np.asarray(png)
            channels = png.getpalette() or []
        palette = [(channels[i], channels[i + 1], channels[i + 2]) for i in range(0, 3 * len(self.classes), 3)]
        picture = read_as(self.file, self.depth, self.exif)
        return draw(picture, labels, self.classes, palette) if legend else shaded(picture, labels, palette)
