"""What comes from outside is shown as it is, and obeyed by no terminal."""

from __future__ import annotations

import json

import pytest

from edge_fr.printable import is_hidden, json_line, printable


@pytest.mark.parametrize(
    "text", ["Zo\u00eb O'Hara-Smith", "\u674e\u5c0f\u9f8d", "\U0001f642", "\u0639\u0644\u064a", ""]
)
def test_letters_of_all_scripts_are_shown_as_they_are(text: str) -> None:
    assert printable(text) == text
    assert json_line([text]) == json.dumps([text], ensure_ascii=False)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[2Jdoor", r"\x1b[2Jdoor"),
        ("a\x9b31mb", r"a\x9b31mb"),
        ("a\r\nb\x7f", r"a\x0d\x0ab\x7f"),
        ("An\u200bna", r"An\u200bna"),
        ("\u202eannA", r"\u202eannA"),
        ("An\ufe0fna", r"An\ufe0fna"),
        ("Anna\U000e0041", r"Anna\U000e0041"),
        ("An\u3164na", r"An\u3164na"),
        ("Anna\u00a0K", r"Anna\xa0K"),
        ("caf\udce9", r"caf\udce9"),
    ],
)
def test_what_cannot_be_seen_or_moves_others_is_shown_by_its_number(text: str, shown: str) -> None:
    assert printable(text) == shown
    assert not any(is_hidden(c) for c in json_line([text]))
    assert json.loads(json_line([text])) == [text]
