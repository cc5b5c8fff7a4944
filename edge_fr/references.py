"""Secrets by reference: `${env:NAME}` and `${file:PATH}` in a configuration stand for what lies there."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from edge_fr.errors import InputError

_REFERENCE = re.compile(r"\$\{(env|file):([^}]+)\}")
_OF_A_PATH = "/?&=:;,+%~!$'()*"  # what a path may hold as it is


class Expanded(NamedTuple):
    """An address, and what in it must never be shown."""

    address: str
    secrets: tuple[str, ...]


def is_reference(text: str) -> bool:
    """Whether the text is one reference and nothing else."""
    return _REFERENCE.fullmatch(text) is not None


def mask(text: str) -> str:
    """The text with a NUL in place of each character of a reference: what is left was written out."""
    return _REFERENCE.sub(lambda match: "\0" * len(match[0]), text)


def expand(text: str, where: str, environment: Mapping[str, str] = os.environ) -> str:
    """The text with every reference replaced; a file's last line end is left out.

    InputError that names `where` and the reference, never what it stands for.
    """
    return _REFERENCE.sub(lambda match: _value(match, where, environment), text)


def expand_address(text: str, where: str, environment: Mapping[str, str] = os.environ) -> Expanded:
    """An address with every reference replaced. What they stand for is written as it is: it becomes part of
    the URL here, percent-encoded, whatever characters a password has.

    A reference that is the whole address, its host, or part of a file's path is taken as it stands; one
    alone before the @ is "user:password". Raises what `expand` does.
    """
    masked = mask(text)
    before_host = masked.find("://") + len("://")
    if "://" not in masked:
        return Expanded(expand(text, where, environment), ())
    after_host = next((i for i in range(before_host, len(masked)) if masked[i] in "/?#"), len(masked))
    at = masked.rfind("@", before_host, after_host)
    secrets: list[str] = []

    def encoded(match: re.Match[str]) -> str:
        value, begin = _value(match, where, environment), match.start()
        if at < begin < after_host:
            return value
        if begin >= after_host:
            safe = "" if text[begin - 1] == "=" else _OF_A_PATH
        else:
            safe = ":" if match.span() == (before_host, at) else ""
        secrets.append(value)
        return quote(value, safe=safe)

    return Expanded(_REFERENCE.sub(encoded, text), tuple(secrets))


def _value(match: re.Match[str], where: str, environment: Mapping[str, str]) -> str:
    kind, name = match.groups()
    if kind == "env":
        if name not in environment:
            raise InputError(f"{where}: the environment variable {name} is not set")
        return environment[name]
    try:
        return Path(name).read_text(encoding="utf-8").removesuffix("\n").removesuffix("\r")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise InputError(f"{where}: the file {name} cannot be read: {reason}") from error
