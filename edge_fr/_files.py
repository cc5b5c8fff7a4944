"""Files that other processes read and write too: the cache folder, publishing whole files, locks."""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


def cache_folder() -> Path:
    """What can be fetched or made again lies in $EDGE_FR_CACHE, or ~/.cache/edge-fr, or, for a user who has
    no home folder, /var/cache/edge-fr."""
    if named := os.environ.get("EDGE_FR_CACHE"):
        return Path(named)
    try:
        return Path.home() / ".cache" / "edge-fr"
    except RuntimeError:  # as in a container, under a number that has no name there
        return Path("/var/cache/edge-fr")


def publish(content: bytes, path: Path, *, private: bool = False) -> None:
    """Writes a file: whoever reads meanwhile, or after a power cut, gets the old one or the whole new one.

    A `private` file is made for its owner alone; one that takes another's place takes over its rights.
    """
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".") as folder:
        part = Path(folder) / path.name
        with part.open("wb") as file:
            if private:
                os.fchmod(file.fileno(), path.stat().st_mode & 0o777 if path.exists() else 0o600)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)


@contextmanager
def locked(path: Path, *, waiting: Callable[[], None]) -> Iterator[None]:
    """Keeps other processes that lock the same path out; `waiting` is called if one is inside already.

    The lock is a hidden file beside the path, which stays; a process that dies lets go of it.
    """
    with path.with_name(f".{path.name}.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waiting()
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
