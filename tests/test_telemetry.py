"""Nobody is phoned: what runs leaves no file but its own in the home folder, and asks for no host."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import cv2
import pytest

from samples.standoff_people import HOPPER, portrait

ROOT = Path(__file__).resolve().parents[1]
EDGE_FR = (sys.executable, "-m", "edge_fr.cli")


class Traces(NamedTuple):
    """What a command left in an empty home folder, and which hosts it asked for."""

    printed: str
    files: list[str]
    hosts: list[str]


@pytest.fixture(scope="module")
def watch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("gcc")
    if compiler is None:
        pytest.skip("no gcc to build what watches for hosts")
    library = tmp_path_factory.mktemp("watch") / "watched_hosts.so"
    source = Path(__file__).with_name("watched_hosts.c")
    subprocess.run([compiler, "-shared", "-fPIC", "-o", str(library), str(source), "-ldl"], check=True)
    return library


def traces(watch: Path, folder: Path, *command: str, **environment: str) -> Traces:
    home, asked = folder / "home", folder / "asked"
    home.mkdir()
    asked.touch()
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        env={
            **{name: value for name, value in os.environ.items() if not name.startswith(("XDG_", "ORT_"))},
            **environment,
            "HOME": str(home),
            "PYTHONPATH": str(ROOT),
            "LD_PRELOAD": str(watch),
            "ASKED": str(asked),
        },
    )
    assert done.returncode == 0, done.stderr
    files = [str(path.relative_to(home)) for path in home.rglob("*") if not path.is_dir()]
    return Traces(done.stdout, sorted(files), asked.read_text().splitlines())


@pytest.mark.parametrize("wish", ["", "0"])
@pytest.mark.parametrize(
    "code",
    [
        "from edge_fr import open_engine; open_engine(MODEL)",
        "import edge_fr, onnxruntime; onnxruntime.InferenceSession(MODEL)",
        "import calibration.ranges as r; r.onnxruntime.InferenceSession(MODEL)",
        "import export, onnxruntime; onnxruntime.InferenceSession(MODEL)",
    ],
)
def test_opening_a_model_tells_nobody_whatever_the_environment_says(
    watch: Path, tmp_path: Path, code: str, wish: str
) -> None:
    code = f"MODEL = {str(ROOT / 'edge_fr/weights/recognizer-gate.onnx')!r}; {code}"
    environment = {"ORT_DISABLE_TELEMETRY": wish} if wish else {}
    assert traces(watch, tmp_path, sys.executable, "-c", code, **environment) == ("", [], [])


def test_the_doctor_asks_each_library_and_tells_nobody(watch: Path, tmp_path: Path) -> None:
    left = traces(watch, tmp_path, *EDGE_FR, "doctor", EDGE_FR_CACHE=str(tmp_path))
    assert "onnxruntime" in left.printed
    assert left.hosts == []
    assert not [name for name in left.files if "gstreamer" not in name]  # its registry of plugins


def test_nobody_is_told_of_who_is_enrolled_and_seen(
    watch: Path, tmp_path: Path, pulled: Callable[[str], Path]
) -> None:
    cv2.imwrite(str(tmp_path / "grace.png"), portrait(HOPPER))
    cache = str(pulled("yunet").parents[1])
    for number, command in enumerate((["enroll", "Grace", "grace.png"], ["run", "grace.png"], ["bench"])):
        folder = tmp_path / str(number)
        folder.mkdir()
        shutil.copy(tmp_path / "grace.png", folder)
        left = traces(watch, folder, *EDGE_FR, *command, EDGE_FR_CACHE=cache)
        assert (left.files, left.hosts) == ([], []), left.printed


def test_what_watches_sees_who_looks_a_host_up_and_who_connects(watch: Path, tmp_path: Path) -> None:
    code = (
        "import socket; from contextlib import suppress\n"
        "with suppress(OSError): socket.create_connection(('localhost', 9))\n"
        "open(__import__('os').path.expanduser('~/mine'), 'w').close()"
    )
    left = traces(watch, tmp_path, sys.executable, "-c", code)
    assert left.files == ["mine"]
    assert left.hosts[0] == "getaddrinfo localhost"
    assert {line.split()[0] for line in left.hosts[1:]} == {"connect"}
