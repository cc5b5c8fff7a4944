"""The C library's heap, in a process that is to run for months.

glibc gives threads heaps of their own, up to eight for each core, and keeps what is free in each for the next
thread that happens to share it. Every connection has new threads, so that a process whose cameras come and go
grows although nothing in it is lost. Other C libraries keep less, and nothing is done about them.
"""

from __future__ import annotations

import ctypes

_C = ctypes.CDLL(None)
_M_ARENA_MAX = -8  # glibc's number for it; the C library says it in a header alone
_GLIBC = hasattr(_C, "gnu_get_libc_version")


def share() -> None:
    """Has all threads that start from now on use one heap. For the start of a program; it cannot be undone.

    A thread now waits while another one allocates, which the frames a second do not show: the large pieces,
    pictures and inputs of models, are few.
    """
    if _GLIBC:
        _C.mallopt(_M_ARENA_MAX, 1)


def trim() -> None:
    """Returns to the system what is free in all heaps."""
    if _GLIBC:
        _C.malloc_trim(ctypes.c_size_t(0))
