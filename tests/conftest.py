"""Where the optional evaluation data and the named models lie, and the patience of generated tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from edge_fr.errors import ModelNotFoundError
from edge_fr.models import resolve

# A machine that stands still for some seconds says nothing about what is tested.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture
def shared_data() -> Callable[[str], Path]:
    """Gives the path of a folder or file of the evaluation data, or skips the test, naming it."""

    def find(name: str) -> Path:
        path = SHARED_DATA / name
        if not path.exists():
            pytest.skip(f"evaluation data {name} is not on this machine")
        return path

    return find


@pytest.fixture
def pulled() -> Callable[[str], Path]:
    """Gives the file of a named model, or skips the test, saying how to get it."""

    def find(name: str) -> Path:
        try:
            return resolve(name)
        except ModelNotFoundError as error:
            pytest.skip(str(error))

    return find
