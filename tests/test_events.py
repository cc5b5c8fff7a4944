"""Events: their JSON, and a file that never holds half of one."""

from __future__ import annotations

import errno
import json
import os
import re
import subprocess
import sys
import uuid
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pytest

from edge_fr.errors import EventError
from edge_fr.events import JsonlSink, face_event, sighting, to_json, to_line, uuid7
from edge_fr.structures import Candidate, Decision, Event, Face, Frame, Refusal

NOON = datetime(2026, 5, 1, 12, tzinfo=timezone.utc)
MODEL = {"embedder": "sha256:abc", "precision": "fp32"}
ANSWER = Decision("known", "Grace", (Candidate("Grace", 0.71234, 0.4),), 0.45, 2, 0.01)


def face(ri: float | None = None, mask_prob: float | None = None) -> Face:
    return Face(
        box=np.array([64, 48, 128, 144], np.float32),
        score=0.9,
        landmarks=np.zeros((5, 2), np.float32),
        track_id=3,
        crop=None,
        quality=0.75,
        refusals=(Refusal("head_size", 10, 16, "at least", "px"),),
        embedding=np.ones(128, np.float32),
        ri=ri,
        mask_prob=mask_prob,
    )


def event(
    seconds: float = 0.0, *, ended: bool = False, a_face: Face | None = None, decision: Decision = ANSWER
) -> Event:
    frame = Frame(
        np.zeros((480, 640, 3), np.uint8), round(seconds * 1e9), NOON + timedelta(seconds=seconds), "door"
    )
    return face_event(sighting(frame, a_face or face(), NOON), 3, 1, decision, MODEL, ended=ended)


def test_an_event_has_the_published_form() -> None:
    values = to_json(event(1.5))
    uuid.UUID(values.pop("event_id"))
    assert datetime.fromisoformat(values.pop("emitted_at")).tzinfo is not None
    assert values == {
        "dedupe_key": "door/2026-05-01T12:00:00+00:00/3/1/face.identified/Grace",
        "type": "face.identified",
        "camera": "door",
        "track_id": 3,
        "captured_at": "2026-05-01T12:00:01.500000+00:00",
        "pts_ns": 1_500_000_000,
        "box_px": [64, 48, 128, 144],
        "box_norm": [0.1, 0.1, 0.2, 0.3],
        "quality": {
            "score": 0.75,
            "reasons": ["head size 10 px, needs at least 16 px"],
            "codes": ["head_size"],
        },
        "ri": None,
        "identity": "Grace",
        "candidates": [{"identity": "Grace", "score": 0.7123, "margin": 0.4}],
        "decision": {
            "status": "known",
            "threshold": 0.45,
            "target_fpir": 0.01,
            "frames_used": 2,
            "reasons": [],
            "codes": [],
        },
        "model": MODEL,
    }


def test_mask_and_recognizability_are_those_of_the_answer_and_not_of_the_last_look() -> None:
    walked_away = face(ri=0.1, mask_prob=0.2)
    values = to_json(event(a_face=walked_away, decision=replace(ANSWER, ri=0.8, mask_prob=0.93)))
    assert values["ri"] == 0.8
    assert values["mask"] == {"state": "masked", "score": 0.93}
    bare = to_json(event(decision=replace(ANSWER, mask_prob=0.2)))
    assert bare["mask"]["state"] == "bare"


def test_a_face_that_was_never_good_enough_tells_its_own_recognizability() -> None:
    nothing = Decision("unrecognizable", None, (), 0.45, 0)
    values = to_json(event(a_face=face(ri=0.1), decision=nothing))
    assert values["ri"] == 0.1
    assert "mask" not in values


def test_no_event_holds_an_embedding_or_a_picture() -> None:
    text = json.dumps(to_json(event()))
    assert len(text) < 1500
    assert "embedding" not in to_json(event())


def test_a_box_that_reaches_out_of_the_picture_ends_at_its_edges() -> None:
    out = replace(face(), box=np.array([-20, -1, 700, 481], np.float32))
    values = to_json(event(a_face=out))
    assert values["box_px"] == [0, 0, 640, 480]
    assert values["box_norm"] == [0, 0, 1, 1]


def test_a_number_that_is_not_finite_is_none() -> None:
    nan, inf = float("nan"), float("inf")
    odd = replace(face(ri=nan), box=np.array([nan, 1, inf, 9], np.float32), quality=inf)
    decision = Decision("known", "Grace", (Candidate("Grace", nan, inf),), inf, 1, nan, ri=nan, mask_prob=nan)
    values = json.loads(to_line(event(a_face=odd, decision=decision)), parse_constant=pytest.fail)
    assert values["box_px"] == [None, 1, 640, 9]
    assert values["candidates"] == [{"identity": "Grace", "score": None, "margin": None}]
    assert (values["quality"]["score"], values["ri"], values["mask"]["score"]) == (None, None, None)
    assert (values["decision"]["threshold"], values["decision"]["target_fpir"]) == (None, None)


OTHERS = (Candidate("Ada", 0.44, 0.1), Candidate("Grace", 0.34, 0.1), Candidate("Mary", 0.24, None))


