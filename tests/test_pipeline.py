"""The pipeline's wiring and the loop around it, with made-up stages where a model would be."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone

import numpy as np
import pytest
from fakes import card
from numpy.typing import NDArray

from edge_fr.continuity import Continuity
from edge_fr.decide import Decider
from edge_fr.errors import EngineError, EventError, InputError, SourceReadError
from edge_fr.image import TEMPLATE
from edge_fr.pipeline import Pipeline, Stage, Step, StillTracks, TrackStage
from edge_fr.runner import Summary, run
from edge_fr.structures import Candidate, Event, Faces, Frame, Matches
from edge_fr.timing import StageTimes
from edge_fr.track import Tracker

START = datetime(2026, 5, 1, tzinfo=timezone.utc)
PERIOD_NS = 100_000_000


def frame(index: int) -> Frame:
    pts_ns = index * PERIOD_NS
    image = np.full((120, 160, 3), 90, np.uint8)
    return Frame(image, pts_ns, START + timedelta(microseconds=pts_ns / 1000), "door", index)


class Frames:
    """A source of so many frames that then ends, or fails."""

    live = False
    dropped = 0
    damaged = 0
    skipped = ()

    def __init__(self, count: int, error: Exception | None = None) -> None:
        self.count, self.error = count, error

    def __iter__(self) -> Iterator[Frame]:
        yield from map(frame, range(self.count))
        if self.error:
            raise self.error


class Gate:
    """Lets every face through and remembers which tracks it was told to forget."""

    def __init__(self) -> None:
        self.forgotten: list[int] = []

    def __call__(self, frame: Frame, faces: Faces) -> Faces:
        n = len(faces)
        return faces.with_(quality=np.full(n, 0.5, np.float32), refusals=((),) * n, selected=np.ones(n, bool))

    def confirm(self, faces: Faces) -> Faces:
        return faces

    def forget(self, track_ids: tuple[int, ...]) -> None:
        self.forgotten += track_ids


class Keep:
    """A sink that keeps."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def write(self, event: Event) -> None:
        self.events.append(event)

    @property
    def types(self) -> list[str]:
        return [event.type for event in self.events]


def one_face(frame: Frame, faces: Faces) -> Faces:
    """A detector that sees one 40 px face, standing still."""
    landmarks = TEMPLATE[None] * np.float32(40 / 112) + np.float32(20)
    return Faces(np.array([[20, 20, 60, 60]], np.float32), np.ones(1, np.float32), landmarks)


def ones(frame: Frame, faces: Faces) -> Faces:
    return faces.with_(embeddings=np.full((len(faces), 4), 0.5, np.float32))


def grace(probes: NDArray[np.float32]) -> Matches:
    return Matches(((Candidate("Grace", 0.8, 0.5),),) * len(probes))


def pipeline(
    *,
    detector: Stage = one_face,
    embedder: Stage = ones,
    tracker: TrackStage | None = None,
    gate: Gate | None = None,
    stages: tuple[Stage, ...] = (),
    times: StageTimes | None = None,
) -> Pipeline:
    return Pipeline(
        detector=detector,
        tracker=tracker or Tracker(),
        gate=gate or Gate(),  # type: ignore[arg-type]
        embedder=embedder,
        continuity=Continuity(lambda ri: 0.4, 0.4),
        decider=Decider(grace, lambda *_: 0.4),
        model=card(),
        stages=stages,
        times=times,
    )


def test_a_person_is_announced_once_and_their_leaving_once() -> None:
    sink = Keep()
    summary = run(Frames(30), pipeline(), sinks=[sink])  # type: ignore[arg-type]
    assert sink.types == ["face.identified", "face.ended"]
    first, last = sink.events
    assert first.decision is not None
    assert first.decision.identity == "Grace"
    assert first.face is not None
    assert first.face.box.tolist() == [20, 20, 60, 60]
    assert (first.camera, first.model["embedder"]) == ("door", "sha256:fake")
    assert first.track_id == last.track_id
    assert summary.frames == 30
    assert summary.faces == 29  # the first sight alone is no track yet
    assert dict(summary.events) == {"face.identified": 1, "face.ended": 1}


def test_a_second_run_over_the_same_frames_gives_the_same_dedupe_keys() -> None:
    keys = []
    for _ in range(2):
        sink = Keep()
        run(Frames(20), pipeline(), sinks=[sink])  # type: ignore[arg-type]
        keys.append([event.dedupe_key for event in sink.events])
    assert keys[0] == keys[1]
    assert len(set(keys[0])) == 2


