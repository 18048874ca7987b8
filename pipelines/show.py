"""What a person sees while something runs: progress bars with a rate and a time left, tables, notes on stderr."""

import sys
import unicodedata
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from trunkline.ground.progress import progress, say

from ..tasks.scores import Scores, written


@contextmanager
def bar(title: str, total: int, unit: str = "images") -> Iterator[Any]:
    """Show a progress bar; yields a function that advances it."""
    with progress() as shown:
        task = shown.add_task(title, total=total, unit=unit, say="")
        yield lambda n=1: shown.advance(task, n)


def note(text: str) -> None:
    """Show people one line."""
    say(text)


def samples_left_out(number: int) -> str:
    """Say how many samples were left out: `left out 1 sample`, `left out 4 samples`."""
    return f"left out {number} sample{'' if number == 1 else 's'}"


def table(title: str, columns: list[str], rows: list[list[Any]]) -> None:
    """Print a table on stdout, as wide as the terminal, or 160 columns wide where stdout is no terminal; a row is one line."""
    shown = Table(*columns, title=title or None, box=None, title_justify="left", header_style="bold", pad_edge=False)
    for row in rows:
        shown.add_row(*[Text(_on_one_line(str(cell))) for cell in row])
    out = Console(file=sys.stdout, highlight=False)
    (out if out.is_terminal else Console(file=sys.stdout, width=160)).print(shown)


def _on_one_line(text: str) -> str:
    """Write codes that would break a table, as of a file's name, as escapes: line ends, control codes, undecodable bytes."""
    odd = ("Cc", "Cs", "Zl", "Zp")
    return "".join(c.encode("unicode_escape").decode() if unicodedata.category(c) in odd else c for c in text)


def scores_lines(each: Mapping[str, Scores]) -> str:
    """Write what stands behind a colon: the headline metrics in the same line, of several tasks in a line each below it."""
    if len(each) == 1:
        return f" {scores_line(next(iter(each.values())))}"
    width = max(map(len, each))
    return "".join(f"\n  {name:{width}}  {scores_line(scores)}" for name, scores in each.items())


def scores_line(scores: Scores) -> str:
    """Write the headline metrics in one line: `accuracy 0.9412 (0.900 to 0.970)   error 0.0300 …`.

    A metric that nothing could be measured of is written `none`.
    """
    words = []
    for name in scores.headline or scores.metrics:
        value, low_high = scores.metrics[name], scores.intervals.get(name)
        words.append(
            f"{name} {written(value, 'none')}" + (f" ({low_high[0]:.3f} to {low_high[1]:.3f})" if low_high else "")
        )
    return "   ".join(words)
