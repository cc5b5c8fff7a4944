"""One camera of a fleet: where its frames come from, its own stages, and when it is due."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from edge_fr.camera_event import Supply
from edge_fr.errors import InputError
from edge_fr.pipeline import Pipeline
from edge_fr.region import WHOLE, Region
from edge_fr.structures import Faces, Frame
from edge_fr.tiles import TiledDetector

_NOMINAL_PERIOD_NS = 40_000_000  # of a camera without a rate: it waits as one of 25 frames a second does
_WINDOW_NS = 10_000_000_000  # rates are counted over as long


@dataclass(eq=False)
class Lane:
    """One camera of a fleet: where its frames come from, its own stages, and how often it is looked at.

    `fps` bounds the frames a second that are taken (None: all that come); `region` is the part of the
    picture in which faces are looked for, and `tiles` looks at parts of that enlarged (the pipeline's own
    detector is not asked). `too_old` frames were taken from a live camera and not looked at; `unfollowed`
    faces came and went and were never in a track; `latency_s` is that of the last frame, from its capture to
    its events. `rate` and `share` are of the last ten seconds: frames a second, and taken frames to those
    that a machine that is fast enough would have taken.
    """

    camera: Supply
    pipeline: Pipeline
    fps: float | None = None
    region: Region = WHOLE
    tiles: TiledDetector | None = None
    taken: int = field(default=0, init=False)
    too_old: int = field(default=0, init=False)
    faces: int = field(default=0, init=False)
    unfollowed: int = field(default=0, init=False)
    latency_s: float = field(default=0.0, init=False)
    rate: float = field(default=0.0, init=False)
    share: float = field(default=1.0, init=False)
    due_ns: int = field(default=0, init=False)
    virtual_ns: int = field(default=0, init=False)  # who has had less of what it asked for comes first
    _window: tuple[int, int] | None = field(default=None, init=False)  # began at, taken by then
    _demand: _Demand = field(init=False)

    def __post_init__(self) -> None:
        if self.fps is not None and not 0 < self.fps <= 1000:
            raise InputError(f"{self.camera.name}: fps is {self.fps}, expected more than 0 and up to 1000")
        self._demand = _Demand(self.fps)

    @property
    def period_ns(self) -> int:
        return 0 if self.fps is None else round(1e9 / self.fps)

    def pictures(self, frame: Frame) -> list[NDArray[np.uint8]]:
        """What the detector is to look at in a frame, the next one after that of the last call."""
        cut = self.region.cut(frame.image)
        return [cut] if self.tiles is None else self.tiles.pictures(cut, frame.pts_ns)

    def place(self, found: Sequence[Faces], frame: Frame) -> Faces:
        """The faces of the frame, from those found in each of its pictures."""
        faces = found[0] if self.tiles is None else self.tiles.merge(found)
        return self.region.place(faces, frame.image)

    def served(self, now_ns: int, virtual_ns: int) -> None:
        """A frame was taken: the next one is due a period later, and not sooner than now, so that what
        was missed is not made up for. `virtual_ns` is where the last one to be served stood."""
        self.taken += 1
        self.due_ns = max(self.due_ns + self.period_ns, now_ns)
        self.virtual_ns = max(self.virtual_ns, virtual_ns) + (self.period_ns or _NOMINAL_PERIOD_NS)

    def count(self, now_ns: int) -> bool:
        """Works out `rate` and `share` when ten seconds have passed; says whether it did. To be asked in
        every turn of the loop."""
        self._demand.count(now_ns, self.camera.counters.frames)
        if self._window is None:
            self._window = now_ns, self.taken
        began_ns, taken_before = self._window
        if now_ns - began_ns < _WINDOW_NS:
            return False
        taken = self.taken - taken_before
        wanted = self._demand.take() - 1  # the last one may be under way
        self.rate = taken * 1e9 / (now_ns - began_ns)
        self.share = min(1.0, taken / wanted) if wanted >= 1 else 1.0
        self._window = now_ns, self.taken
        return True


class _Demand:
    """How many of a camera's frames a machine that is fast enough takes: `fps` a second at most.

    It follows the frames as they come, so that a camera which is away or stutters asks for nothing meanwhile.
    """

    def __init__(self, fps: float | None) -> None:
        self._fps = fps
        self._before: tuple[int, int] | None = None  # when it was asked last, and how many had come
        self._due = 1.0  # frames that may be taken by now
        self._waits = False  # whether the newest frame was not due when it came
        self._wanted = 0

    def count(self, now_ns: int, came: int) -> None:
        """So many frames have come by now."""
        began_ns, came_before = self._before or (now_ns, came)
        self._before = now_ns, came
        fresh = came - came_before + self._waits
        if self._fps is None:
            self._wanted += fresh
            return
        # What was not taken while none came is not made up for.
        self._due = min(self._due, 1.0) + (now_ns - began_ns) / 1e9 * self._fps
        wanted = min(fresh, int(self._due))
        self._waits = fresh > 0 and wanted == 0
        self._due -= wanted
        self._wanted += wanted

    def take(self) -> int:
        """How many since this was asked last."""
        wanted, self._wanted = self._wanted, 0
        return wanted