def test_each_change_of_mind_has_a_dedupe_key_of_its_own() -> None:
    """known, unknown, known, unknown: who deduplicates must end with the last answer."""

    def now_and_then(probes: NDArray[np.float32]) -> Matches:
        calls.append(0)
        score = 0.9 if len(calls) // 10 % 2 == 0 else 0.1
        return Matches(((Candidate("Grace", score, 0.5),),) * len(probes))

    calls: list[int] = []
    sink, watched = Keep(), pipeline()
    watched._decider.search = now_and_then
    run(Frames(50), watched, sinks=[sink])  # type: ignore[arg-type]
    assert sink.types.count("face.identified") > 1
    assert sink.types.count("face.unknown") > 1
    keys = [event.dedupe_key for event in sink.events]
    assert len(set(keys)) == len(keys)


def test_a_sink_that_fails_takes_no_event_from_the_others_and_tells_all_it_lost() -> None:
    class Broken:
        def write(self, event: Event) -> None:
            raise EventError(f"not written: {event.type}")

    sink, summary = Keep(), Summary()
    with pytest.raises(EventError) as caught:
        run(Frames(20), pipeline(), sinks=[Broken(), sink], summary=summary)  # type: ignore[arg-type]
    assert sink.types == ["face.identified", "face.ended"]
    assert str(caught.value).splitlines() == ["not written: face.identified", "not written: face.ended"]
    assert summary.frames > 0
    assert summary.wall_s > 0
    assert "detect" in summary.stages


def test_what_a_sink_could_not_take_after_ctrl_c_is_told_too() -> None:
    class Broken:
        def write(self, event: Event) -> None:
            if event.type == "face.ended":
                raise EventError("not written: face.ended")

    def interrupted(frame: Frame, faces: Faces) -> Faces:
        if frame.index == 10:
            raise KeyboardInterrupt
        return faces

    with pytest.raises(EventError, match=r"not written: face\.ended") as caught:
        run(Frames(20), pipeline(stages=(interrupted,)), sinks=[Broken()])  # type: ignore[arg-type]
    assert isinstance(caught.value.__cause__, KeyboardInterrupt)


def test_a_run_that_is_asked_to_stop_writes_what_it_owes_and_returns() -> None:
    stop, sink = threading.Event(), Keep()

    def stop_at_10(frame: Frame, faces: Faces) -> Faces:
        if frame.index == 10:
            stop.set()
        return faces

    summary = run(Frames(1000), pipeline(stages=(stop_at_10,)), sinks=[sink], stop=stop)  # type: ignore[arg-type]
    assert sink.types == ["face.identified", "face.ended"]
    assert summary.frames == 11


def test_tracks_that_ended_in_a_frame_that_failed_later_are_told_and_forgotten() -> None:
    def gone_at_10(frame: Frame, faces: Faces) -> Faces:
        return one_face(frame, faces) if frame.index < 10 else Faces.empty()

    class FailsWhenTheTrackEnds:
        def __call__(self, frame: Frame, faces: Faces) -> Faces:
            if tracker.ended:
                raise EngineError("broken")
            return ones(frame, faces)

    tracker, sink, gate = Tracker(), Keep(), Gate()
    watched = pipeline(detector=gone_at_10, tracker=tracker, embedder=FailsWhenTheTrackEnds(), gate=gate)
    with pytest.raises(EngineError, match="broken"):
        run(Frames(100), watched, sinks=[sink])  # type: ignore[arg-type]
    assert sink.types == ["face.identified", "face.ended"]
    assert gate.forgotten == [1]


def test_a_stage_that_forgets_to_return_is_named() -> None:
    def forgetful(frame: Frame, faces: Faces) -> None:
        return None

    with pytest.raises(InputError, match="stage forgetful returned NoneType"):
        run(Frames(3), pipeline(stages=(forgetful,)))  # type: ignore[arg-type]


def test_faces_too_brief_to_follow_are_counted() -> None:
    def every_fifth_second(frame: Frame, faces: Faces) -> Faces:
        return one_face(frame, faces) if frame.index % 50 == 0 else faces

    summary = run(Frames(200), pipeline(detector=every_fifth_second))  # type: ignore[arg-type]
    assert (summary.faces, summary.unfollowed) == (0, 4)


def test_a_second_run_on_the_same_networks_tells_what_it_did_itself() -> None:
    def weary(frame: Frame, faces: Faces) -> Faces:
        times.add("weary", 1_000_000_000)
        return faces

    def flash(frame: Frame, faces: Faces) -> Faces:
        return one_face(frame, faces) if frame.index == 1 else faces

    times = StageTimes()
    run(Frames(4), pipeline(stages=(weary,), times=times))  # type: ignore[arg-type]
    again = pipeline(detector=flash, times=times)
    first = run(Frames(9), again)  # type: ignore[arg-type]
    assert "weary" not in first.stages
    assert first.stages["detect"]["total_s"] <= first.wall_s
    assert first.unfollowed == 1
    assert run(Frames(1), again).unfollowed == 0  # type: ignore[arg-type]


