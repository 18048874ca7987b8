"""What a prediction of one file is to people and machines: a line of JSON, a row of a table, a picture."""

import base64
import io
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from trunkline.ground.ranges import Range, ranged

if TYPE_CHECKING:
    from PIL.Image import Image

    from ..heads.contract import Prediction


@dataclass(frozen=True)
class Writing:
    """How what is a file of its own is written: said to `predict` each time, stored by no run and no weights.

    suffix    stands behind each name (_x4)
    ext       the format of all (png), which is also the end of their names; empty: each keeps its own
    quality   of JPEG and WebP
    outscale  how many times as large as its source a picture becomes; None: as large as it was made
    features  the folder for features over time; empty: none are written
    """

    suffix: str = ""
    ext: str = ""
    quality: int = ranged(95, Range(1, 100))
    outscale: float | None = ranged(None, Range(0, 16, "a number above 0, up to 16", low_in=False))
    features: str = ""

    @property
    def end(self) -> str:
        """The end of every name, in small letters and with its dot; empty: each file's own."""
        return f".{self.ext.lower().lstrip('.')}" if self.ext else ""

    def problems(self) -> list[str]:
        """Refuse a suffix that would be a folder."""
        if {"/", "\\", "\0"} & {*self.suffix}:
            return [f"suffix={self.suffix}: expected a part of a name, without slashes"]
        return []


