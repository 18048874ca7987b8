"""Progress bars with a rate and a time left, on stderr: stdout is for results that a machine may read."""

from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn
from rich.text import Text

console = Console(stderr=True, highlight=False)


class Rate(ProgressColumn):
    """Units a second."""

    def render(self, task: Any) -> Text:
        """The speed, or nothing before the first step."""
        speed = task.finished_speed or task.speed
        scale = task.fields.get("scale", 1)
        return Text("" if speed is None else f"{speed * scale:,.1f} {task.fields.get('unit', 'it')}/s")


def progress() -> Progress:
    """A progress display; where stderr is no terminal it stays silent. A task's fields: `unit`, `scale`, `say`."""
    columns = (TextColumn("{task.description}"), BarColumn(None), MofNCompleteColumn(), Rate(), TimeRemainingColumn(),
               TextColumn("{task.fields[say]}"))  # fmt: skip
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal, expand=True)
