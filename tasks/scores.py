"""The result of an evaluation, and how people see it: what each metric is, and blocks of tables, curves and pictures."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, ClassVar, Literal, Self

NOT_THERE = "none there"
"""What people read in place of a metric that nothing could be measured of."""
MOST_NAMED = 8  # classes that a line names
_BESIDE = (
    "samples",
    "update",
    "intervals",
    "details",
    "notes",
)  # what stands beside the metrics in a document of scores


@dataclass(frozen=True)
class Metric:
    """What people are told of a metric.

    `unit` is `percent` for a share from 0 to 1, which is shown as such; any other unit is written behind the number.
    `chart`: whether it has a chart over the run. `most` is the highest value it can reach, where that is known.
    `signed`: a number above 0 has a + before it, as a change has.
    """

    title: str
    unit: str = ""
    better: Literal["higher", "lower"] = "higher"
    chart: bool = True
    most: float | None = None
    signed: bool = False


def share(title: str, better: Literal["higher", "lower"] = "higher") -> Metric:
    """Describe a metric from 0 to 1 that is shown in percent."""
    return Metric(title, "percent", better, most=1.0)


@dataclass
class Scores:
    """The result of an evaluation: `metrics` by name, `intervals` (95 %, low and high) and `details` for machines.

    A metric that could not be measured is None and has no interval. `headline` names the metrics that one line for
    people shows; empty: all of them. `notes` are lines that people read with the metrics (over which classes a mean is).
    In `details`, `examples` are the ids of samples that a report may draw. Where
    `details` has a list of objects with a sample's `id`, each gets the sample's file as `source` when a run ends.
    """

    metrics: dict[str, float | None]
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)
    samples: int = 0
    headline: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Put the metrics at the top level under their names, the rest under `intervals`, `details` and `samples`."""
        rest = asdict(self)
        rest.pop("headline")
        return {**rest.pop("metrics"), **rest}

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td>{name}</td><td>{written(value)}</td><td>{_interval(self.intervals.get(name))}</td></tr>"
            for name, value in self.metrics.items()
        )
        return f"<table><tr><th>metric</th><th>value</th><th>95 % interval</th></tr>{rows}</table>"


def joined(scores: Mapping[str, Scores]) -> Scores:
    """Join several tasks' scores: metrics as `task/metric`, details by task. A single task's stay as they are."""
    return next(iter(scores.values())) if len(scores) == 1 else joined_several(scores)


def joined_several(scores: Mapping[str, Scores]) -> Scores:
    """Join the scores of some of several tasks, under the tasks' names even where it is one."""
    return Scores(
        {f"{task}/{name}": value for task, own in scores.items() for name, value in own.metrics.items()},
        {f"{task}/{name}": ends for task, own in scores.items() for name, ends in own.intervals.items()},
        {task: own.details for task, own in scores.items()},
        sum(own.samples for own in scores.values()),
        tuple(f"{task}/{name}" for task, own in scores.items() for name in (own.headline or own.metrics)),
        tuple(f"{task}: {line}" for task, own in scores.items() for line in own.notes),
    )


def mean_over(names: str, classes: Mapping[str, float | None], lacks: str) -> tuple[str, ...]:
    """Say over how many of the declared classes means are (`mIoU`): a line where some have no score, none where all have.

    `lacks` says why: `no pixel in the truth`.
    """
    absent = [name for name, value in classes.items() if value is None]
    if not absent:
        return ()
    more = f" and {len(absent) - MOST_NAMED} more" if len(absent) > MOST_NAMED else ""
    there = len(classes) - len(absent)
    over = (
        f"a mean over {there} of {len(classes)} classes" if there else f"none: none of {len(classes)} classes is there"
    )
    return (f"{names}: {over}; {lacks}: {', '.join(absent[:MOST_NAMED])}{more}",)


def metrics_in(document: Mapping[str, Any]) -> dict[str, float | None]:
    """Find the metrics in what `to_json` gave, even where more was put beside them."""
    return {
        name: value
        for name, value in document.items()
        if name not in _BESIDE and (value is None or isinstance(value, (int, float))) and not isinstance(value, bool)
    }


def written(value: float | None, missing: str = NOT_THERE) -> str:
    """Write a metric's value with four decimals, or `missing` for None."""
    return missing if value is None else f"{value:.4f}"


def known(values: Mapping[str, float | None]) -> dict[str, float]:
    """Select the metrics that were measured."""
    return {name: value for name, value in values.items() if value is not None}


def metrics_of(evaluator: Any) -> dict[str, Metric]:
    """Return an evaluator's metrics by name. Where it gives names alone, these become the titles."""
    said: Mapping[str, Metric] | Iterable[str] = evaluator.metrics
    if isinstance(said, Mapping):
        return dict(said)
    lower = getattr(evaluator, "lower_is_better", ())
    return {name: Metric(name, better="lower" if name in lower else "higher") for name in said}