def test_runs_that_share_a_summary_add_up() -> None:
    class Lossy(Frames):
        dropped, damaged = 2, 1

    summary = Summary()
    for _ in range(2):
        run(Lossy(3), pipeline(), summary=summary)  # type: ignore[arg-type]
    assert (summary.frames, summary.dropped, summary.damaged) == (6, 4, 2)


def test_a_source_that_breaks_off_still_gives_the_events_owed_and_then_its_error() -> None:
    sink, summary = Keep(), Summary()
    broken = Frames(20, SourceReadError("broke off after 20 frames"))
    with pytest.raises(SourceReadError, match="broke off after 20 frames"):
        run(broken, pipeline(), sinks=[sink], summary=summary)  # type: ignore[arg-type]
    assert sink.types == ["face.identified", "face.ended"]
    assert summary.frames == 20


def test_an_engine_that_gives_nonsense_ends_the_run_with_its_error_and_loses_no_event() -> None:
    def nonsense_from_frame_10(frame: Frame, faces: Faces) -> Faces:
        if frame.index >= 10:
            raise EngineError("output 'embedding' holds NaN")
        return ones(frame, faces)

    sink = Keep()
    with pytest.raises(EngineError, match="holds NaN"):
        run(Frames(20), pipeline(embedder=nonsense_from_frame_10), sinks=[sink])  # type: ignore[arg-type]
    assert sink.types == ["face.identified", "face.ended"]


def test_a_stage_of_the_user_sees_embedded_faces_and_can_drop_them() -> None:
    seen = []

    def only_the_right_half(frame: Frame, faces: Faces) -> Faces:
        assert faces.embeddings is not None
        seen.append(len(faces))
        return faces[faces.boxes[:, 0] > frame.image.shape[1] / 2]

    sink = Keep()
    summary = run(Frames(12), pipeline(stages=(only_the_right_half,)), sinks=[sink])  # type: ignore[arg-type]
    assert seen == [0] + [1] * 11  # the first sight alone is no track yet
    assert sink.events == []
    assert "only_the_right_half" in summary.stages


def test_the_gate_forgets_tracks_that_ended() -> None:
    def leaves_after_a_second(frame: Frame, faces: Faces) -> Faces:
        return one_face(frame, faces) if frame.index < 10 else Faces.empty()

    gate, sink = Gate(), Keep()
    run(Frames(100), pipeline(detector=leaves_after_a_second, gate=gate), sinks=[sink])  # type: ignore[arg-type]
    assert len(gate.forgotten) == 1
    assert sink.types == ["face.identified", "face.ended"]
    assert sink.events[-1].pts_ns == 9 * PERIOD_NS  # when they were last seen, not when that was noticed


