"""Reads a page of the process under test."""

from __future__ import annotations

import urllib.request
from urllib.error import HTTPError


def get(url: str) -> tuple[int, str]:
    """Its status and text, whatever the status is; URLError and ConnectionError where nothing answers."""
    try:
        with urllib.request.urlopen(url, timeout=60) as answer:
            return answer.status, answer.read().decode()
    except HTTPError as error:
        with error:
            return error.code, error.read().decode()
