"""Hear what a decoder written in C prints: libjpeg reports damaged pixels on stderr only, and decodes on."""

import os
import tempfile
import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

_lock = threading.Lock()
_spool: int | None = None


def call_listening(call: Callable[[], T]) -> tuple[T, str]:
    """Call `call()`; return its result and what was written meanwhile to the process's stderr (which is not shown).

    Costs a few microseconds. A process makes one such call at a time. Without a stderr the text is empty.
    """
    with _lock:
        try:
            real = os.dup(2)
        except OSError:  # a daemon has none
            return call(), ""
        spool = _open_spool()
        try:
            os.dup2(spool, 2)
            result = call()
        finally:
            os.dup2(real, 2)
            os.close(real)
            heard = _empty(spool)
    return result, heard


def _open_spool() -> int:
    global _spool
    if _spool is None:
        if hasattr(os, "memfd_create"):
            _spool = os.memfd_create("stderr")
        else:
            with tempfile.TemporaryFile() as file:
                _spool = os.dup(file.fileno())
    return _spool


def _empty(spool: int) -> str:
    length = os.lseek(spool, 0, os.SEEK_CUR)
    if not length:
        return ""
    os.lseek(spool, 0, os.SEEK_SET)
    heard = os.read(spool, length)
    os.ftruncate(spool, 0)
    os.lseek(spool, 0, os.SEEK_SET)
    return heard.decode("utf-8", "replace")


def _forget_spool() -> None:
    # parent and child would share one file position
    global _spool
    if _spool is not None:
        os.close(_spool)
    _spool = None
    _lock.release()


if hasattr(os, "register_at_fork"):  # a child must not be born while stderr is turned aside
    os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_forget_spool)
