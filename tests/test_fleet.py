"""Many cameras, one set of models: whose frame comes next, and that one camera never harms another."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from fakes import MovedClock, card
from numpy.typing import NDArray

from edge_fr.continuity import Continuity
from edge_fr.decide import Decider
from edge_fr.errors import EdgeFrError, EventError, InputError, MissingDependencyError, SourceReadError
from edge_fr.fleet import Fleet, Load
from edge_fr.health import HealthCheck
from edge_fr.image import TEMPLATE
from edge_fr.lane import Lane
from edge_fr.pipeline import Pipeline
from edge_fr.quality import QualityGate, QualityPolicy
from edge_fr.region import Region
from edge_fr.stream.connection import CameraChange, CameraCounters
from edge_fr.stream.reconnect import State
from edge_fr.structures import Event, Faces, Frame, Matches
from edge_fr.timing import StageTimes
from edge_fr.track import Tracker

SECOND = 1_000_000_000


@dataclass
class DrawnCamera:
    """Gives a frame every `period_ns` of the clock, the newest when asked; ends after `count` of them."""

    name: str
    clock: MovedClock
    period_ns: int = SECOND // 10
    count: int | None = None
    live: bool = True
    age_s: float = -3600.0
    wake: threading.Event = field(default_factory=threading.Event)
    changes: list[CameraChange] = field(default_factory=list)
    started: int = 0
    closed: int = 0
    calls: list[tuple[Any, ...]] = field(default_factory=list)  # of `end` and `close`, may be shared
    taken: list[int] = field(default_factory=list)
    state: State = "RUNNING"
    reason: str = ""
    error: EdgeFrError | None = None
    hanging: int = 0

    @property
    def came(self) -> int:
        number = self.clock.ns // self.period_ns + 1
        return number if self.count is None else min(number, self.count)

    @property
    def over(self) -> bool:
        return self.count is not None and self.came == self.count and self._newest() is None

    @property
    def counters(self) -> CameraCounters:
        return CameraCounters(connects=1, frames=self.came)

    def start(self) -> None:
        self.started += 1

    def take(self) -> Frame | None:
        index = self._newest()
        if index is None:
            return None
        self.taken.append(index)
        # By default in the future, which is never too late, however long this machine stands still.
        then = datetime.now(timezone.utc) - timedelta(seconds=self.age_s)
        return Frame(np.zeros((90, 160, 3), np.uint8), index * self.period_ns, then, self.name, index)

    def take_changes(self) -> list[CameraChange]:
        changes, self.changes = self.changes, []
        return changes

    def end(self) -> None:
        self.calls.append(("end", self.name))

    def close(self, timeout_s: float) -> None:
        self.closed += 1
        self.calls.append(("close", self.name, timeout_s))
        self.clock.ns += round(timeout_s * 1e9) if self.hanging else 0

    def _newest(self) -> int | None:
        last = self.taken[-1] if self.taken else -1
        newest = self.came - 1 if self.live else last + 1
        return newest if last < newest < self.came else None


class DrawnNetworks:
    """One face in the middle of every picture, seen by models that take so long a round and a picture."""

    def __init__(self, clock: MovedClock, cost_ns: int = 0, cost_each_ns: int = 0) -> None:
        self.times = StageTimes()
        self.rounds: list[int] = []
        self.embedded: list[int] = []
        self.shapes: list[tuple[int, ...]] = []
        self.detector = SimpleNamespace(detect_many=self._detect)
        self.embedder = SimpleNamespace(embed_many=self._embed)
        self._clock, self._cost_ns, self._cost_each_ns = clock, cost_ns, cost_each_ns

    def _detect(self, pictures: Sequence[NDArray[np.uint8]]) -> list[Faces]:
        self.rounds.append(len(pictures))
        self.shapes += [picture.shape for picture in pictures]
        self._clock.ns += self._cost_ns + len(pictures) * self._cost_each_ns
        points = TEMPLATE[None] * 0.5 + np.float32(10)
        box = np.array([[10, 10, 66, 66]], np.float32)
        return [Faces(box, np.ones(1, np.float32), points) for _ in pictures]

    def _embed(self, faces_of_frames: Sequence[Faces]) -> list[Faces]:
        self.embedded.append(sum(map(len, faces_of_frames)))
        return [
            f.with_(embeddings=np.tile(np.eye(1, 4, dtype=np.float32), (len(f), 1))) for f in faces_of_frames
        ]


class Keep:
    def __init__(self) -> None:
        self.events: list[Event] = []

    def write(self, event: Event) -> None:
        self.events.append(event)

    def kinds(self, camera: str) -> list[str]:
        return [event.type for event in self.events if event.camera == camera]


def nobody(probes: NDArray[np.float32]) -> Matches:
    return Matches(((),) * len(probes))


def pipeline(networks: DrawnNetworks, stage: Any = None) -> Pipeline:
    def never(frame: Frame, faces: Faces) -> Faces:
        raise AssertionError("the fleet runs the models itself")

    return Pipeline(
        detector=never,
        tracker=Tracker(),
        gate=QualityGate(QualityPolicy(min_score=0, min_sharpness=0, max_dark_share=1, min_dynamic_range=0)),
        embedder=never,
        continuity=Continuity(lambda ri: 0.5, 0.5),
        decider=Decider(nobody, lambda *_: 0.5),
        model=card(),
        stages=() if stage is None else (stage,),
        times=networks.times,
    )


def drive(fleet: Fleet, clock: MovedClock, until_ns: int, idle_ns: int = SECOND // 100) -> None:
    """Runs the fleet until then; waiting takes `idle_ns` on the clock."""
    stop = threading.Event()

    class Wake(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            clock.ns += idle_ns
            if clock.ns >= until_ns:
                stop.set()
            return True

    fleet.wake = Wake()
    original = fleet._watch_load  # the clock also passes in busy rounds

    def watch(now_ns: int) -> None:
        original(now_ns)
        if clock.ns >= until_ns:
            stop.set()

    fleet._watch_load = watch  # type: ignore[method-assign]
    fleet.run(stop)


def fleet_of(
    cameras: Sequence[DrawnCamera],
    networks: DrawnNetworks,
    clock: MovedClock,
    *,
    fps: Sequence[float | None] = (),
    **more: Any,
) -> tuple[Fleet, list[Lane]]:
    fleet = Fleet(networks, now_ns=clock, **more)  # type: ignore[arg-type]
    rates = fps or [None] * len(cameras)
    lanes = [Lane(c, pipeline(networks), fps=r) for c, r in zip(cameras, rates, strict=True)]
    for lane in lanes:
        fleet.add(lane)
    return fleet, lanes


def test_frames_of_all_cameras_go_through_the_models_together() -> None:
    clock = MovedClock()
    networks = DrawnNetworks(clock)
    cameras = [DrawnCamera(name, clock, count=5) for name in "abc"]
    keep = Keep()
    fleet, _ = fleet_of(cameras, networks, clock, sinks=[keep])
    drive(fleet, clock, 60 * SECOND)
    assert networks.rounds == [3] * 5
    assert max(networks.embedded) == 3
    for camera in cameras:
        assert camera.taken == [0, 1, 2, 3, 4]
        assert (camera.started, camera.closed) == (1, 1)
        assert keep.kinds(camera.name)[-1] == "face.ended"  # each camera's track is its own
    assert fleet.summary.frames == 15


def test_a_round_has_a_largest_size_and_those_left_over_come_first_in_the_next() -> None:
    clock = MovedClock()
    networks = DrawnNetworks(clock, cost_ns=SECOND // 20)
    cameras = [DrawnCamera(str(i), clock, period_ns=SECOND // 100) for i in range(6)]
    fleet, lanes = fleet_of(cameras, networks, clock, max_batch=4)
    drive(fleet, clock, 6 * SECOND)
    assert max(networks.rounds) == 4
    counts = [lane.taken for lane in lanes]
    assert max(counts) - min(counts) <= 1


def test_a_rate_is_kept_to_and_the_newest_frame_wins() -> None:
    clock = MovedClock()
    networks = DrawnNetworks(clock)
    camera = DrawnCamera("door", clock, period_ns=SECOND // 25)
    fleet, (lane,) = fleet_of([camera], networks, clock, fps=[5])
    drive(fleet, clock, 20 * SECOND)
    assert lane.taken == pytest.approx(100, abs=2)
    assert camera.taken == sorted(set(camera.taken))
    assert camera.taken[-1] >= camera.came - 6  # never a queue: at most one period old


def test_a_machine_that_cannot_keep_up_gives_each_camera_the_same_share_and_says_so() -> None:
    clock = MovedClock()
    networks = DrawnNetworks(clock, cost_ns=SECOND // 10)  # 10 rounds a second of one frame each
    cameras = [DrawnCamera(name, clock, period_ns=SECOND // 30) for name in ("fast", "slow")]
    told: list[Load] = []
    fleet, (fast, slow) = fleet_of(cameras, networks, clock, fps=[15, 5], max_batch=1, on_load=told.append)
    drive(fleet, clock, 60 * SECOND)
    assert fast.taken + slow.taken == pytest.approx(600, abs=5)
    assert fast.taken / slow.taken == pytest.approx(3, rel=0.02)  # 15 to 5
    assert [load.keeps_up for load in told] == [False]
    assert told[0].share == pytest.approx(0.5, abs=0.05)
    assert fast.rate == pytest.approx(7.5, rel=0.1)
    assert cameras[0].taken[-1] >= cameras[0].came - 12  # what a few rounds take, and no more


def test_more_cameras_than_fit_into_a_round_lower_the_rate_and_not_the_time_of_a_round() -> None:
    clock = MovedClock()
    networks = DrawnNetworks(clock, cost_each_ns=SECOND // 10)
    cameras = [DrawnCamera(str(i), clock) for i in range(8)]
    fleet, lanes = fleet_of(cameras, networks, clock, max_round_s=0.25)
    drive(fleet, clock, 40 * SECOND)
    assert networks.rounds[0] == 8  # nothing is known yet
    assert set(networks.rounds[5:]) == {2}
    assert max(lane.taken for lane in lanes) - min(lane.taken for lane in lanes) <= 1


@dataclass
class AwayCamera(DrawnCamera):
    """Gives nothing for `away_ns` at the end of each `every_ns`."""

    every_ns: int = 10 * SECOND
    away_ns: int = 5 * SECOND

    @property
    def came(self) -> int:
        turns, within_ns = divmod(self.clock.ns, self.every_ns)
        here_ns = self.every_ns - self.away_ns
        return (turns * here_ns + min(within_ns, here_ns)) // self.period_ns + 1


@pytest.mark.parametrize("fps", [0.25, 1, 10, None])
@pytest.mark.parametrize(
    ("every_s", "away_s"), [(10, 5), (25, 13), (2, 0.7), (1, 0)], ids=["half", "long", "stutters", "here"]
)
def test_a_camera_that_is_away_asks_nothing_of_the_machine(
    fps: float | None, every_s: float, away_s: float
) -> None:
    clock = MovedClock()
    camera = AwayCamera(
        "a", clock, SECOND // 25, every_ns=round(every_s * SECOND), away_ns=round(away_s * SECOND)
    )
    told: list[Load] = []
    fleet, _ = fleet_of([camera], DrawnNetworks(clock), clock, fps=[fps], on_load=told.append)
    drive(fleet, clock, 60 * SECOND)
    assert told == []


def test_a_machine_that_cannot_keep_up_says_so_of_a_camera_that_comes_and_goes() -> None:
    clock = MovedClock()
    networks = DrawnNetworks(clock, cost_ns=SECOND // 5)  # 5 frames a second
    told: list[Load] = []
    camera = AwayCamera("a", clock, SECOND // 25)
    fleet, _ = fleet_of([camera], networks, clock, fps=[10], on_load=told.append)
    drive(fleet, clock, 60 * SECOND)
    assert [load.keeps_up for load in told] == [False]
    assert told[0].share == pytest.approx(0.5, abs=0.05)  # a frame or two of fifty, where it goes and comes


def test_a_machine_that_keeps_up_again_says_so_too() -> None:
    clock = MovedClock()
    networks = DrawnNetworks(clock, cost_ns=SECOND // 4)
    told: list[Load] = []
    fleet, _ = fleet_of([DrawnCamera("a", clock)], networks, clock, on_load=told.append)
    drive(fleet, clock, 21 * SECOND)
    networks._cost_ns = 0
    later = DrawnCamera("b", clock)
    fleet.add(Lane(later, pipeline(networks)))
    drive(fleet, clock, 60 * SECOND)
    assert [load.keeps_up for load in told] == [False, True]


def test_an_old_frame_of_a_live_camera_is_counted_and_not_looked_at_one_of_a_file_is() -> None:
    clock = MovedClock()
    networks = DrawnNetworks(clock)
    cameras = [
        DrawnCamera("live", clock, count=4, age_s=9),
        DrawnCamera("file", clock, count=4, age_s=9, live=False),
    ]
    fleet, (live, file) = fleet_of(cameras, networks, clock, max_age_s=5)
    drive(fleet, clock, 60 * SECOND)
    assert (live.too_old, file.too_old) == (4, 0)
    assert networks.rounds == [1, 1, 1, 1]
    assert (fleet.summary.dropped, fleet.summary.late) == (0, 4)


def test_a_second_fleet_on_the_same_networks_tells_its_own_times() -> None:
    clock = MovedClock()
    networks = DrawnNetworks(clock)
    networks.times.add("weary", SECOND)
    fleet, (lane,) = fleet_of([DrawnCamera("a", clock, count=3)], networks, clock)
    drive(fleet, clock, 60 * SECOND)
    assert "weary" not in fleet.summary.stages
    assert fleet.summary.unfollowed == lane.unfollowed


def test_the_times_of_a_round_are_shared_out_among_its_frames() -> None:
    clock = MovedClock()
    networks = DrawnNetworks(clock)
    heard: list[str] = []
    networks.times.listener = lambda name, duration_ns: heard.append(name)
    fleet, _ = fleet_of([DrawnCamera(name, clock, count=5) for name in "abc"], networks, clock)
    drive(fleet, clock, 60 * SECOND)
    counts = {name: heard.count(name) for name in set(heard)}
    stages = ("detect", "track", "align", "gate", "embed", "continuity", "decide")
    assert counts == dict.fromkeys(stages, 15)


def test_a_camera_that_goes_ends_its_tracks_and_says_so_and_no_other_is_touched() -> None:
    clock = MovedClock()
    networks = DrawnNetworks(clock)
    here, gone = DrawnCamera("here", clock), DrawnCamera("gone", clock)
    keep = Keep()
    fleet, _ = fleet_of([here, gone], networks, clock, sinks=[keep])

    def leave(lane: Lane, frame: Frame, step: Any) -> None:
        if lane.camera is gone and frame.index == 10:
            at = datetime.now(timezone.utc)
            gone.changes = [CameraChange("gone", False, at, frame.pts_ns, "no frame within 10 s")]
            gone.count = 11

    fleet._on_step = leave
    drive(fleet, clock, 3 * SECOND)
    assert keep.kinds("gone")[-2:] == ["face.ended", "camera.offline"]
    told = [event for event in keep.events if event.type == "camera.offline"]
    assert [event.reason for event in told] == ["no frame within 10 s"]
    assert here.taken[-1] >= 28
    assert keep.kinds("here").count("face.ended") == 1


def test_a_camera_that_falls_silent_ends_its_tracks_and_is_not_offline_yet() -> None:
    clock = MovedClock()
    networks = DrawnNetworks(clock)
    camera, keep = DrawnCamera("a", clock), Keep()
    fleet, _ = fleet_of([camera], networks, clock, sinks=[keep])

    def silent(lane: Lane, frame: Frame, step: Any) -> None:
        if frame.index == 10:
            camera.state, camera.period_ns = "STALE", 3600 * SECOND

    fleet._on_step, kinds = silent, []  # type: ignore[var-annotated]
    fleet._on_turn = lambda: kinds.append(keep.kinds("a")[-1:])
    drive(fleet, clock, 2 * SECOND)
    assert kinds[-1] == ["face.ended"]  # while it ran
    assert keep.kinds("a").count("face.ended") == 1


def failing(camera: DrawnCamera, error: EdgeFrError) -> None:
    """What a `Camera` does when nothing of it will ever come again."""
    at = datetime.now(timezone.utc)
    camera.state, camera.reason, camera.error = "FAILED", str(error), error
    camera.changes, camera.count = [CameraChange(camera.name, False, at, 0, str(error))], camera.came


def test_cameras_that_failed_for_good_leave_the_others_alone_and_are_told_at_the_end() -> None:
    clock = MovedClock()
    networks = DrawnNetworks(clock)
    cut, never = DrawnCamera("cut", clock, live=False), DrawnCamera("never", clock)
    here, keep = DrawnCamera("here", clock), Keep()
    lost: list[EdgeFrError] = []
    fleet, lanes = fleet_of([cut, never, here], networks, clock, sinks=[keep], on_lost=lost.append)

    def fail(lane: Lane, frame: Frame, step: Any) -> None:
        if lane.camera is here and frame.index == 5:
            failing(cut, SourceReadError("cut.mp4 broke off after 5 frames"))
            failing(never, MissingDependencyError("GStreamer has no nvarguscamerasrc"))
        if lane.camera is here and frame.index == 20:  # meanwhile
            assert [lane.camera.name for lane in fleet.lanes] == ["here"]
            assert [str(error).partition(":")[0] for error in lost] == ["cut", "never"]
            cameras = HealthCheck(lanes).report().details["cameras"]
            assert cameras["cut"] == {"state": "FAILED", "reason": "cut.mp4 broke off after 5 frames"}

    fleet._on_step = fail
    message = r"^cut: cut\.mp4 broke off after 5 frames\nnever: GStreamer has no nvarguscamerasrc$"
    with pytest.raises(SourceReadError, match=message):
        drive(fleet, clock, 5 * SECOND)
    assert here.taken[-1] >= 48
    for name, reason in (("cut", "broke off"), ("never", "no nvarguscamerasrc")):
        assert keep.kinds(name)[-2:] == ["face.ended", "camera.offline"]
        (told,) = [e for e in keep.events if (e.camera, e.type) == (name, "camera.offline")]
        assert reason in told.reason
    assert keep.kinds("here")[-1] == "face.ended"
    assert [camera.closed for camera in (cut, never, here)] == [1, 1, 1]


def test_a_camera_that_fails_just_before_the_end_is_told_all_the_same() -> None:
    clock = MovedClock()
    networks = DrawnNetworks(clock)
    camera, keep, stop = DrawnCamera("a", clock), Keep(), threading.Event()
    fleet, _ = fleet_of([camera], networks, clock, sinks=[keep])

    def fail(lane: Lane, frame: Frame, step: Any) -> None:
        failing(camera, SourceReadError("the cable was pulled"))
        stop.set()

    fleet._on_step = fail
    with pytest.raises(SourceReadError, match=r"^a: the cable was pulled$"):
        fleet.run(stop)
    assert keep.kinds("a") == ["camera.offline"]


def test_what_a_stage_raised_comes_first_and_the_cameras_that_failed_after_it() -> None:
    clock = MovedClock()
    networks = DrawnNetworks(clock)
    camera = DrawnCamera("a", clock)

    def fragile(frame: Frame, faces: Faces) -> Faces:
        failing(camera, SourceReadError("the cable was pulled"))
        raise InputError("this stage is broken")

    fleet = Fleet(networks, now_ns=clock)  # type: ignore[arg-type]
    fleet.add(Lane(camera, pipeline(networks, fragile)))
    with pytest.raises(InputError, match=r"^this stage is broken\na: the cable was pulled$"):
        drive(fleet, clock, 60 * SECOND)


def test_a_mistake_in_a_stage_is_not_hidden_by_a_camera_that_failed_before_it() -> None:
    clock = MovedClock()
    networks = DrawnNetworks(clock)
    gone, there = DrawnCamera("gone", clock), DrawnCamera("there", clock)

    def mistaken(frame: Frame, faces: Faces) -> Faces:
        if "gone" not in {lane.camera.name for lane in fleet.lanes}:
            raise ZeroDivisionError("a mistake of ours")
        failing(gone, SourceReadError("the cable was pulled"))
        return faces

    fleet = Fleet(networks, now_ns=clock)  # type: ignore[arg-type]
    fleet.add(Lane(gone, pipeline(networks, mistaken)))
    fleet.add(Lane(there, pipeline(networks, mistaken)))
    with pytest.raises(ZeroDivisionError, match="a mistake of ours"):
        drive(fleet, clock, 60 * SECOND)


def test_cameras_come_and_go_while_it_runs() -> None:
    clock = MovedClock()
    networks = DrawnNetworks(clock)
    first, second = DrawnCamera("first", clock), DrawnCamera("second", clock)
    fleet, _ = fleet_of([first], networks, clock)

    def change(lane: Lane, frame: Frame, step: Any) -> None:
        if lane.camera is first and frame.index == 10:
            fleet.add(Lane(second, pipeline(networks)))
        if lane.camera is second and frame.index == 20:
            fleet.remove("first")
            fleet.remove("nobody")

    fleet._on_step = change
    drive(fleet, clock, 4 * SECOND)
    assert first.taken[-1] in (19, 20, 21)
    assert first.closed == 1
    assert second.taken[0] >= 10
    assert second.taken[-1] >= 38


def test_all_cameras_are_asked_to_end_before_any_is_waited_for_and_one_that_hangs_delays_none() -> None:
    clock, calls = MovedClock(), []  # type: ignore[var-annotated]
    networks = DrawnNetworks(clock)
    cameras = [DrawnCamera(name, clock, hanging=1, calls=calls) for name in "abc"]
    fleet, _ = fleet_of(cameras, networks, clock)

    class Stopped(Keep):
        def write(self, event: Event) -> None:
            super().write(event)
            assert not [call for call in calls if call[0] == "close"]  # what is owed is written first

    keep = Stopped()
    fleet._sinks = [keep]
    drive(fleet, clock, SECOND)
    assert len(keep.events) == 6  # each camera's face, and its end
    assert calls == [
        ("end", "a"),
        ("end", "b"),
        ("end", "c"),
        ("close", "a", 2),
        ("close", "b", 0),
        ("close", "c", 0),
    ]


def test_a_camera_that_hangs_is_removed_without_waiting_and_closed_when_it_is_back() -> None:
    clock, calls = MovedClock(), []  # type: ignore[var-annotated]
    networks = DrawnNetworks(clock)
    cameras = [DrawnCamera(name, clock, hanging=1, calls=calls) for name in "abc"]
    fleet, _ = fleet_of(cameras, networks, clock)

    def remove(lane: Lane, frame: Frame, step: Any) -> None:
        if lane.camera is cameras[2]:
            if frame.index in (5, 10):
                fleet.remove("ab"[frame.index // 10])
            if frame.index == 7:
                assert calls == [("end", "a")]
                cameras[0].hanging = 0
            if frame.index == 12:
                assert calls == [("end", "a"), ("end", "b"), ("close", "a", 0)]

    fleet._on_step = remove
    drive(fleet, clock, 2 * SECOND)
    assert calls[3:] == [("end", "c"), ("close", "b", 2), ("close", "c", 0)]


def test_every_turn_of_the_loop_is_told_whether_or_not_there_is_a_frame() -> None:
    clock = MovedClock()
    networks = DrawnNetworks(clock)
    turns: list[int] = []
    camera = DrawnCamera("a", clock, period_ns=SECOND)
    fleet, _ = fleet_of([camera], networks, clock, on_turn=lambda: turns.append(clock.ns))
    drive(fleet, clock, 3 * SECOND, idle_ns=SECOND // 4)
    assert set(turns) == set(range(0, 3 * SECOND, SECOND // 4))


def test_a_fleet_runs_in_one_thread_at_a_time_and_again_afterwards() -> None:
    clock, errors = MovedClock(), []

    def run_again() -> None:
        if not errors:
            with pytest.raises(
                InputError, match="runs already, in another thread; make one for each thread"
            ) as e:
                fleet.run(threading.Event())
            errors.append(e)

    fleet = Fleet(DrawnNetworks(clock), now_ns=clock, on_turn=run_again)  # type: ignore[arg-type]
    fleet.run(threading.Event())
    fleet.run(threading.Event())
    assert len(errors) == 1


def test_two_cameras_of_one_name_are_refused() -> None:
    clock = MovedClock()
    fleet, _ = fleet_of([DrawnCamera("a", clock), DrawnCamera("a", clock)], DrawnNetworks(clock), clock)
    with pytest.raises(InputError, match="two cameras are called 'a'; give each a name of its own"):
        fleet.run(threading.Event())


def test_a_region_is_all_that_the_detector_sees_and_boxes_are_of_the_whole_picture() -> None:
    clock = MovedClock()
    networks = DrawnNetworks(clock)
    seen: list[Faces] = []
    fleet = Fleet(networks, now_ns=clock, on_step=lambda lane, frame, step: seen.append(step.faces))  # type: ignore[arg-type]
    camera = DrawnCamera("door", clock, count=4)
    fleet.add(Lane(camera, pipeline(networks), region=Region(0.5, 0.0, 1.0, 1.0)))
    drive(fleet, clock, 60 * SECOND)
    assert set(networks.shapes) == {(90, 80, 3)}
    assert seen[-1].boxes[0].tolist() == [90, 10, 146, 66]


class Twice:
    """In place of a TiledDetector: looks at a picture and its upper half, and takes what was found there."""

    def __init__(self) -> None:
        self.found: list[int] = []

    def pictures(self, picture: NDArray[np.uint8], now_ns: int) -> list[NDArray[np.uint8]]:
        return [picture, picture[: len(picture) // 2]]

    def merge(self, found: Sequence[Faces]) -> Faces:
        self.found.append(len(found))
        return found[1]


def test_tiles_of_one_camera_go_through_the_detector_with_the_pictures_of_the_others() -> None:
    clock = MovedClock()
    networks = DrawnNetworks(clock)
    seen: dict[str, Faces] = {}

    def keep(lane: Lane, frame: Frame, step: Any) -> None:
        seen[frame.camera] = step.faces

    fleet = Fleet(networks, now_ns=clock, on_step=keep)  # type: ignore[arg-type]
    tiles = Twice()
    for name, extra in (("near", {}), ("far", {"tiles": tiles, "region": Region(0.5, 0.0, 1.0, 1.0)})):
        fleet.add(Lane(DrawnCamera(name, clock, count=4), pipeline(networks), **extra))  # type: ignore[arg-type]
    drive(fleet, clock, 60 * SECOND)
    assert networks.rounds == [3] * 4
    assert networks.shapes[:3] == [(90, 160, 3), (90, 80, 3), (45, 80, 3)]
    assert tiles.found == [2] * 4
    assert {name: faces.boxes[0].tolist() for name, faces in seen.items()} == {
        "near": [10, 10, 66, 66],
        "far": [90, 10, 146, 66],
    }


def test_what_a_stage_raises_ends_the_fleet_after_the_events_of_its_tracks_were_written() -> None:
    clock = MovedClock()
    networks = DrawnNetworks(clock)
    keep = Keep()

    def fragile(frame: Frame, faces: Faces) -> Faces:
        if frame.index == 10:
            raise InputError("this stage is broken")
        return faces

    fleet = Fleet(networks, sinks=[keep], now_ns=clock)  # type: ignore[arg-type]
    cameras = [DrawnCamera("a", clock), DrawnCamera("b", clock)]
    fleet.add(Lane(cameras[0], pipeline(networks, fragile)))
    fleet.add(Lane(cameras[1], pipeline(networks)))
    with pytest.raises(InputError, match="this stage is broken"):
        drive(fleet, clock, 60 * SECOND)
    assert [camera.closed for camera in cameras] == [1, 1]
    assert {event.camera for event in keep.events if event.type == "face.ended"} == {"a", "b"}


def test_a_sink_that_fails_is_told_and_the_others_have_everything() -> None:
    class Full:
        def write(self, event: Event) -> None:
            raise EventError("no space left")

    clock = MovedClock()
    networks = DrawnNetworks(clock)
    keep = Keep()
    fleet, _ = fleet_of([DrawnCamera("a", clock, count=9)], networks, clock, sinks=[Full(), keep])
    with pytest.raises(EventError, match="no space left"):
        drive(fleet, clock, 60 * SECOND)
    assert "face.ended" in keep.kinds("a")


@pytest.mark.parametrize("fps", [0, -1, 1001, float("nan")])
def test_a_rate_that_means_nothing_is_refused(fps: float) -> None:
    clock = MovedClock()
    with pytest.raises(InputError, match=r"door: fps is .*, expected more than 0 and up to 1000"):
        Lane(DrawnCamera("door", clock), pipeline(DrawnNetworks(clock)), fps=fps)
