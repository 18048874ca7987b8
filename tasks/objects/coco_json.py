"""COCO's JSON as people write it: rows of structs, read strictly first; where that fails, what has one meaning is mended."""

import os
import re
from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from trunkline.ground import storage
from trunkline.ground.errors import DataError

from ..data.repairs import Repairs

UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
MOST = 20  # problems of one kind that are listed
LARGEST_WHOLE = 2**53  # integers up to here are the same in every JSON reader
_NOT_JSON = (b"Infinity", b"NaN")
_TOKENS = re.compile(rb'"(?:[^"\\]|\\.)*"|-?Infinity|NaN')
_WORDS = {"true": 1, "false": 0, "1": 1, "0": 0}


_WRITE = {"int": "a whole number", "float": "a number", "str": "text, in quotation marks", "array": "a list",
          "object": "an object with keys"}  # fmt: skip


class Problems(list[str]):
    """What is wrong with a file; of one kind only the first MOST are kept. `repairs` counts what was mended."""

    def __init__(self, file: str | os.PathLike[str]):
        super().__init__()
        self.file = os.fspath(file)
        self.repairs = Repairs(self.file)

    def some(self, rows: Iterable[int], say: Callable[[int], str]) -> None:
        """Add a line for each row, up to MOST, and then how many more there are."""
        found = list(rows)
        self += [say(i) for i in found[:MOST]]
        if len(found) > MOST:
            self.append(f"… and {len(found) - MOST} more like the last")

    def stop(self) -> None:
        """Raise DataError if there are any."""
        if self:
            raise DataError("\n".join(f"{self.file}: {line}" for line in self))


def read_bytes(file: str | os.PathLike[str]) -> bytes:
    """Read a JSON file as UTF-8, whatever byte order mark it begins with. Raises DataError where there is nothing."""
    try:
        data = bytes(storage.read(file))
    except OSError as error:
        raise DataError(f"{os.fspath(file)}: cannot be read ({error.strerror or error})") from error
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):  # UTF-16, as Windows' shell redirects text
        try:
            data = data.decode("utf-16").encode()
        except UnicodeDecodeError:
            raise DataError(f"{os.fspath(file)}: begins as UTF-16 and is damaged; save it as UTF-8") from None
    data = data.removeprefix(b"\xef\xbb\xbf")  # a byte order mark that some tools write
    if not data.strip():
        raise DataError(f"{os.fspath(file)}: is empty; expected COCO's JSON")
    return data


def decoded(data: bytes, kind: Any) -> Any:
    """Decode JSON; NaN and Infinity, which Python writes and JSON does not have, become null."""
    try:
        return msgspec.json.decode(data, type=kind)
    except msgspec.DecodeError as error:
        if isinstance(error, msgspec.ValidationError) or not any(word in data for word in _NOT_JSON):
            raise
    data = _TOKENS.sub(lambda m: m[0] if m[0][:1] == b'"' else b"null", data)
    return msgspec.json.decode(data, type=kind)


def malformed(data: bytes, error: Exception) -> str:
    """Say what is wrong with the JSON as a whole."""
    said = "nested without end" if isinstance(error, RecursionError) else str(error)
    if "truncated" in said:
        return f"is cut off after {len(data):,} bytes"
    if isinstance(error, UnicodeDecodeError) or "utf-8" in said.lower():
        return "holds text that is no UTF-8; save it as UTF-8"
    return f"is no JSON as COCO has it ({said.removeprefix('JSON is ')})"


def rows(data: msgspec.Raw | bytes, kind: Any, name: str, problems: Problems) -> list[Any]:
    """Decode a list of structs, each as it stands or mended; add to `problems` what is wrong with which element."""
    try:
        return msgspec.json.decode(data, type=list[kind])
    except UNREADABLE:
        pass
    raw = bytes(data)
    try:
        each = decoded(raw, list[msgspec.Raw])
    except msgspec.ValidationError:
        problems.append(
            f"{name or 'the file'}: expected a list, as COCO's {'results' if not name else 'annotations'} are"
        )
        return []
    except UNREADABLE as error:
        problems.append(malformed(raw, error))
        return []
    return rows_of(each, kind, name, problems)


