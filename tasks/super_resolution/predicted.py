"""A picture that was made larger, as the file that it becomes."""

import base64
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from trunkline.ground.errors import DataError

from ..predicted import Predicted

if TYPE_CHECKING:
    from PIL.Image import Image

    from ...heads.contract import Prediction

SMALL = (400, 400)  # pixels at most: twice a sheet's cell


@dataclass
class PredictedUpscale(Predicted):
    """The file's bytes in base64, `content`, of the format `ext`, with its size in pixels and bits a channel."""

    columns: ClassVar[tuple[str, ...]] = ("width", "height", "bits")
    headings: ClassVar[tuple[str, ...]] = ("width", "height")
    named = True

    width: int = 0
    height: int = 0
    bits: int = 8
    ext: str = "png"
    content: str = ""
    remark: str = ""

    @classmethod
    def of(cls, file: str, prediction: "Prediction", task: Any) -> Self:
        """Build it from an Enlarged: the file that `task.writing` asks for. Raises DataError for bits that a format lacks."""
        from .files import encoded

        picture, ext = task.finished(file, prediction)
        height, width = picture.pixels.shape[:2]
        content = base64.b64encode(encoded(f"{file}.{ext}", picture, task.writing.quality)).decode()
        return cls(
            file, None, width, height, picture.pixels.itemsize * 8, ext, content, getattr(prediction, "remark", "")
        )

    def found(self) -> dict[str, Any]:
        """Return all of it, for JSON."""
        size = {"width": self.width, "height": self.height, "bits": self.bits, "ext": self.ext}
        return {**size, "content": self.content, **({"remark": self.remark} if self.remark else {})}

    def kept(self) -> dict[str, Any]:
        """Return the line without the picture, which has a file of its own."""
        return {name: value for name, value in self.line().items() if name != "content"}

    def file_content(self) -> bytes:
        """Return the bytes of the file."""
        return base64.b64decode(self.content)

    @classmethod
    def from_kept(cls, line: dict[str, Any], content: bytes) -> Self:
        """Build it from what `kept` gave and the bytes of its file."""
        own = {f.name: line[f.name] for f in fields(cls) if f.name in line}
        return cls.from_line({**own, "content": base64.b64encode(content).decode()})

    @classmethod
    def damage(cls, file: Path, line: dict[str, Any]) -> str:
        """Say what is wrong with a file that was written before: it is no picture any more, or has another size."""
        from ..images import decode
        from .files import look_at

        try:
            look = look_at(file)
        except DataError as error:
            return str(error).removeprefix(f"{decode.shown(file)}: ")
        if (look.width, look.height) == (line.get("width"), line.get("height")):
            return ""
        return f"has {look.width} x {look.height} pixels now, not {line.get('width')} x {line.get('height')}"

    def row(self) -> list[str]:
        """Write width, height and bits."""
        return [str(self.width), str(self.height), str(self.bits)]

    def cells(self) -> list[str]:
        """Write width and height."""
        return self.row()[:2]

    def caption(self) -> str:
        """Write its file's name and its size, and which half of `small` is which."""
        return f"{Path(self.file).name}: {self.width} x {self.height}, bicubic | made"

    def small(self) -> Any:
        """Draw the picture, small, on the left by bicubic, on the right as it was made."""
        from .draw import halves

        page = halves(self._opened(), self.file)
        page.thumbnail(SMALL)
        return page

    def image(self) -> "Image":
        """Draw the whole picture, on the left by bicubic, on the right as it was made."""
        from .draw import beside_bicubic

        return beside_bicubic(self._opened(), self.file)

    def _opened(self) -> "Image":
        from .draw import shown
        from .files import decoded

        return shown(decoded(f"what was made of {self.file}", bytearray(self.file_content())).pixels)
