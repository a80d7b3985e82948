"""Where an auditor reads a log: a copied directory, or an HTTP prefix that serves the same paths."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ledger.errors import MalformedError, StorageError
from ledger.tiles import MAX_BUNDLE_SIZE

Read = Callable[[str], bytes]  # path below the prefix -> content; FileNotFoundError where there is none

MAX_FILE_SIZE = MAX_BUNDLE_SIZE  # the largest file that a log has
TIMEOUT = 30  # seconds for one request


def open_source(where: str) -> Read:
    """Return a reader of the log at a directory's path or an http(s) URL.

    Raises:
        StorageError: there is no such directory.
    """
    if where.startswith(("http://", "https://")):
        return _http(where.rstrip("/"))
    directory = Path(where)
    if not directory.is_dir():
        raise StorageError(f"{where} is no directory and no http(s) address: name a copy of the log")
    return lambda path: read_file(directory / path, MAX_FILE_SIZE)


def read_file(path: Path, max_size: int) -> bytes:
    """Return a file's content, never reading more than `max_size` bytes of it.

    Raises:
        FileNotFoundError: there is none.
        MalformedError: it is larger.
        StorageError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            data = file.read(max_size + 1)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror}") from None
    if len(data) > max_size:
        raise MalformedError(f"{path} is larger than {max_size} bytes: it is not what it should be")
    return data


def _http(prefix: str) -> Read:
    import urllib.error  # a sixth of the ledger's import time, and a copied directory needs none of it
    import urllib.request

    def read(path: str) -> bytes:
        url = f"{prefix}/{path}"
        try:
            with urllib.request.urlopen(url, timeout=TIMEOUT) as answer:  # noqa: S310 - http(s) only, above
                data: bytes = answer.read(MAX_FILE_SIZE + 1)
        except urllib.error.HTTPError as error:
            if error.code == 404:
                raise FileNotFoundError(url) from None
            if error.code == 401:
                raise StorageError(
                    f"{url} is for members, who sign: name a copy of the log instead"
                ) from None
            raise StorageError(f"{url} answers {error.code}: try again, or ask whoever runs it") from None
        except (urllib.error.URLError, OSError) as error:
            reason = getattr(error, "reason", error)
            raise StorageError(f"cannot reach {url}: {reason}") from None
        if len(data) > MAX_FILE_SIZE:
            raise MalformedError(f"{url} is larger than {MAX_FILE_SIZE} bytes: it is not what it should be")
        return data

    return read
