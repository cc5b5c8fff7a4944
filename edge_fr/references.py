"""Secrets by reference: `${env:NAME}` and `${file:PATH}` in a configuration stand for what lies there."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from edge_fr.errors import InputError

_REFERENCE = re.compile(r"\$\{(env|file):([^}]+)\}")


def is_reference(text: str) -> bool:
    """Whether the text is one reference and nothing else."""
    return _REFERENCE.fullmatch(text) is not None


def expand(text: str, where: str, environment: Mapping[str, str] = os.environ) -> str:
    """The text with every reference replaced; a file's last line end is left out.

    InputError that names `where` and the reference, never what it stands for.
    """

    def value(match: re.Match[str]) -> str:
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

    return _REFERENCE.sub(value, text)
