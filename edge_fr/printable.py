"""Text from outside, such as names, file names and what servers say, made safe to show.

A terminal obeys control sequences, and a list misleads where a character cannot be seen or turns the letters
around it.
"""

from __future__ import annotations

import json
import unicodedata
from typing import Any

# Control, format (zero-width, bidirectional, tags), half a surrogate pair, line and paragraph break, space.
_HIDDEN = {"Cc", "Cf", "Cs", "Zl", "Zp", "Zs"}
# Unicode's Default_Ignorable_Code_Point of other categories, such as variation selectors; U+2800 is a blank.
_IGNORED = {0x034F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x2065, 0x2800, 0x3164, 0xFFA0}
_IGNORED_RANGES = ((0x180B, 0x180F), (0xFE00, 0xFE0F), (0xFFF0, 0xFFFB), (0xE0000, 0xE0FFF))


def is_hidden(character: str) -> bool:
    """Whether it cannot be seen, looks like a space without being one, or moves what is around it."""
    if " " <= character <= "~":
        return False
    code = ord(character)
    ignored = code in _IGNORED or any(first <= code <= last for first, last in _IGNORED_RANGES)
    return ignored or unicodedata.category(character) in _HIDDEN


def printable(text: str) -> str:
    r"""The text with each hidden character as its number: \x1b, \u200b, \U000e0041."""
    return "".join(_number(c) if is_hidden(c) else c for c in text)


def _number(character: str) -> str:
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def json_line(values: Any) -> str:
    """JSON in one line whose hidden characters are its own escapes, so that it says the same to a reader."""
    text = json.dumps(values, ensure_ascii=False, allow_nan=False)
    return "".join(json.dumps(c)[1:-1] if is_hidden(c) else c for c in text)
