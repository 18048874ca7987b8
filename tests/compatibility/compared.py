"""Compare what two states of the code gave for the same combinations, and show it as a table by head and option."""

import json
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from combinations import HEADS, MICRO_BATCHES, OPTIONS, WORKERS, combinations, name_of

KNOWN: dict[tuple[str, str], str] = {}
"""Differences that are allowed: a pattern of names and a part (as `compare` prints it), to the reason."""

MEANT = {
    "trunkline_task": "a published file's header says which task it is of",
    "none there": "a metric that nothing could be measured of is null, and was COCO's mark -1",
}
"""Differences that are meant, and no others of their parts: taken out of both sides before they are compared."""


def compare(before: Path, after: Path, only: str = "*") -> int:
    """Print the table and every difference; return 1 where there is one that is not known, else 0."""
    names = [each.name for each in combinations(only)]
    found = {name: differences(read(before, name), read(after, name)) for name in names}
    for name in ("about", "data"):
        for part, what in differences(read(before, name), read(after, name)).items():
            print(f"mind: {name}.json differs in {part}: {what}")
    print(table(found, {name: (read(before, name) or {}).get("error", "") for name in names}))
    wrong = 0
    for name, parts in found.items():
        for part, what in parts.items():
            reason = known(name, part)
            wrong += not reason
            print(f"{name}: {part}: {what}{f' (known: {reason})' if reason else ''}")
    print(f"{sum(not parts for parts in found.values())} of {len(found)} combinations are equal; {wrong} differences")
    for where in (before, after):
        print(f"{where}: {workers_agree(where, names)}")
    return 1 if wrong else 0


def read(folder: Path, name: str) -> dict[str, Any] | None:
    """Read what a folder says of a combination; None where it says nothing."""
    file = folder / f"{name}.json"
    return json.loads(file.read_text()) if file.is_file() else None


def known(name: str, part: str) -> str:
    """Give the reason for which a difference is allowed, or nothing."""
    return next((why for (pattern, which), why in KNOWN.items() if fnmatch(name, pattern) and which == part), "")


def differences(one: dict[str, Any] | None, other: dict[str, Any] | None) -> dict[str, str]:
    """Say by part in what two records differ."""
    if one is None or other is None:
        return {
            "record": "neither side has it" if one is other else f"only {'after' if one is None else 'before'} has it"
        }
    if one.get("error") != other.get("error"):
        return {"error": told(*(each.get("error") or "trained" for each in (one, other)))}
    first, second = (as_meant({**each.get("recorded", {}), **each}) for each in (one, other))
    parts = [part for part in {**first, **second} if part not in ("recorded", "seconds")]
    return {part: told(first.get(part), second.get(part)) for part in parts if first.get(part) != second.get(part)}


def as_meant(record: dict[str, Any]) -> dict[str, Any]:
    """Take what MEANT lists out of a record."""
    metadata = {k: v for k, v in record.get("metadata", {}).items() if k != "trunkline_task"}
    scores = {
        part: {k: None if v == -1.0 else v for k, v in record[part].items()}
        for part in ("scores", "scored again")
        if isinstance(record.get(part), dict)
    }
    return record | ({"metadata": metadata} if "metadata" in record else {}) | scores


def told(one: Any, other: Any) -> str:
    """Say in what two values differ: of tables and lists the first entries."""
    if isinstance(one, list) and isinstance(other, list):
        one, other = ({str(i): value for i, value in enumerate(each)} for each in (one, other))
    if not (isinstance(one, dict) and isinstance(other, dict)):
        return f"{str(one)[:120]} before, {str(other)[:120]} after"
    differ = [key for key in {**one, **other} if one.get(key, told) != other.get(key, told)]
    values = {
        key: f" ({one.get(key)} before, {other.get(key)} after)" if len(differ) == 1 else "" for key in differ[:3]
    }
    return f"{len(differ)} of {len({**one, **other})}: {', '.join(f'{k}{v}' for k, v in values.items())[:240]}"


def table(found: dict[str, dict[str, str]], errors: dict[str, str]) -> str:
    """Show a line for each head and a column for each option."""
    rows = [["", *OPTIONS]]
    for head in HEADS:
        cells = [cell([name for name in names if name in found], found, errors) for names in grid(head)]
        if any(cells):
            rows.append([head, *cells])
    widths = [max(len(row[i]) for row in rows) + 2 for i in range(len(rows[0]))]
    return "\n".join(
        "".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def grid(head: str) -> list[list[str]]:
    """Name the combinations of a head, a list for each option."""
    return [[name_of(head, option, m, w) for m in MICRO_BATCHES for w in WORKERS] for option in OPTIONS]


def cell(names: list[str], found: dict[str, dict[str, str]], errors: dict[str, str]) -> str:
    """Say of the combinations of one head and option whether they are equal, and in which parts they are not."""
    parts = {part: bool(known(name, part)) for name in names for part in found[name]}
    if parts:
        return (
            ("known: " if all(parts.values()) else "DIFFER: ") + ", ".join(list(parts)[:2]) + ", …" * (len(parts) > 2)
        )
    refused = sum(bool(errors[name]) for name in names)
    return "" if not names else "equal" if not refused else f"equal, {refused} refused"


def workers_agree(folder: Path, names: list[str]) -> str:
    """Say whether two workers gave what one gave."""
    pairs = [(name, name.replace("-workers2", "-workers1")) for name in names if name.endswith("-workers2")]
    both = [(name, read(folder, name), read(folder, alone)) for name, alone in pairs]
    both = [(name, two, one) for name, two, one in both if one and two]
    differ = [name for name, two, one in both if set(differences(two, one)) - {"name"}]
    return f"two workers gave what one gives in {len(both) - len(differ)} of {len(both)}" + "".join(
        f"\n  not {name}: {', '.join(set(differences(two, one)) - {'name'})}"
        for name, two, one in both
        if name in differ
    )
