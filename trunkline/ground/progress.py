"""Progress bars with a rate and a time left, on stderr: stdout is for results that a machine may read."""

import itertools
import os
import sys
import time
from collections.abc import Callable
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn
from rich.text import Text


class _Lasting(Console):
    """A console that falls silent where nobody reads any more (`| head`), so that the work goes on."""

    def on_broken_pipe(self) -> None:
        self.quiet = True
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())


console = _Lasting(stderr=True, highlight=False)


class Rate(ProgressColumn):
    """Units a second."""

    def render(self, task: Any) -> Text:
        """Write the speed, or nothing before the first step."""
        speed = task.finished_speed or task.speed
        scale = task.fields.get("scale", 1)
        return Text("" if speed is None else f"{speed * scale:,.1f} {task.fields.get('unit', 'it')}/s")


tell: Callable[[dict[str, Any]], None] | None = None
"""Where progress and notes go instead, in a worker whose terminal is elsewhere: plain events, of `kind` bar or note."""
_numbers = itertools.count()


class Told:
    """A progress display that is shown elsewhere: it takes the same calls, and tells them about twice a second."""

    def __init__(self, tell: Callable[[dict[str, Any]], None]):
        self._tell, self._bars, self._at = tell, {}, 0.0

    def __enter__(self) -> "Told":
        return self

    def __exit__(self, *_: Any) -> None:
        for number in self._bars:
            self._tell({"kind": "bar", "number": number, "over": True})

    def add_task(self, title: str, total: float | None = None, completed: float = 0, **fields: Any) -> int:
        """Add a bar, and return its number."""
        number = next(_numbers)
        self._bars[number] = {"title": title, "total": total, "completed": completed, **fields}
        self._send(number, at_once=True)
        return number

    def update(self, number: int, advance: float = 0, **fields: Any) -> None:
        """Move a bar on, and change its fields."""
        bar = self._bars[number]
        bar["completed"] += advance
        bar |= fields
        self._send(number)

    def advance(self, number: int, advance: float = 1) -> None:
        """Move a bar on."""
        self.update(number, advance)

    def _send(self, number: int, at_once: bool = False) -> None:
        now, bar = time.monotonic(), self._bars[number]
        if at_once or now - self._at > 0.5 or bar["completed"] == bar["total"]:
            self._at = now
            self._tell({"kind": "bar", "number": number, "over": False, **bar})


def say(text: str) -> None:
    """Print one line for people."""
    if tell:
        tell({"kind": "note", "text": text})
    else:
        console.print(text, markup=False, soft_wrap=True)


def progress() -> Any:
    """Make a progress display; silent where stderr is no terminal. A task's fields: `unit`, `scale`, `say`."""
    if tell:
        return Told(tell)
    columns = (TextColumn("{task.description}"), BarColumn(None), MofNCompleteColumn(), Rate(), TimeRemainingColumn(),
               TextColumn("{task.fields[say]}"))  # fmt: skip
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal, expand=True)


class Retold:
    """Shows here what `Told` and `say` tell elsewhere: a context manager to call with each event."""

    def __init__(self) -> None:
        self._shown, self._bars = progress(), {}

    def __enter__(self) -> "Retold":
        self._shown.__enter__()
        return self

    def __exit__(self, *_: Any) -> None:
        self._shown.__exit__(None, None, None)

    def __call__(self, event: dict[str, Any]) -> None:
        if event["kind"] == "note":
            say(event["text"])
        elif event["kind"] == "bar" and event["over"]:
            if event["number"] in self._bars:
                self._shown.remove_task(self._bars.pop(event["number"]))
        elif event["kind"] == "bar":
            own = {k: v for k, v in event.items() if k not in ("kind", "number", "over", "title", "total", "completed")}
            if event["number"] not in self._bars:
                self._bars[event["number"]] = self._shown.add_task(event["title"], total=event["total"], **own)
            self._shown.update(self._bars[event["number"]], completed=event["completed"], **own)