def blocks_of(evaluator: Any, scores: Scores) -> "list[Block]":
    """List what a report shows of an evaluator's scores besides its metrics; [] where it has no `blocks`."""
    said = getattr(evaluator, "blocks", None)
    return list(said(scores)) if said else []


@dataclass(frozen=True)
class Block:
    """A part of a report: one of the four kinds below, made of plain data."""

    kind: ClassVar[str] = ""
    parts: ClassVar[dict[str, type]] = {}  # the fields that hold a tuple of dataclasses, and of which

    title: str

    def to_json(self) -> dict[str, Any]:
        """Convert it to plain data, with its `kind`."""
        return {"kind": self.kind, **asdict(self)}

    @classmethod
    def from_json(cls, given: Mapping[str, Any]) -> Self:
        """Build a block from JSON, of the kind that it says. Raises ValueError for anything else."""
        kinds: dict[str, Any] = {one.kind: one for one in (Table, Curve, Matrix, Examples)}
        kind = kinds.get(given.get("kind", ""))
        if kind is None or not issubclass(kind, cls):
            raise ValueError(f"{given.get('kind')!r} is no kind of block; expected one of {', '.join(kinds)}")
        values = fields_of(kind, given)
        for name, part in kind.parts.items():
            if name in given:
                values[name] = tuple(part(**fields_of(part, one)) for one in given[name])
        try:
            return kind(**values)
        except TypeError as error:
            raise ValueError(f"a block of the kind {kind.kind} lacks something ({error})") from None


Cell = str | int | float | None | tuple[float, float, float]


@dataclass(frozen=True)
class Table(Block):
    """Rows of cells below `headings`; numbers stand on the right.

    `units` are those of the columns, as a metric's: a share in a column of `percent` is shown in percent, and the cell
    `(low, value, high)`, all shares, in a column of `range` as an interval. Where `rows` are a selection, `folded` are
    all of them, shown on a click on the words `fold`.
    """

    kind = "table"

    headings: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    note: str = ""
    units: tuple[str, ...] = ()
    folded: tuple[tuple[Cell, ...], ...] = ()
    fold: str = ""


@dataclass(frozen=True)
class Line:
    """A line of a curve; the legend calls it by its name, or by `legend`, which many lines may share."""

    name: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    style: Literal["main", "second", "faint", "dashed"] = "main"
    legend: str = ""


@dataclass(frozen=True)
class Bar:
    """The samples whose x lies from `low` to `high`: how many, the mean of their x and that of their y."""

    low: float
    high: float
    samples: int
    x: float | None
    y: float | None


@dataclass(frozen=True)
class Curve(Block):
    """Lines of y over x, and bars of means. The axes end at `x_range` and `y_range`; `unit` is that of both."""

    kind = "curve"
    parts: ClassVar[dict[str, type]] = {"lines": Line, "bars": Bar}

    lines: tuple[Line, ...]
    x: str
    y: str
    x_range: tuple[float, float] | None = None
    y_range: tuple[float, float] | None = None
    note: str = ""
    unit: str = ""
    bars: tuple[Bar, ...] = ()


@dataclass(frozen=True)
class Matrix(Block):
    """Counts `rows[i][j]` of the `row` label i and the `column` label j, which are the same labels."""

    kind = "matrix"

    labels: tuple[str, ...]
    rows: tuple[tuple[int, ...], ...]
    row: str
    column: str
    note: str = ""


Words = tuple[tuple[str, Literal["", "good", "bad", "soft"]], ...]


@dataclass(frozen=True)
class Picture:
    """A sample by its `id`, and lines of words with their tones below it.

    Its picture is a `file` below the run's folder, or the `source` that it was read from, with this `depth`. Where it
    has neither, the task draws it.
    """

    id: str
    caption: tuple[Words, ...] = ()
    file: str = ""
    source: str = ""
    depth: str = ""


@dataclass(frozen=True)
class Examples(Block):
    """Pictures of samples: `small` ones, `wide` ones, or each a `pair` of two beside each other.

    `across` is how many stand in a row, where rows mean something; 0: as many as the page is wide.
    """

    kind = "examples"
    parts: ClassVar[dict[str, type]] = {"pictures": Picture}

    pictures: tuple[Picture, ...]
    note: str = ""
    size: Literal["small", "wide", "pair"] = "small"
    across: int = 0


def fields_of(kind: Any, given: Mapping[str, Any]) -> dict[str, Any]:
    """Select what a dataclass takes of JSON: its own fields, with lists as tuples."""
    return {f.name: _frozen(given[f.name]) for f in fields(kind) if f.name in given}


def _frozen(value: Any) -> Any:
    return tuple(map(_frozen, value)) if isinstance(value, (list, tuple)) else value


def _interval(pair: Sequence[float] | None) -> str:
    return "" if pair is None else f"{pair[0]:.4f} to {pair[1]:.4f}"