@pytest.mark.parametrize(
    ("decision", "told"),
    [
        (Decision("unknown", None, OTHERS, 0.45, 4), []),
        (Decision("unknown", None, OTHERS, 0.44, 4), ["Ada"]),
        (Decision("known", "Grace", OTHERS, 0.40, 4), ["Ada", "Grace"]),  # a name that is kept just below
    ],
)
def test_people_below_the_threshold_are_not_told_of_unless_asked_for(
    tmp_path: Path, decision: Decision, told: list[str]
) -> None:
    seen = event(decision=decision)
    assert [c["identity"] for c in to_json(seen)["candidates"]] == told
    for candidates, expected in ((False, told), (True, ["Ada", "Grace", "Mary"])):
        with JsonlSink(tmp_path / f"{candidates}.jsonl", candidates=candidates) as sink:
            sink.write(seen)
        written = json.loads((tmp_path / f"{candidates}.jsonl").read_text())["candidates"]
        assert [c["identity"] for c in written] == expected
    assert written[-1] == {"identity": "Mary", "score": 0.24, "margin": None}


def test_a_new_file_of_events_is_for_its_owner_alone_and_another_keeps_its_rights(tmp_path: Path) -> None:
    shared = tmp_path / "shared.jsonl"
    shared.touch(0o640)
    shared.chmod(0o640)
    for path, mode in ((tmp_path / "new.jsonl", 0o600), (shared, 0o640)):
        with JsonlSink(path) as sink:
            sink.write(event())
        assert path.stat().st_mode & 0o777 == mode


def test_the_dedupe_key_is_the_same_for_a_later_sighting_and_differs_for_another_answer() -> None:
    assert event(1).dedupe_key == event(2).dedupe_key
    assert event(1).event_id != event(2).event_id
    assert event(1).dedupe_key != event(1, ended=True).dedupe_key


def test_event_ids_are_version_7_uuids_in_order_of_time() -> None:
    ids = [uuid7() for _ in range(200)]
    assert all(uuid.UUID(i).version == 7 and uuid.UUID(i).variant == uuid.RFC_4122 for i in ids)
    assert len(set(ids)) == 200
    stamps = [int(i.replace("-", "")[:12], 16) for i in ids]
    assert stamps == sorted(stamps)
    assert abs(stamps[0] / 1000 - datetime.now().timestamp()) < 60


def test_events_are_appended_one_a_line(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    for seconds in (1, 2):
        with JsonlSink(path) as sink:
            sink.write(event(seconds))
    assert [json.loads(line)["pts_ns"] for line in path.read_text().splitlines()] == [10**9, 2 * 10**9]


@pytest.mark.parametrize("cut", [1, 5, 100, 500])
def test_a_line_cut_short_by_a_power_failure_is_dropped_and_the_rest_kept(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "events.jsonl"
    with JsonlSink(path) as sink:
        sink.write(event(1))
        whole = path.stat().st_size
        sink.write(event(2))
    os.truncate(path, whole + cut)
    with JsonlSink(path) as sink:
        sink.write(event(3))
    assert [json.loads(line)["pts_ns"] for line in path.read_text().splitlines()] == [10**9, 3 * 10**9]


def test_a_whole_last_line_that_lacks_only_its_end_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_text('{"event_id": "1"}\n{"event_id": "2"}')
    with JsonlSink(path) as sink:
        sink.write(event(3))
    assert [json.loads(line)["event_id"] for line in path.read_text().splitlines()[:2]] == ["1", "2"]
    assert len(path.read_text().splitlines()) == 3


def test_two_writers_of_one_file_are_told_apart(tmp_path: Path) -> None:
    with JsonlSink(tmp_path / "e.jsonl"), pytest.raises(EventError, match="another process is writing"):
        JsonlSink(tmp_path / "e.jsonl")


def test_a_pipe_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(EventError, match="no regular file"):
        JsonlSink(tmp_path / "pipe")


def test_a_camera_name_that_is_no_utf8_is_written_all_the_same(tmp_path: Path) -> None:
    seen = replace(event(1), camera=os.fsdecode(b"caf\xe9.mp4"))
    with JsonlSink(tmp_path / "e.jsonl") as sink:
        sink.write(seen)
    assert json.loads((tmp_path / "e.jsonl").read_text())["camera"] == seen.camera


def test_a_file_that_is_no_event_file_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("dear diary")
    with pytest.raises(EventError, match="does not end in an event"):
        JsonlSink(path)
    assert path.read_text() == "dear diary"


def test_a_folder_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(EventError, match=re.escape(f"cannot write events to {tmp_path}/no/e.jsonl: No such")):
        JsonlSink(tmp_path / "no" / "e.jsonl")


def test_a_full_disk_keeps_the_whole_events_and_hands_the_other_one_back(tmp_path: Path) -> None:
    """A real ENOSPC-like failure: the kernel's file size limit cuts the third write short."""
    script = """
import resource, signal, sys
sys.path.insert(0, sys.argv[2])
from test_events import event
from edge_fr.errors import EventError
from edge_fr.events import JsonlSink
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
sink = JsonlSink(sys.argv[1])
sink.write(event(1)); sink.write(event(2))
import os
size = os.path.getsize(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (size + 300, size + 300))
try:
    sink.write(event(3))
except EventError as error:
    print(error)
"""
    path = tmp_path / "events.jsonl"
    done = subprocess.run(
        [sys.executable, "-c", script, str(path), str(Path(__file__).parent)],
        capture_output=True,
        text=True,
        check=True,
    )
    lines = path.read_text().splitlines()
    assert [json.loads(line)["pts_ns"] for line in lines] == [10**9, 2 * 10**9]
    assert os.strerror(errno.EFBIG) in done.stdout
    assert "2 events of this run are safe" in done.stdout
    lost = json.loads(done.stdout.partition("Not written: ")[2])
    assert lost["pts_ns"] == 3 * 10**9
