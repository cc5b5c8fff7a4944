"""stdin, stdout and stderr as a command needs them: all there, and able to print every name."""

from __future__ import annotations

import codecs
import io
import os
import sys


def prepare() -> None:
    """Opens those that whoever started us had closed, and has what the terminal cannot show printed as an
    escape that is JSON's as well: `\\u00e9`.

    Where one is closed, the next file that is opened has its number, and a library that prints would write
    into it, be it the gallery.
    """
    while (file := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(file, True)
    os.close(file)
    sys.stdin = sys.stdin or os.fdopen(0, encoding="utf-8", closefd=False)
    sys.stdout = sys.stdout or os.fdopen(1, "w", encoding="utf-8", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", encoding="utf-8", closefd=False)
    codecs.register_error("json-escape", _escape)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="json-escape")


def as_typed(text: str) -> str:
    """An argument of the command line as the UTF-8 that it most likely is, where Python took it for ASCII."""
    try:
        return os.fsencode(text).decode()
    except UnicodeError:
        return text


def mute() -> None:
    """Lets what is still to be printed vanish where stdout takes no more: Python prints it at the end."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


def _escape(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)
    units = error.object[error.start : error.end].encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[i : i + 2].hex()}" for i in range(0, len(units), 2)), error.end
