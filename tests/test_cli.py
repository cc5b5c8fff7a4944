"""The command as a user types it, with the real models: what it prints, writes, refuses and returns."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from edge_fr import commands
from edge_fr.cli import main
from edge_fr.printable import is_hidden
from samples.standoff_people import COLLINS, HOPPER, portrait

FRAMES = 25


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two portraits, a one-second video of the first, and a gallery that knows her."""
    folder = tmp_path_factory.mktemp("scene")
    photo = cv2.resize(portrait(COLLINS), (384, 384), interpolation=cv2.INTER_AREA)
    cv2.imwrite(str(folder / "eileen.png"), photo)
    cv2.imwrite(str(folder / "grace.png"), portrait(HOPPER))
    video = cv2.VideoWriter(str(folder / "door.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 25, (640, 480))
    for i in range(FRAMES):
        frame = np.full((480, 640, 3), 100, np.uint8)
        frame[60:444, 4 * i : 4 * i + 384] = photo
        video.write(frame)
    video.release()
    assert main(["enroll", "Eileen", str(folder / "eileen.png"), "--gallery", str(folder / "people.db")]) == 0
    return folder


def edge_fr(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own, both outputs captured."""
    command = [sys.executable, "-m", "edge_fr.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)


def test_a_reader_that_goes_away_ends_the_command_without_a_traceback() -> None:
    """As SIGPIPE ends other programs: the status of the command is 128 + 13."""
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "edge_fr.cli", "models", "show", "recognizer"]
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True, timeout=600, check=False)
    os.close(write)
    assert (done.returncode, done.stderr) == (141, "")


def test_another_broken_pipe_is_not_taken_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: object) -> int:
        raise BrokenPipeError("a camera's")

    monkeypatch.setattr(commands, "models_show", broken)
    with pytest.raises(BrokenPipeError, match="a camera's"):
        main(["models", "show", "recognizer"])


def refused(*arguments: str | Path) -> str:
    """What the command says on stderr when it refuses; there is never a traceback."""
    done = edge_fr(*arguments)
    assert done.returncode == 1, done.stdout
    assert "Traceback" not in done.stderr
    return done.stderr


def test_a_video_gives_events_on_stdout_in_a_file_and_in_the_picture(scene: Path, tmp_path: Path) -> None:
    events, annotated = tmp_path / "events.jsonl", tmp_path / "door.mp4"
    done = edge_fr(
        *("run", scene / "door.avi", "--gallery", scene / "people.db", "--json"),
        *("--events", events, "--annotate", annotated),
    )
    assert done.returncode == 0, done.stderr
    printed = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(e["type"], e["identity"]) for e in printed] == [
        ("face.identified", "Eileen"),
        ("face.ended", "Eileen"),
    ]
    assert printed[0]["decision"]["frames_used"] >= 1
    assert [json.loads(line) for line in events.read_text().splitlines()] == printed
    capture = cv2.VideoCapture(str(annotated))
    assert int(capture.get(cv2.CAP_PROP_FRAME_COUNT)) >= FRAMES - 1
    assert done.stderr == ""


def test_without_json_the_lines_are_for_people_and_the_summary_goes_to_stderr(scene: Path) -> None:
    done = edge_fr("run", scene / "door.avi", "--gallery", scene / "people.db")
    assert "face.identified" in done.stdout
    assert "Eileen" in done.stdout
    assert f"{FRAMES} frames in" in done.stderr


def test_without_a_gallery_everybody_is_unknown(scene: Path) -> None:
    done = edge_fr("run", scene / "door.avi", "--json")
    assert [json.loads(line)["type"] for line in done.stdout.splitlines()] == ["face.unknown", "face.ended"]


def test_people_who_were_not_there_are_told_of_only_where_that_is_asked_for(
    scene: Path, tmp_path: Path
) -> None:
    files = []
    for more in ([], ["--candidates"]):
        events = tmp_path / f"{len(more)}.jsonl"
        done = edge_fr("run", scene / "grace.png", "--gallery", scene / "people.db", "--json",
                       "--events", events, *more)  # fmt: skip
        assert [json.loads(line) for line in events.read_text().splitlines()] == [
            json.loads(line) for line in done.stdout.splitlines()
        ]
        files.append(
            [[c["identity"] for c in json.loads(line)["candidates"]] for line in done.stdout.splitlines()]
        )
    assert files == [[[], []], [["Eileen"], ["Eileen"]]]


def test_a_camera_s_name_sends_a_terminal_no_control_sequence(scene: Path, tmp_path: Path) -> None:
    file = tmp_path / "\x1b[2J\u202edoor.png"
    file.write_bytes((scene / "grace.png").read_bytes())
    (tmp_path / "\x9b31mliar.png").write_text("I am text")
    done = edge_fr("run", tmp_path, "--gallery", scene / "people.db")
    assert r"skipped \x9b31mliar.png" in done.stderr
    assert not [c for c in done.stdout + done.stderr if is_hidden(c) and c != "\n"]
    for option in (["--json"], []):
        done = edge_fr("run", file, *option)
        assert not [c for c in done.stdout + done.stderr if is_hidden(c) and c != "\n"]
        if option:
            assert "\x1b[2J" in json.loads(done.stdout.splitlines()[0])["camera"]
    assert not [c for c in refused("run", f"{tmp_path}/\x1b[1mno.mp4") if is_hidden(c) and c != "\n"]


def test_a_folder_of_pictures_gives_each_its_answer_and_names_what_it_skipped(
    scene: Path, tmp_path: Path
) -> None:
    for name in ("eileen.png", "grace.png"):
        (tmp_path / name).write_bytes((scene / name).read_bytes())
    (tmp_path / "liar.jpg").write_text("I am text")
    done = edge_fr("run", tmp_path, "--gallery", scene / "people.db")
    assert done.returncode == 0
    lines = [line for line in done.stdout.splitlines() if "face.ended" not in line]
    assert ["Eileen" in line for line in lines] == [True, False]
    assert "face.unknown" in lines[1]
    assert "skipped liar.jpg" in done.stderr


def test_a_truncated_video_gives_what_it_holds_and_then_says_where_it_broke_off(
    scene: Path, tmp_path: Path
) -> None:
    cut = tmp_path / "cut.avi"
    data = (scene / "door.avi").read_bytes()
    cut.write_bytes(data[: len(data) * 2 // 3])
    done = edge_fr("run", cut, "--gallery", scene / "people.db", "--json")
    assert done.returncode == 1
    assert "broke off after" in done.stderr
    assert "face.identified" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "nowhere.mp4"], "nowhere.mp4"),
        (["run", "gopher://old"], "gopher"),
        (["run", "{scene}/door.avi", "--gallery", "nobody.db"], "nobody.db"),
        (["run", "{scene}/door.avi", "--gallery", "{scene}/door.avi"], "door.avi"),
        (["run", "{scene}/door.avi", "--embedder", "{scene}/door.avi"], "expected .onnx"),
        (["run", "{scene}/door.avi", "--embedder", "yunet"], "expected one for 'embed'"),
        (["run", "{scene}/door.avi", "--detector", "nonsense"], "nonsense"),
        (["run", "{scene}/door.avi", "--gate", "nonsense"], "nonsense"),
        (["run", "{scene}/door.avi", "--threads", "0"], "threads is 0"),
        (["run", "{scene}/door.avi", "--fpir", "7"], "target_fpir is 7"),
        (["run", "{scene}/door.avi", "--events", "/dev/stdout"], "no regular file"),
        (["run", "{scene}/door.avi", "--device", "cuda"], "was to run on cuda"),
        (["run", "{scene}/door.avi", "--annotate", "/no/such/folder/out.mp4"], "/no/such/folder"),
        (["run", "{scene}/door.avi", "--events", "/no/such/folder/out.jsonl"], "/no/such/folder"),
        (["enroll", "Eileen", "{scene}/door.avi", "--gallery", "{tmp}/new.db"], "door.avi"),
        (["enroll", "Eileen", "{scene}/eileen.png", "--embedder", "yunet"], "expected one for 'embed'"),
        (["bench", "{scene}/door.avi", "--detector", "nonsense"], "nonsense"),
        (["audit", "{scene}/door.avi", "-o", "{tmp}/a.html", "--device", "cuda"], "was to run on cuda"),
        (["gallery", "remove", "Ellen", "--gallery", "{scene}/people.db"], "'Eileen'"),
        (["gallery", "list", "--gallery", "nobody.db"], "nobody.db"),
        (["models", "pull", "nonsense"], "nonsense"),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else None,
)
def test_what_cannot_be_done_is_said_in_one_line(
    arguments: list[str], message: str, scene: Path, tmp_path: Path
) -> None:
    error = refused(*[a.format(scene=scene, tmp=tmp_path) for a in arguments])
    assert message in error
    assert error.startswith("edge-fr: ")
    assert len(error.strip().splitlines()) <= 2


def test_people_are_listed_and_removed(scene: Path, tmp_path: Path) -> None:
    gallery = tmp_path / "people.db"
    gallery.write_bytes((scene / "people.db").read_bytes())
    listed = json.loads(edge_fr("gallery", "list", "--gallery", gallery, "--json").stdout)
    assert [(row["identity"], row["templates"]) for row in listed] == [("Eileen", 1)]
    assert (
        edge_fr("gallery", "remove", "Eileen", "--gallery", gallery).stdout
        == "removed Eileen, 1 templates erased\n"
    )
    assert json.loads(edge_fr("gallery", "list", "--gallery", gallery, "--json").stdout) == []


def test_a_full_disk_ends_the_run_with_the_event_that_is_missing_and_keeps_the_others(
    scene: Path, tmp_path: Path
) -> None:
    events = tmp_path / "events.jsonl"
    script = (
        "import resource, signal, sys\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (900, 900))\n"
        "from edge_fr.cli import main\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    arguments = ["run", scene / "door.avi", "--gallery", scene / "people.db", "--json", "--events", events]
    done = subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "cannot write to" in done.stderr
    assert "Traceback" not in done.stderr
    for line in events.read_text().splitlines():
        json.loads(line)


def still_video(path: Path, photo: Path, frames: int) -> Path:
    """A video of one unmoving portrait."""
    image = cv2.imread(str(photo))
    video = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 25, image.shape[1::-1])
    for _ in range(frames):
        video.write(image)
    video.release()
    return path


def test_a_reader_that_goes_away_is_no_error_and_the_file_of_events_goes_on(
    scene: Path, tmp_path: Path
) -> None:
    """`edge-fr run ... | head -n 1`: our output is closed after the first event, the second follows."""
    video, events = still_video(tmp_path / "clip.mp4", scene / "eileen.png", 150), tmp_path / "events.jsonl"
    arguments = ["run", video, "--gallery", scene / "people.db", "--json", "--events", events]
    command = [sys.executable, "-m", "edge_fr.cli", *map(str, arguments)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert json.loads(process.stdout.readline())["type"] == "face.identified"
        process.stdout.close()
        error = process.stderr.read()
        assert process.wait(600) == 0
    assert error == ""
    types = [json.loads(line)["type"] for line in events.read_text().splitlines()]
    assert types == ["face.identified", "face.ended"]


def test_sigterm_ends_a_run_with_the_events_that_were_owed(scene: Path, tmp_path: Path) -> None:
    """A service manager stops a run in the middle of a long video, while a person is in view."""
    video = still_video(tmp_path / "long.mp4", scene / "eileen.png", 3000)
    arguments = ["run", str(video), "--gallery", str(scene / "people.db"), "--json"]
    command = [sys.executable, "-m", "edge_fr.cli", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        first = json.loads(process.stdout.readline())
        process.terminate()
        rest, error = process.communicate(timeout=600)
    assert first["type"] == "face.identified"
    (ended,) = map(json.loads, rest.splitlines())
    assert ended["type"] == "face.ended"
    assert ended["pts_ns"] < 100e9  # not the end of the video, which lasts two minutes
    assert process.returncode == 0  # what a service manager takes for a clean stop
    assert "Traceback" not in error


def test_doctor_and_bench_speak_json(scene: Path) -> None:
    findings = json.loads(edge_fr("doctor", "--json").stdout)
    assert {"name", "state", "detail", "remedy"} <= set(findings[0])
    assert any(f["name"] == "onnxruntime" and f["state"] == "ok" for f in findings)
    bench = json.loads(edge_fr("bench", scene / "door.avi", "--json").stdout)
    assert bench["frames"] == FRAMES
    assert {"detect", "embed", "engine:detect"} <= set(bench["stages"])


def test_a_card_written_for_a_user_s_model_lets_it_run(scene: Path, tmp_path: Path) -> None:
    """A copy of SFace without its card stands for a user's own embedder."""
    onnx = pytest.importorskip("onnx")
    from edge_fr.models import resolve

    own = tmp_path / "own.onnx"
    model = onnx.load(str(resolve("sface")))
    del model.metadata_props[:]
    onnx.save(model, str(own))
    assert "edge-fr models card" in refused("run", scene / "door.avi", "--embedder", own)
    carded = edge_fr(
        *("models", "card", own, "--task", "embed", "--colour", "RGB", "--input-range", "0", "255"),
        *("--embedding-size", "128", "--licence", "Apache-2.0", "--training-data", "unknown"),
    )
    assert carded.returncode == 0, carded.stderr
    # it runs, but no threshold can be promised for it until its impostor scores were measured
    assert "calibration.impostor_scores" in refused("run", scene / "door.avi", "--embedder", own)


def test_help_needs_no_model_and_names_every_command() -> None:
    environment = {**os.environ, "EDGE_FR_CACHE": "/nonexistent"}
    done = subprocess.run(
        [sys.executable, "-m", "edge_fr.cli", "--help"],
        capture_output=True,
        text=True,
        env=environment,
        check=True,
    )
    for command in ("run", "audit", "enroll", "gallery", "models", "build", "bench", "doctor"):
        assert command in done.stdout
