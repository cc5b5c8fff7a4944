"""What the README shows is run: its Python blocks, and its commands on a picture and a video of our own."""

from __future__ import annotations

import base64
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from edge_fr.events import to_json
from samples.standoff_people import HOPPER, portrait

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()
PYTHON = re.findall(r"```python\n(.*?)```", README, re.S)
COMMANDS = [
    line.partition("  #")[0].removeprefix("$ ").strip()
    for block in re.findall(r"```console\n(.*?)```", README, re.S)
    for line in block.replace("\\\n", " ").splitlines()
    if line.startswith("$ edge-fr")
]
# These need a camera or GPU that is not here, the network, or a model file of the reader's.
NEED_MORE = ("rtsp://", "models pull", "my.onnx", ".engine")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with the files that the README speaks of."""
    photo = portrait(HOPPER)
    cv2.imwrite(str(tmp_path / "grace.jpg"), photo)
    cv2.imwrite(str(tmp_path / "door.jpg"), np.clip(photo * 0.9, 0, 255).astype(np.uint8))
    video = cv2.VideoWriter(
        str(tmp_path / "door.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), 10, photo.shape[1::-1]
    )
    for _ in range(8):
        video.write(photo)
    video.release()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WEBHOOK_SECRET", f"whsec_{base64.b64encode(bytes(32)).decode()}")
    return tmp_path


def edge_fr(command: str) -> subprocess.CompletedProcess[str]:
    arguments = [sys.executable, "-m", "edge_fr.cli", *shlex.split(command)[1:]]
    return subprocess.run(arguments, capture_output=True, text=True, timeout=600, check=False)


def test_the_python_blocks_run_one_after_the_other(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert len(PYTHON) >= 3
    for block in PYTHON:
        exec(compile(block, "README.md", "exec"), {"__name__": "readme"})
    printed = capsys.readouterr().out
    assert printed.startswith("match")
    assert "known Grace Hopper" in printed
    assert "'face.identified': 1" in printed
    assert "'webhook': SinkStatus(waiting=2, delivered=0," in printed


def test_the_commands_run_one_after_the_other(folder: Path) -> None:
    run = [command for command in COMMANDS if not any(word in command for word in NEED_MORE)]
    assert len(run) >= 6
    for command in run:
        done = edge_fr(command)
        assert done.returncode == 0, f"{command}: {done.stderr}"
    assert (folder / "door.annotated.mp4").stat().st_size > 0
    (identified, _) = map(json.loads, (folder / "events.jsonl").read_text().splitlines())
    assert identified["identity"] == "Grace Hopper"


def test_the_event_shown_has_the_fields_that_events_have(folder: Path) -> None:
    (block,) = re.findall(r"```json\n(.*?)```", README, re.S)
    from edge_fr import Recognizer, open_pipeline, open_source, run

    with Recognizer.open("people.db", create=True) as recognizer:
        recognizer.enroll("Grace Hopper", "grace.jpg")
    events = []

    class Keep:
        def write(self, event: object) -> None:
            events.append(to_json(event))  # type: ignore[arg-type]

    with open_source("door.mp4") as source:
        run(source, open_pipeline("people.db"), sinks=[Keep()])
    shown = json.loads(block)
    assert list(shown) == list(events[0])
    for name in ("quality", "decision", "model"):
        assert list(shown[name]) == list(events[0][name])
    assert list(shown["candidates"][0]) == list(events[0]["candidates"][0])