@dataclass
class Predicted:
    """One file, with the reason where it could not be read; each task adds what it says of it."""

    columns: ClassVar[tuple[str, ...]] = ()  # of a CSV file, behind the file's name
    headings: ClassVar[tuple[str, ...]] = ()  # of a table for people
    labels_as: ClassVar[tuple[str, ...]] = ()  # the formats of `write_labels`
    has_features: ClassVar[bool] = False  # whether the task's `infer` writes features over time (`over_time.py`)
    across: ClassVar[int] = 1  # how many places of a contact sheet its small picture is wide
    named: ClassVar[bool] = False  # whether it is a file of its own, called as its input is; it has `file_content` then

    file: str
    error: str | None = None
    depth: str = field(default="", kw_only=True)  # how the file was read, where it has more than 8 bits a channel
    exif: str = field(default="", kw_only=True)  # ignore: it was read as it is stored, without its EXIF orientation
    remarks: tuple[str, ...] = field(default=(), kw_only=True)  # what people should know of how it was read

    @classmethod
    def of(cls, file: str, prediction: "Prediction", task: Any) -> Self:
        """Build it from what the task's `infer` gave for the file."""
        raise NotImplementedError

    def line(self) -> dict[str, Any]:
        """Convert it to JSON: the file, and its error or what `found` gives."""
        how: dict[str, Any] = {name: value for name in ("depth", "exif") if (value := getattr(self, name))}
        if self.remarks:
            how["remarks"] = list(self.remarks)
        return {"file": self.file, **how, **({"error": self.error} if self.error else self.found())}

    @classmethod
    def from_line(cls, line: dict[str, Any]) -> Self:
        """Build it from what `line` gave."""
        return cls(**line)

    def kept(self) -> dict[str, Any]:
        """Return what of `line` is written; of what is a file of its own, all but its content."""
        return self.line()

    def file_content(self) -> bytes:
        """Return the bytes of the file that it is."""
        raise NotImplementedError

    @classmethod
    def from_kept(cls, line: dict[str, Any], content: bytes) -> Self:
        """Build it from what `kept` gave and the bytes of its file."""
        raise NotImplementedError

    @classmethod
    def damage(cls, file: Path, line: dict[str, Any]) -> str:
        """Say what is wrong with a file that was written before, whose `kept` gave `line`; "" where it may be whole."""
        return ""

    def found(self) -> dict[str, Any]:
        """Convert what is said of the file to JSON."""
        raise NotImplementedError

    def row(self) -> list[str]:
        """Write a cell for each of `columns`."""
        raise NotImplementedError

    def cells(self) -> list[str]:
        """Write a cell for each of `headings`."""
        return self.row()

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.image().save(buffer, "PNG")
        return buffer.getvalue()

    def image(self) -> "Image":
        """Draw the picture with what is said of it."""
        raise NotImplementedError

    def caption(self) -> str:
        """Write a few words for below a small picture."""
        raise NotImplementedError

    def below(self) -> "str | list[str]":
        """Give what stands below the picture on a contact sheet: the caption, or a line for each text of a list."""
        return self.caption()

    @classmethod
    def write_labels(cls, form: str, folder: Path, found: "Iterable[Self]", task: Any) -> list[str]:
        """Write predictions as labels that labelling tools read, in a format of `labels_as`; list what it cannot say."""
        raise NotImplementedError

    def files(self) -> dict[str, bytes]:
        """Give the PNGs that are written beside the lines, each by its folder."""
        return {}

    def write_clip(self, out: Path) -> None:
        """Write moving pictures of it (MP4), where `predict` draws pictures too. By default there are none."""

    def small(self) -> Any:
        """Return the small picture: the file's own, as `(3, H, W)` uint8, or one with drawings on it.

        Of a folder it is the picture in the middle of those below it. Raises DataError where there is none.
        """
        from .images.decode import read_as
        from .images.photos import photos

        inside = list(photos(self.file)) if Path(self.file).is_dir() else []
        return read_as(inside[len(inside) // 2] if inside else self.file, self.depth, self.exif)


@dataclass
class PredictedFields(Predicted):
    """The fields of a task's prediction as they are: for a task that defines nothing better."""

    columns: ClassVar[tuple[str, ...]] = ("said",)
    headings: ClassVar[tuple[str, ...]] = ("said",)

    said: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, file: str, prediction: "Prediction", task: Any) -> Self:
        """Build it from numbers, text, and arrays, which become lists."""
        own = {f.name: getattr(prediction, f.name) for f in fields(prediction) if f.name != "id"}
        return cls(
            file, None, {name: value.tolist() if hasattr(value, "tolist") else value for name, value in own.items()}
        )

    @classmethod
    def from_line(cls, line: dict[str, Any]) -> Self:
        """Build it from what `line` gave."""
        own = {f.name for f in fields(Predicted)}
        rest = {name: value for name, value in line.items() if name not in own}
        return cls(said=rest, **{name: value for name, value in line.items() if name in own})

    def found(self) -> dict[str, Any]:
        """Return the fields."""
        return self.said

    def row(self) -> list[str]:
        """Write all in one cell."""
        return [self.caption()]

    def caption(self) -> str:
        """Write each field as `value 3.5`, each value cut to 40 characters."""
        return ", ".join(f"{name} {value!s:.40}" for name, value in self.said.items())

    def image(self) -> "Image":
        """Draw the picture with what is said of it below."""
        from .images.drawing import contact_sheet

        return contact_sheet([(self.small(), self.caption())], columns=1)


@dataclass
class PredictedPicture(Predicted):
    """A picture that a task makes of another one: `picture` is a PNG in base64."""

    columns: ClassVar[tuple[str, ...]] = ("width", "height")
    headings: ClassVar[tuple[str, ...]] = ("width", "height")

    width: int = 0
    height: int = 0
    picture: str = ""

    @classmethod
    def of(cls, file: str, prediction: "Prediction", task: Any) -> Self:
        """Build it from a prediction whose `picture` is a `(3, H, W)` uint8 array."""
        from PIL import Image

        pixels, buffer = prediction.picture, io.BytesIO()  # type: ignore[attr-defined]
        Image.fromarray(pixels.transpose(1, 2, 0)).save(buffer, "PNG")
        return cls(file, None, pixels.shape[2], pixels.shape[1], base64.b64encode(buffer.getvalue()).decode())

    def found(self) -> dict[str, Any]:
        """Convert the size and the picture to JSON."""
        return {"width": self.width, "height": self.height, "picture": self.picture}

    def row(self) -> list[str]:
        """Write its width and height."""
        return [str(self.width), str(self.height)]

    def caption(self) -> str:
        """Write its size."""
        return f"{self.width} x {self.height}"

    def files(self) -> dict[str, bytes]:
        """Give the picture as a PNG, for the folder `made`."""
        return {"made": base64.b64decode(self.picture)}

    def image(self) -> "Image":
        """Decode the picture, as RGB."""
        from PIL import Image

        return Image.open(io.BytesIO(base64.b64decode(self.picture))).convert("RGB")

    def small(self) -> Any:
        """Decode the picture, as RGB."""
        return self.image()
