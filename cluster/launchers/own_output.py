"""What a command prints to stdout is its own: JSON that a machine reads."""

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO, cast


class _OfOneThread:
    """A stream that what other threads than its own write to goes past, to stderr; all else is the stream's."""

    def __init__(self, stream: Any):
        self._stream, self._thread = stream, threading.get_ident()

    def write(self, text: str) -> int:
        """Write to the stream from its own thread, and to stderr from others."""
        return (self._stream if threading.get_ident() == self._thread else sys.stderr).write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def own_output() -> Iterator[None]:
    """Let what other threads print go to stderr for a while: Ray's say there that a worker died."""
    before = sys.stdout
    sys.stdout = cast(TextIO, _OfOneThread(before))
    try:
        yield
    finally:
        sys.stdout = before
