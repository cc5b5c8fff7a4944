"""Gives memory back to the system that a closed connection has freed."""

from __future__ import annotations

import ctypes

_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's; other C libraries keep less
if _trim is not None:
    _trim.argtypes = [ctypes.c_size_t]


def give_back() -> None:
    """Returns what is free. glibc keeps it for the next thread that happens to share its arena; every
    connection has new threads, so that the process grows by each of them, a hundred times or more."""
    if _trim is not None:
        _trim(0)