def test_every_face_of_unrelated_pictures_gets_an_answer_of_its_own() -> None:
    sink = Keep()
    told = []

    def note(frame: Frame, step: Step) -> None:
        told.extend(decision.status for decision in step.decisions.values())

    stills = pipeline(tracker=StillTracks())
    run(Frames(3), stills, sinks=[sink], on_step=note)  # type: ignore[arg-type]
    assert sink.types == ["face.identified", "face.ended"] * 3
    assert [event.track_id for event in sink.events] == [1, 1, 2, 2, 3, 3]
    assert told == ["known"] * 3  # in the very step, for whoever draws it
    assert [event.pts_ns // PERIOD_NS for event in sink.events] == [0, 0, 1, 1, 2, 2]


def test_a_frame_that_changes_size_mid_stream_begins_new_tracks_and_loses_no_event() -> None:
    class Resized(Frames):
        def __iter__(self) -> Iterator[Frame]:
            for f in map(frame, range(self.count)):
                side = 120 if f.index < 10 else 200
                yield Frame(np.zeros((side, side, 3), np.uint8), f.pts_ns, f.captured_at, f.camera, f.index)

    sink = Keep()
    run(Resized(20), pipeline(), sinks=[sink])  # type: ignore[arg-type]
    assert sorted(sink.types) == ["face.ended"] * 2 + ["face.identified"] * 2
    assert {event.frame_size for event in sink.events} == {(120, 120), (200, 200)}


def test_no_face_at_all_is_no_event_and_no_error() -> None:
    sink = Keep()
    summary = run(Frames(5), pipeline(detector=lambda frame, faces: faces), sinks=[sink])  # type: ignore[arg-type]
    assert (sink.events, summary.faces, summary.frames) == ([], 0, 5)


def test_every_stage_is_timed_and_a_run_of_nothing_is_fine() -> None:
    summary = run(Frames(4), pipeline())  # type: ignore[arg-type]
    assert list(summary.stages) == [
        "wait",
        "detect",
        "track",
        "align",
        "gate",
        "embed",
        "continuity",
        "decide",
    ]
    assert all(math.isfinite(row["p95_ms"]) for row in summary.stages.values())
    empty = run(Frames(0), pipeline())  # type: ignore[arg-type]
    assert (empty.frames, empty.fps) == (0, 0.0)


ANNA, BERTA = np.eye(2, 4, dtype=np.float32)


class Scene:
    """Faces by frame: where each is (x), and its look, if there is one."""

    def __init__(self, *frames: list[tuple[float, NDArray[np.float32] | None]]) -> None:
        self._frames = frames

    def detect(self, frame: Frame, faces: Faces) -> Faces:
        xs = [x for x, _ in self._frames[frame.index]]
        boxes = np.array([[x, 20, x + 40, 60] for x in xs], np.float32).reshape(-1, 4)
        return Faces(boxes, np.ones(len(xs), np.float32), np.zeros((len(xs), 5, 2), np.float32))

    def embed(self, frame: Frame, faces: Faces) -> Faces:
        rows = np.full((len(faces), 4), np.nan, np.float32)
        for row, box in zip(rows, faces.boxes, strict=True):
            look = next(look for x, look in self._frames[frame.index] if x == box[0])
            if look is not None:
                row[:] = look
        return faces.with_(embeddings=rows)

    def play(self, period_ns: int = 100_000_000) -> list[Event]:
        watched = pipeline(detector=self.detect, embedder=self.embed)
        image = np.zeros((120, 400, 3), np.uint8)
        events = []
        for i in range(len(self._frames)):
            frame = Frame(image, i * period_ns, datetime.now(timezone.utc), "door", i)
            events += watched.process(frame).events
        return [*events, *watched.finish()]


def test_who_steps_up_where_somebody_left_is_another_and_the_first_ends_as_last_surely_seen() -> None:
    stands = [[(20.0, ANNA)]] * 10
    steps_up = [[(26.0, None)]] * 3 + [[(26.0, BERTA)]] * 30  # after 0.6 s without anybody
    events = Scene(*stands, *([[]] * 6), *steps_up).play()
    assert [(e.type, e.track_id) for e in events if e.track_id == 1] == [
        ("face.identified", 1),
        ("face.ended", 1),
    ]
    last = next(e for e in events if e.type == "face.ended" and e.track_id == 1)
    assert last.face is not None
    assert (last.face.box[0], last.pts_ns) == (20.0, 900_000_000)
    others = [e for e in events if e.track_id == 2]
    assert others[0].face is not None
    assert others[0].face.box[0] == 26.0


def test_an_id_that_was_another_name_for_somebody_who_goes_on_is_not_told() -> None:
    alone = [[(20.0, ANNA)]] * 5
    passes = [[(20.0 + 4 * i, BERTA)] for i in range(6)]  # before her, on her track
    back = [[(48.0 + 10 * i, BERTA), (22.0, None if i < 3 else ANNA)] for i in range(12)]
    events = Scene(*alone, *passes, *back).play()
    assert {e.track_id for e in events} == {1, 2}  # and nothing of 3, which she was for three frames
    assert [e.track_id for e in events if e.type == "face.ended"] == [1, 2]


def test_a_look_that_the_gate_takes_back_after_the_embedder_names_nobody() -> None:
    class Doubting(Gate):
        def confirm(self, faces: Faces) -> Faces:
            return faces.with_(embeddings=np.full((len(faces), 4), np.nan, np.float32))

    sink = Keep()
    run(Frames(30), pipeline(gate=Doubting()), sinks=[sink])  # type: ignore[arg-type]
    assert sink.types == ["face.unrecognizable", "face.ended"]


@pytest.mark.parametrize("fps", [0.2, 0.5, 0.7, 1.0, 2.0])
def test_somebody_who_stands_there_is_reported_however_slowly_frames_come(fps: float) -> None:
    events = Scene(*([[(20.0, ANNA)]] * 6)).play(round(1e9 / fps))
    assert [(e.type, e.track_id) for e in events] == [("face.identified", 1), ("face.ended", 1)]


def test_frames_that_come_too_slowly_to_follow_anybody_are_told() -> None:
    assert not run(Frames(5), pipeline()).too_slow  # type: ignore[arg-type]
    watched = pipeline()
    for i in range(5):
        watched.process(Frame(np.zeros((99, 99, 3), np.uint8), i * 12 * 10**9, datetime.now(timezone.utc)))
    assert watched.too_slow
    watched.finish()
    assert watched.too_slow  # of the run that is over
