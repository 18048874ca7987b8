"""Files of weights from the network into a cache, with their hash checked."""

import hashlib
import logging
import os
import re
import tempfile
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from trunkline.ground.cache import cache_folder
from trunkline.ground.errors import WeightsError

from .contract import WeightsSource
from .files.formats import sha256

TIMEOUT = 30.0  # seconds without a byte
_CHUNK = 1 << 20
_DIGEST_HEADERS = ("X-Linked-ETag", "X-Checksum-Sha256")  # the hub's, and Artifactory's

log = logging.getLogger("trunkline")


def fetch(source: WeightsSource) -> Path:
    """Return the source's file in the cache. Download it if it is not there, and check its SHA-256 each time.

    The hash must agree with what the name carries, with what the server says at the download, and with what was noted
    beside the file at first. A file with another hash is removed and refused. Raises WeightsError, which says where to
    put the file by hand.
    """
    path = cache_folder() / "weights" / source.file
    if path.is_file():
        _check_kept(source, path)
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
        os.close(handle)
    except OSError as error:
        raise WeightsError(f"{path.parent}: cannot be written ({error}); set TRUNKLINE_CACHE") from error
    try:
        digest = _download(source, Path(name), path)
        _note(path).write_text(digest + "\n", encoding="ascii")  # before the file, so that no file lacks its note
        Path(name).replace(path)
    finally:
        Path(name).unlink(missing_ok=True)
    return path


def _check_kept(source: WeightsSource, path: Path) -> None:
    digest, note = sha256(path), _note(path)
    noted = note.read_text(encoding="ascii").strip() if note.is_file() else ""
    for expected in (source.digest, noted):
        if not digest.startswith(expected):
            path.unlink()
            note.unlink(missing_ok=True)
            raise WeightsError(
                f"{source.name}: {path} has SHA-256 {digest}, expected {expected}; it was damaged or replaced and has "
                "been removed. Run again to download it"
            )
    if not noted:  # put there by hand
        note.write_text(digest + "\n", encoding="ascii")


def _note(path: Path) -> Path:
    return path.with_name(path.name + ".sha256")


def _download(source: WeightsSource, beside: Path, path: Path) -> str:
    redirects = _Redirects()
    by_hand = f"Without a network, put that file at {path} by hand and run again"
    try:
        request = Request(source.url, headers={"User-Agent": "trunkline"})
        with build_opener(redirects).open(request, timeout=TIMEOUT) as answer:
            length = answer.headers.get("Content-Length")
            said = [source.digest, *_digests(answer.headers), *redirects.digests]
            log.info("downloading %s (%s bytes) to %s", source.url, length or "?", path)
            digest, size = _copy(answer, beside)
    except HTTPError as error:
        raise WeightsError(f"{source.name}: {source.url} answers {error.code} {error.reason}. {by_hand}") from error
    except (URLError, HTTPException, OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        raise WeightsError(f"{source.name}: cannot download {source.url} ({reason}). {by_hand}") from error
    if length is not None and size != int(length):
        raise WeightsError(
            f"{source.name}: {source.url} broke off after {size} of {length} bytes. Run again. {by_hand}"
        )
    for expected in said:
        if not digest.startswith(expected):
            raise WeightsError(
                f"{source.name}: {source.url} came with SHA-256 {digest}, expected {expected}; refused and removed"
            )
    return digest


def _copy(answer, beside: Path) -> tuple[str, int]:
    digest, size = hashlib.sha256(), 0
    with beside.open("wb") as file:
        while chunk := answer.read(_CHUNK):
            digest.update(chunk)
            size += file.write(chunk)
        file.flush()
        os.fsync(file.fileno())
    return digest.hexdigest(), size


def _digests(headers) -> list[str]:
    values = [(headers.get(name) or "").strip('"').lower() for name in _DIGEST_HEADERS]
    return [value for value in values if re.fullmatch(r"[0-9a-f]{64}", value)]


class _Redirects(HTTPRedirectHandler):
    """Follows redirects as urllib does, keeps the hash that the first server states, and stays on https."""

    def __init__(self) -> None:
        self.digests: list[str] = []

    def redirect_request(self, req, fp, code, msg, headers, newurl):
        self.digests += _digests(headers)
        if urlsplit(req.full_url).scheme == "https" and urlsplit(newurl).scheme != "https":
            raise URLError(f"redirected from https to {newurl}")
        return super().redirect_request(req, fp, code, msg, headers, newurl)
