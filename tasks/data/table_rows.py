"""Rows of CSV, TSV and JSON lines, by the names of their columns."""

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from trunkline.ground.errors import DataError

from .text import text_of

SUFFIX = (".csv", ".tsv", ".jsonl")


def header(file: Path, expected: str) -> list[str]:
    """List the names of a table's columns. Raises DataError where it is empty (`expected` says what it should hold)."""
    if file.suffix.lower() == ".jsonl":
        for line in text_of(file).splitlines()[:1000]:
            if line.strip():
                return [*_object(line, file, 1)]
        raise DataError(f"{file}: has no rows")
    lines = text_of(file).splitlines()
    if not lines:
        raise DataError(f"{file}: is empty; {expected}")
    names = next(csv.reader(lines[:1], delimiter=_delimiter(lines[0])))
    again = sorted({n for n in names if names.count(n) > 1})
    if again:
        raise DataError(f"{file}: two columns are called {', '.join(again)}")
    return names


def _delimiter(line: str) -> str:
    return max(",;\t", key=line.count)


def records(file: Path, wrong: list[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield each row's line, counted from 1, and its cells by column; rows of another length are added to `wrong`.

    Raises DataError where it is no such table.
    """
    text = text_of(file)
    if file.suffix.lower() == ".jsonl":
        for n, line in enumerate(text.splitlines(), 1):
            if line.strip():
                try:
                    yield n, _object(line, file, n)
                except DataError as error:
                    wrong.append(str(error))
        return
    first = text.partition("\n")[0]
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=_delimiter(first))
    try:
        for said in reader:
            if None in said or any(v is None for v in said.values()):
                wrong.append(f"{file}: line {reader.line_num}: expected {len(reader.fieldnames or ())} cells")
            else:
                yield reader.line_num, said
    except csv.Error as error:
        raise DataError(f"{file}: line {reader.line_num}: {error}") from None


def _object(line: str, file: Path, n: int) -> dict[str, Any]:
    try:
        said = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{file}: line {n}: is no JSON ({error})") from None
    if not isinstance(said, dict):
        raise DataError(f'{file}: line {n}: expected an object with keys, as {{"file": …, "label": …}}')
    return said
