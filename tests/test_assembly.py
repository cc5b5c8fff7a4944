"""A whole site from its file: two cameras, one set of models, a webhook behind the outbox."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from webhook_receiver import SECRET, Receiver

from edge_fr.cli import main
from samples.standoff_people import COLLINS, HOPPER, portrait

SITE = """
gallery: people.db
models: {threads: 1}
defaults: {decide_within_s: 1}
cameras:
  door: {source: eileen.avi}
  yard: {source: grace.avi, region: [0.0, 0.0, 1.0, 0.95], fps: 50}
events:
  jsonl: events.jsonl
  outbox: outbox.db
  webhook: {url: "WHERE", secret: "${env:HOOK_SECRET}"}
"""


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as it:
        yield it


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a second of video of each of two people, and a gallery that knows the first."""
    folder = tmp_path_factory.mktemp("site")
    for name, person in (("eileen", COLLINS), ("grace", HOPPER)):
        photo = cv2.resize(portrait(person), (384, 384), interpolation=cv2.INTER_AREA)
        cv2.imwrite(str(folder / f"{name}.png"), photo)
        video = cv2.VideoWriter(str(folder / f"{name}.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 25, (640, 480))
        for i in range(25):
            frame = np.full((480, 640, 3), 100, np.uint8)
            frame[40:424, 4 * i : 4 * i + 384] = photo
            video.write(frame)
        video.release()
    assert main(["enroll", "Eileen", str(folder / "eileen.png"), "--gallery", str(folder / "people.db")]) == 0
    return folder


def run(site: Path, *options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """`edge-fr run --config` from another folder: paths are relative to the file."""
    command = [sys.executable, "-m", "edge_fr.cli", "run", "--config", str(site), *options]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=600, check=False, env={**os.environ, **environment}
    )


def test_every_camera_is_recognized_and_its_events_reach_every_sink(scene: Path, receiver: Receiver) -> None:
    site = scene / "site.yaml"
    site.write_text(SITE.replace("WHERE", receiver.url))
    done = run(site, "--json", HOOK_SECRET=SECRET)
    assert done.returncode == 0, done.stderr
    printed = [json.loads(line) for line in done.stdout.splitlines()]
    by_camera = {
        camera: [(e["type"], e["identity"]) for e in printed if e["camera"] == camera]
        for camera in ("door", "yard")
    }
    assert by_camera == {
        "door": [("face.identified", "Eileen"), ("face.ended", "Eileen")],
        "yard": [("face.unknown", None), ("face.ended", None)],
    }
    written = [json.loads(line) for line in (scene / "events.jsonl").read_text().splitlines()]
    assert written == printed
    assert [json.loads(post.body) for post in receiver.taken] == printed
    assert all(post.signed for post in receiver.taken)


def test_the_lines_to_read_say_which_camera(scene: Path, receiver: Receiver) -> None:
    site = scene / "site.yaml"
    site.write_text(SITE.replace("WHERE", receiver.url))
    done = run(site, HOOK_SECRET=SECRET)
    assert re.search(r"^door .* face\.identified +Eileen", done.stdout, re.MULTILINE)
    assert re.search(r"^yard .* face\.unknown", done.stdout, re.MULTILINE)
    assert "50 frames in" in done.stderr


def test_a_video_that_was_cut_short_is_told_and_harms_no_other(scene: Path) -> None:
    whole = (scene / "grace.avi").read_bytes()
    (scene / "cut.avi").write_bytes(whole[: len(whole) * 2 // 3])
    (scene / "text.avi").write_text("no video at all")
    site = scene / "cut.yaml"
    site.write_text(
        "{gallery: people.db, models: {threads: 1}, cameras: "
        "{cut: {source: cut.avi}, door: {source: eileen.avi}, text: {source: text.avi}}}"
    )
    done = run(site, "--json")
    assert done.returncode == 1
    given_up, at_the_end = done.stderr.split("edge-fr: ")
    at_once = [line.removeprefix("given up: ") for line in given_up.splitlines()]
    for lines in (at_once, at_the_end.splitlines()):
        first, second = sorted(lines)
        assert re.match("cut: .*cut.avi broke off after .* frames", first)
        assert re.match("text: .*text.avi", second)
    printed = [json.loads(line) for line in done.stdout.splitlines()]
    of = {name: [e["type"] for e in printed if e["camera"] == name] for name in ("cut", "door", "text")}
    assert of == {
        "cut": ["face.unknown", "face.ended", "camera.offline"],
        "door": ["face.identified", "face.ended"],
        "text": ["camera.offline"],
    }
    done = run(site)
    assert (done.returncode, "frames in" in done.stderr) == (1, True)  # what was done is told all the same


def test_a_secret_that_is_not_there_is_told_before_any_camera_is_opened(scene: Path) -> None:
    site = scene / "site.yaml"
    site.write_text(SITE.replace("WHERE", "http://127.0.0.1:9/"))
    done = run(site, HOOK_SECRET="")
    assert done.returncode == 1
    assert "webhook" in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ([], "name a source, or a site's file with --config, and not both"),
        (["test://", "--config", "site.yaml"], "and not both"),
        (
            ["--config", "site.yaml", "--gallery", "x.db"],
            "--gallery is for one source, beside --config site.yaml says it; leave it out",
        ),
        (["--config", "site.yaml", "--device", "cpu"], "--device is for one source"),  # the site may say cuda
        (["--config", "site.yaml", "--decide-within", "1"], "--decide-within is for one source"),
        (["--config", "absent.yaml"], "no configuration at absent.yaml"),
    ],
)
def test_what_to_run_is_said_once(
    options: list[str], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", *options]) == 1
    assert reason in capsys.readouterr().err


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("rtsp://v:${env:GATE_PASSWORD}@127.0.0.1/live", "the environment variable GATE_PASSWORD is not set"),
        ("rtsp://v:${env:HOOK_SECRET}@/live", r"'rtsp://\*\*\*@/live' names no host"),
        ("gone.mp4", "there is no file or folder '.*gone.mp4'"),
    ],
)
def test_what_is_wrong_with_a_source_names_its_camera(scene: Path, source: str, reason: str) -> None:
    site = scene / "gate.yaml"
    site.write_text(
        f"models: {{threads: 1}}\ncameras: {{door: {{source: eileen.avi}}, gate: {{source: '{source}'}}}}"
    )
    done = run(site, HOOK_SECRET=SECRET)
    assert done.returncode == 1
    assert re.search(rf"^edge-fr: cameras\.gate\.source: {reason}", done.stderr)
    assert SECRET not in done.stdout + done.stderr
