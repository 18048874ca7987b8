"""A file of this machine, or one that fsspec reaches (`s3://…`, `https://…`), to read and seek in."""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import IO, Any

from trunkline.ground.errors import DataError


def is_remote(address: str | os.PathLike[str]) -> bool:
    """Say whether an address is a URL."""
    return "://" in os.fspath(address)


def check_file(path: str | os.PathLike[str]) -> None:
    """Raise OSError where a path of this machine is a named pipe, a socket or a device: reading one may wait for ever.

    Those below /dev and /proc are meant so, as a shell's `<(command)`. Raises it too where nothing is there.
    """
    mode = os.stat(path).st_mode  # noqa: PTH116 - once a sample
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)) and not os.fspath(path).startswith(("/dev/", "/proc/")):
        raise OSError(errno.EINVAL, "it is a named pipe, a socket or a device, and no file", os.fspath(path))


@contextmanager
def opened(address: str) -> Iterator[IO[bytes]]:
    """Open a file to read and seek in.

    Raises OSError where it cannot be had, DataError for a kind of URL that is unknown or needs a package.
    """
    if is_remote(address):
        with told(address):
            fs, path = filesystem(address)
            with fs.open(path, "rb") as file:
                yield file
    else:
        check_file(address)
        with open(address, "rb") as file:  # noqa: PTH123
            yield file


def filesystem(address: str) -> tuple[Any, str]:
    """Find the file system of an address, and its path there."""
    return _split(address, os.getpid())


@lru_cache(maxsize=64)
def _split(address: str, pid: int) -> tuple[Any, str]:
    """Find them once for each process: connections do not survive a fork."""
    from fsspec.core import url_to_fs

    return url_to_fs(address)


def is_local(fs: Any) -> bool:
    """Say whether a file system is this machine's (`file://…`)."""
    from fsspec.implementations.local import LocalFileSystem

    return isinstance(fs, LocalFileSystem)


@contextmanager
def told(address: str) -> Iterator[None]:
    """Turn all that fsspec's many implementations raise into OSError.

    A kind of address that is unknown or needs a package raises DataError, with the address.
    """
    try:
        yield
    except (DataError, OSError):
        raise
    except ImportError as error:
        raise DataError(f"{address}: {error}") from None
    except ValueError as error:
        if "Protocol not known" not in str(error):
            raise OSError(f"{type(error).__name__}: {error}") from error
        raise DataError(f"{address}: {error}; expected a folder, or an address such as s3://bucket/photos") from None
    except Exception as error:  # credentials, network: each implementation has its own errors
        raise OSError(f"{type(error).__name__}: {error}") from error
