"""Pictures and labels in parquet files: a column of encoded pictures, and one of labels (a name, or a number with names)."""

import json
import os
import threading
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

from trunkline.ground.access import opened
from trunkline.ground.errors import DataError

PICTURES = ("image", "img", "picture", "jpg", "jpeg", "png")
LABELS = ("label", "labels", "class", "cls", "fine_label")
KEPT = 8  # row groups in memory in each process

_groups: "OrderedDict[tuple[int, str, int], Any]" = OrderedDict()
_lock = threading.Lock()


def labels(address: str) -> Iterator[tuple[str, int, int]]:
    """Yield the class of every row, its row group, and its place in the group.

    Raises DataError where the file is damaged, where a label has no class, or, naming its columns, where pictures or
    labels are missing.
    """
    parquet = _module(address)
    with opened(address) as file:
        try:
            table = parquet.ParquetFile(file)
        except Exception as error:  # pyarrow raises a dozen kinds
            raise DataError(f"no parquet file, or a damaged one: {error}") from None
        names = table.schema_arrow.names
        picture, label = _column(names, PICTURES), _column(names, LABELS)
        if not picture or not label:
            raise DataError(
                f"expected a column of pictures ({', '.join(PICTURES)}) and one of labels ({', '.join(LABELS)}); it has "
                f"{', '.join(names)}"
            )
        known = _names(table.schema_arrow.metadata or {}, label)
        for group in range(table.num_row_groups):
            column = table.read_row_group(group, columns=[label]).column(0)
            for row, value in enumerate(column.to_pylist()):
                if value is None or (known and not 0 <= value < len(known)):
                    raise DataError(f"row {row} of row group {group}: {label} is {value}, of {len(known)} classes")
                yield known[value] if known else str(value), group, row


def row_bytes(address: str, group: int, row: int) -> bytearray:
    """Read the encoded picture of one row. Raises OSError where it cannot be had."""
    key = (os.getpid(), address, group)
    with _lock:
        column = _groups.pop(key, None)
        if column is None:
            column = _read_group(address, group)
        _groups[key] = column
        while len(_groups) > KEPT:
            _groups.popitem(last=False)
    value = column[row].as_py()
    data = value.get("bytes") if isinstance(value, dict) else value
    if not isinstance(data, bytes):
        raise OSError(f"row {row} of row group {group} holds no picture's bytes")
    return bytearray(data)


def _read_group(address: str, group: int) -> Any:
    parquet = _module(address)
    with opened(address) as file:
        table = parquet.ParquetFile(file)
        name = _column(table.schema_arrow.names, PICTURES)
        return table.read_row_group(group, columns=[name]).column(0).combine_chunks()


def _column(names: list[str], known: tuple[str, ...]) -> str | None:
    return next((name for name in known if name in names), None)


def _names(metadata: dict[bytes, bytes], label: str) -> list[str]:
    """Read the names of numbered classes from the Hugging Face hub's metadata; [] where there are none."""
    try:
        return json.loads(metadata[b"huggingface"])["info"]["features"][label]["names"]
    except (KeyError, ValueError, TypeError):
        return []


def _module(address: str) -> Any:
    try:
        import pyarrow.parquet
    except ImportError:
        raise DataError(f"{address}: parquet files need pyarrow: pip install pyarrow") from None
    return pyarrow.parquet
