"""The samples run as a user runs them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import drawn_weights
import numpy as np
import pytest
import torch
from onnx_files import small_recognizer

from edge_fr.cli import main
from edge_fr.embed import Embedder
from edge_fr.engine import open_engine
from edge_fr.passport import read_passport
from samples.standoff_people import COLLINS, HOPPER, portrait

SAMPLES = Path(__file__).resolve().parents[1] / "samples"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A gallery that knows Grace Hopper, a picture of her, one of somebody else, and a video."""
    cv2.imwrite(str(tmp_path / "grace.png"), portrait(HOPPER))
    cv2.imwrite(str(tmp_path / "eileen.png"), portrait(COLLINS))
    cv2.imwrite(str(tmp_path / "tiny.png"), cv2.resize(portrait(HOPPER), (40, 47)))
    photo = portrait(HOPPER)
    video = cv2.VideoWriter(
        str(tmp_path / "door.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 10, photo.shape[1::-1]
    )
    for _ in range(8):
        video.write(photo)
    video.release()
    gallery = str(tmp_path / "people.db")
    assert main(["enroll", "Grace Hopper", str(tmp_path / "grace.png"), "--gallery", gallery]) == 0
    return tmp_path


def sample(folder: Path, name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SAMPLES / name), *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=600, check=False)


def test_one_camera_prints_who_is_seen_and_writes_the_events(folder: Path) -> None:
    done = sample(folder, "one_camera.py", "door.avi", "people.db")
    assert done.returncode == 0, done.stderr
    assert "Grace Hopper" in done.stdout
    assert "8 frames" in done.stdout
    types = [json.loads(line)["type"] for line in (folder / "events.jsonl").read_text().splitlines()]
    assert types == ["face.identified", "face.ended"]


def test_the_kiosk_says_match_no_match_or_why_it_cannot_tell(folder: Path) -> None:
    match = sample(folder, "kiosk.py", "people.db", "Grace Hopper", "grace.png")
    assert (match.returncode, match.stdout[:6]) == (0, "match:")
    other = sample(folder, "kiosk.py", "people.db", "Grace Hopper", "eileen.png")
    assert (other.returncode, other.stdout[:9]) == (1, "no match:")
    unsure = sample(folder, "kiosk.py", "people.db", "Grace Hopper", "tiny.png")
    assert unsure.returncode == 2
    assert "please look at the camera again" in unsure.stdout
    nobody = sample(folder, "kiosk.py", "people.db", "Ada Lovelace", "grace.png")
    assert "nobody called 'Ada Lovelace'" in nobody.stderr


@pytest.mark.parametrize(
    ("name", "weights"),
    [
        ("mobilefacenet", lambda: drawn_weights.mobilefacenet(1, 16, names=drawn_weights.TREB1EN)),
        ("mobilefacenet-foamliu", lambda: {"epoch": 3, "state_dict": drawn_weights.foamliu(16)}),
    ],
    ids=["other names", "its own names"],
)
def test_a_checkpoint_of_one_s_own_becomes_a_recognizer(
    tmp_path: Path, name: str, weights: Callable[[], dict[str, object]]
) -> None:
    torch.save(weights(), tmp_path / "own.pt")
    done = sample(tmp_path, "export_own_recognizer.py", name, "own.pt", "face.onnx")
    assert done.returncode == 0, done.stderr
    embedder = Embedder(open_engine(tmp_path / "face.onnx"))
    assert embedder.card.training_data == "our own photographs"
    assert embedder.embed(np.zeros((2, 112, 112, 3), np.uint8)).vectors.shape == (2, 16)


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """Four seconds in which one face is seen twenty times, with a recognizer that is quickly judged."""
    small_recognizer(tmp_path / "face.onnx")
    photo = portrait(HOPPER)
    video = cv2.VideoWriter(
        str(tmp_path / "door.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 5, photo.shape[1::-1]
    )
    for i in range(20):
        video.write(cv2.convertScaleAbs(photo, alpha=0.8 + i / 50))
    video.release()
    return tmp_path


def test_a_camera_s_video_becomes_a_small_recognizer_with_a_verdict(clip: Path) -> None:
    done = sample(clip, "calibrate_own_camera.py", "door.avi", "door.int8.onnx", "face.onnx")
    assert done.returncode == 0, done.stderr
    assert "warning: 20 faces, expected at least 300" in done.stderr
    assert done.stdout.splitlines()[-1].startswith("passed: ")
    assert open_engine(clip / "door.int8.onnx").card.precision == "int8"  # without a word about proof
    assert (clip / "door.int8.court.html").is_file()


def test_a_camera_s_video_becomes_an_engine(clip: Path) -> None:
    pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx-cu13 is not installed")
    done = sample(clip, "calibrate_own_camera.py", "door.avi", "door.engine", "face.onnx", "tensorrt_rtx")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "written to door.engine"
    passport = read_passport(clip / "door.engine")
    assert (passport.card.precision, passport.card.verdict) == ("int8", "passed")


@pytest.mark.parametrize("name", ["calibrate_own_camera.py", "one_camera.py", "kiosk.py"])
def test_a_sample_is_short_enough_to_read(name: str) -> None:
    assert len((SAMPLES / name).read_text().splitlines()) < 40