def rows_of(each: list[msgspec.Raw], kind: Any, name: str, problems: Problems) -> list[Any]:
    """Decode elements one by one, as `rows` does."""
    found, wrong, decode = [], [], msgspec.json.Decoder(kind).decode
    for at, one in enumerate(each):
        try:
            found.append(decode(one))
            continue
        except UNREADABLE as error:
            said = error
        try:
            found.append(decode(_mended(one, kind, problems.repairs)))
        except UNREADABLE:
            wrong.append(_of_one(name, at, one, str(said)))
    problems.some(range(len(wrong)), lambda i: wrong[i])
    return [] if wrong else found


def _mended(one: msgspec.Raw, kind: Any, repairs: Repairs) -> bytes:
    """Rewrite an element whose values say one thing in another type. Raises as decoding does where it is no object."""
    fields: dict[str, Any] = msgspec.json.decode(one, type=dict[str, msgspec.Raw])
    unit, said = kind.__name__.strip("_").lower(), []
    for name in kind.whole:
        value = msgspec.json.decode(fields[name]) if name in fields else None
        number, what = _whole(name, value)
        if name == "iscrowd" and name in fields and value is None:
            number, what = 0, "iscrowd: null taken as 0"
        if what:
            fields[name] = msgspec.Raw(str(number).encode())
            said.append(what)
    for name in kind.text:  # a name that is a number
        value = msgspec.json.decode(fields[name]) if name in fields else None
        if isinstance(value, int | float) and not isinstance(value, bool):
            fields[name] = msgspec.Raw(msgspec.json.encode(bytes(fields[name]).decode().strip()))
            said.append(f"{name}: numbers taken as text")
    if "bbox" in kind.optional and fields.get("bbox") == b"[]":  # as a file says that there is none
        fields.pop("bbox")
    encoded = msgspec.json.encode(fields)
    msgspec.json.decode(encoded, type=kind)
    for what in said:
        repairs.add(what, unit)
    return encoded


def _whole(name: str, value: Any) -> tuple[int, str]:
    """Read a whole number that is stored as something else; return it and the words of its repair, empty without one."""
    if isinstance(value, bool) and name == "iscrowd":
        return int(value), f"{name}: true/false taken as 1/0"
    if isinstance(value, float) and value.is_integer() and abs(value) < LARGEST_WHOLE:
        return int(value), f"{name}: numbers written as 1.0 taken as 1"
    if isinstance(value, str) and name == "iscrowd" and value in ("0", "1"):
        return int(value), f"{name}: numbers written as text taken as numbers"
    if isinstance(value, str) and name == "iscrowd" and value.strip().lower() in _WORDS:
        return _WORDS[value.strip().lower()], f"{name}: the words true/false taken as 1/0"
    if isinstance(value, str) and value.isascii() and value.isdigit() and str(int(value)) == value:
        return int(value), f"{name}: numbers written as text taken as numbers"
    return 0, ""


def plainly(said: str) -> str:
    """Say in plain words what msgspec says is wrong with an element, and where."""
    what, _, where = said.partition(" - at `$")
    for kind, plain in _WRITE.items():
        what = what.replace(f"`{kind}`", plain.partition(",")[0])
    what = what.replace("`null`", "nothing").replace("`bool`", "true or false").replace(", got ", ", found ")
    return f"{where.rstrip('`').lstrip('.')}: {what[:1].lower()}{what[1:]}".removeprefix(": ")


def _of_one(name: str, at: int, one: msgspec.Raw, said: str) -> str:
    what, _, where = said.partition(" - at `$")
    try:
        fields = msgspec.json.decode(one)
    except UNREADABLE:
        fields = None
    fields = fields if isinstance(fields, dict) else {}
    where = where.rstrip("`").lstrip(".")
    field = where.partition("[")[0]
    given = f"{field}={fields[field]!r}: " if field in fields else f"{where}: " if where else ""
    of = f" (id {fields['id']})" if name and "id" in fields else ""
    do = "; add it" if "missing" in what else ""
    do = next((f"; write {how}" for kind, how in _WRITE.items() if f"Expected `{kind}" in what), do)
    null = " (null or not a number)" if "null" in what else ""
    return f"{name}[{at}]{of}: {given}{what[:1].lower()}{what[1:]}{null}{do}"
