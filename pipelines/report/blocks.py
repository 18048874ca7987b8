"""Blocks of a task as a page shows them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...tasks.scores import Block, Cell, Curve, Examples, Matrix, Table
from .figures import Line, bar_chart, line_chart, number
from .pictures import picture_of

_UPRIGHT = 4  # with more labels, those of the columns are written vertically
_NARROW = 7  # a matrix with more labels fills a row of the page
_STYLES = {"main": "s1", "second": "s2"}
_SIDES = {"small": 240, "wide": 480, "pair": 1000}  # pixels of a picture


def rows_of(blocks: Sequence[Block], run: Path, mark: str) -> list[list[dict[str, Any]]]:
    """Arrange the blocks that are not empty in the rows of a page; narrow ones stand side by side.

    Each block's anchor is `mark` and its number.
    """
    rows: list[list[dict[str, Any]]] = []
    for place, block in enumerate(blocks):
        if not (found := _shown(block, run)):
            continue
        found |= {"kind": block.kind, "title": block.title, "mark": f"{mark}{place}"}
        if rows and not found["alone"] and not rows[-1][-1]["alone"]:
            rows[-1].append(found)
        else:
            rows.append([found])
    return rows


def _shown(block: Block, run: Path) -> dict[str, Any]:
    """Convert a block to what the page needs; to an empty dict where the block is empty."""
    if isinstance(block, Table):
        return _table(block) if block.rows else {}
    if isinstance(block, Matrix):
        return _matrix(block) if block.labels else {}
    if isinstance(block, Curve):
        return _curve(block) if block.lines or block.bars else {}
    assert isinstance(block, Examples)
    found = [shown for picture in block.pictures if (shown := picture_of(picture, run, _SIDES[block.size]))]
    if not found:
        return {}
    return {"alone": True, "note": block.note, "pictures": found, "size": block.size, "across": block.across}


def _table(block: Table) -> dict[str, Any]:
    units = (*block.units, *("",) * (len(block.headings) - len(block.units)))
    columns = [
        {"title": title, "range": unit == "range", "number": bool(unit) or _numbers(block, i)}
        for i, (title, unit) in enumerate(zip(block.headings, units, strict=True))
    ]
    rows, folded = (
        [[_cell(value, unit) for value, unit in zip(row, units, strict=True)] for row in some]
        for some in (block.rows, block.folded)
    )
    return {"alone": "range" in units, "note": block.note, "columns": columns, "rows": rows, "folded": folded,
            "fold": block.fold}  # fmt: skip


def _numbers(block: Table, column: int) -> bool:
    return not any(isinstance(row[column], str) for row in block.rows)


def _cell(value: Cell, unit: str) -> dict[str, Any]:
    """Return a cell's text and, for a range, where its ends and its middle lie in percent."""
    if value is None:
        return {"text": "" if unit == "range" else "–"}
    if isinstance(value, tuple):
        low, middle, high = (100 * share for share in value)
        return {"text": f"{low:.1f} to {high:.1f} %", "low": low, "middle": middle, "high": high}
    if isinstance(value, str):
        return {"text": value}
    if unit == "percent":
        return {"text": number(value, True)}
    return {"text": (f"{value:.3f}" if isinstance(value, float) else str(value)) + (f" {unit}" if unit else "")}


def _matrix(block: Matrix) -> dict[str, Any]:
    rows = [
        [{"count": n, "share": round(n / max(1, sum(row)), 3), "right": i == j} for j, n in enumerate(row)]
        for i, row in enumerate(block.rows)
    ]
    many = len(block.labels)
    return {"alone": False, "note": block.note, "labels": block.labels, "rows": rows, "row": block.row,
            "column": block.column, "upright": many > _UPRIGHT, "whole": many > _NARROW}  # fmt: skip


def _curve(block: Curve) -> dict[str, Any]:
    lines = [Line(one.name, one.x, one.y, _STYLES.get(one.style, one.style)) for one in block.lines]
    ends, percent = (block.x_range, block.y_range), block.unit == "percent"
    if block.bars:
        svg = bar_chart(block.bars, lines, block.x, block.y, percent, ends)
    else:
        svg = line_chart(lines, f"{block.y} over {block.x}", percent, axis=block.x, ends=ends)
    named = dict.fromkeys((line.kind, own.legend or own.name) for line, own in zip(lines, block.lines, strict=True))
    legend = list(named) if len(named) > 1 else []
    return {"alone": False, "note": block.note, "svg": svg, "legend": legend}
