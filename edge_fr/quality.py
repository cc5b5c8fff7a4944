"""Is this face good enough to be recognised, and if not, why not?"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from edge_fr.errors import InputError
from edge_fr.measures import combine, measure
from edge_fr.structures import Faces, Frame, Refusal

Recognizability = Callable[[NDArray[np.uint8]], NDArray[np.float32]]


@dataclass(frozen=True, slots=True)
class QualityPolicy:
    """The bounds of a good face, inclusive; the defaults are for surveillance, where little is refused.

    `min_score` is the detector's, `min_side_px` the shorter side of the box. The default
    `min_inter_eye_px` is where the shipped recognizer begins to find more people than it misses: of enrolled
    people it finds 88 % by a look at a face as it is (35 px between the eyes) that the gate's network lets
    pass, 73 % by one at 7.5 px, 54 % at 5 px, 37 % at 3.8 px; of strangers 0.4, 1.3, 2.0 and 2.2 % get a
    name, 1 % asked for (`python -m tests.bench.looks DATA`). Yaw, pitch and roll bound the absolute angle.
    `min_sharpness` is 0..1, see `edge_fr.measures.sharpness`. `max_dark_share` and `max_bright_share`
    bound the share of the face's pixels below 26 and above 246 of 255 grey levels; `min_dynamic_range`
    is the spread of its grey levels from the 5th to the 95th percentile. `min_inside` is the least
    share of the box, and of the landmarks, that lies inside the frame. `min_recognizability` counts only
    for a gate that has a recognizability score; of faces below the default, the shipped recognizer matches
    about one in seven at one false match in 10,000.

    After a track's first accepted face, another is selected when its quality is at least `better_by`
    above that of the best one selected so far, or when the last one was selected `every_ns` ago.
    """

    min_score: float = 0.6
    min_side_px: float = 11.0
    min_inter_eye_px: float = 5.0
    max_yaw_deg: float = 60.0
    max_pitch_deg: float = 30.0
    max_roll_deg: float = 60.0
    min_sharpness: float = 0.06
    max_dark_share: float = 0.95
    max_bright_share: float = 0.5
    min_dynamic_range: float = 10.0
    min_inside: float = 0.75
    min_recognizability: float = 0.2
    better_by: float = 0.05
    every_ns: int = 400_000_000

    def __post_init__(self) -> None:
        for bound in fields(self):
            value = getattr(self, bound.name)
            if not (math.isfinite(value) and value >= 0):
                raise InputError(f"QualityPolicy.{bound.name} is {value}, expected a number of 0 or more")

    @classmethod
    def without_index(cls) -> QualityPolicy:
        """Bounds for a recognizer without a network that knows which small faces are hopeless.

        SFace begins to find more people than it misses at 8 px: at one false match in 10,000 it finds 80 % of
        CelebA's faces as they are, 59 % of them scaled down to 9 px, 33 % at 6 px.
        """
        return cls(min_side_px=16.0, min_inter_eye_px=8.0)

    @classmethod
    def enrollment(cls) -> QualityPolicy:
        """Bounds for pictures that others will be compared with for years: frontal, sharp, well lit."""
        return cls(
            min_score=0.8,
            min_side_px=60.0,
            min_inter_eye_px=30.0,
            max_yaw_deg=25.0,
            max_pitch_deg=20.0,
            max_roll_deg=30.0,
            min_sharpness=0.14,
            max_dark_share=0.5,
            max_bright_share=0.15,
            min_dynamic_range=50.0,
            min_inside=0.98,
            min_recognizability=0.4,
        )


@dataclass(frozen=True, slots=True)
class _Component:
    name: str
    bound: str  # the field of QualityPolicy
    limit: Literal["at least", "at most"]
    unit: str = ""


_COMPONENTS = (
    _Component("detection_confidence", "min_score", "at least"),
    _Component("head_size", "min_side_px", "at least", "px"),
    _Component("inter_eye_distance", "min_inter_eye_px", "at least", "px"),
    _Component("crop_of_the_face_image", "min_inside", "at least"),
    _Component("head_pose_yaw", "max_yaw_deg", "at most", "deg"),
    _Component("head_pose_pitch", "max_pitch_deg", "at most", "deg"),
    _Component("head_pose_roll", "max_roll_deg", "at most", "deg"),
    _Component("under_exposure", "max_dark_share", "at most"),
    _Component("over_exposure", "max_bright_share", "at most"),
    _Component("dynamic_range", "min_dynamic_range", "at least", "grey levels"),
    _Component("sharpness", "min_sharpness", "at least"),
)
_RECOGNIZABILITY = _Component("recognizability", "min_recognizability", "at least")
COMPONENTS = tuple(component.name for component in (*_COMPONENTS, _RECOGNIZABILITY))
"""All that a face can be refused for, by its name in a `Refusal`."""


def usual_policy(recognizability: Recognizability | None) -> QualityPolicy:
    """What a gate with that network, or without one, goes by unless it is told otherwise."""
    return QualityPolicy.without_index() if recognizability is None else QualityPolicy()


class QualityGate:
    """Judges every face of a frame and selects those worth embedding.

    Fills `quality`, `refusals` and `selected`. `quality` (0..1) ranks faces by how well a recogniser
    will match them; see `combine`. A face is selected when nothing speaks against it and, if it has a
    track, when it is the track's first, or better than those before, or due again (see QualityPolicy);
    without `track_ids` every accepted face is. An `unsure` face is like the first one of its track.

    `recognizability` is a learned score: it takes (N, 112, 112, 3) uint8 BGR crops of the faces that
    passed everything else and returns (N,) float32 in 0..1. It fills `ri` (NaN in other rows), stands
    in for `quality` where it was computed, and needs `crops`.

    The gate remembers its tracks until `forget`: use one gate for each camera.
    """

    def __init__(self, policy: QualityPolicy, *, recognizability: Recognizability | None = None) -> None:
        self.policy = policy
        self._recognizability = recognizability
        self._selected: dict[int, tuple[float, int]] = {}  # best quality and time of the last, by track

    def __call__(self, frame: Frame, faces: Faces) -> Faces:
        measured = measure(frame.image, faces)
        refusals: list[list[Refusal]] = [[] for _ in range(len(faces))]
        for component in _COMPONENTS:
            self._refuse(component, measured[component.name], refusals)
        quality = combine(measured)
        if self._recognizability is not None:
            faces = faces.with_(ri=self._recognize(faces, refusals))
            assert faces.ri is not None
            self._refuse(_RECOGNIZABILITY, faces.ri, refusals)
            quality = np.where(np.isnan(faces.ri), quality, faces.ri)
        selected = [not reasons for reasons in refusals]
        if faces.track_ids is not None:
            if faces.unsure is not None:  # whoever it is, a look has to tell
                self.forget(faces.track_ids[faces.unsure].tolist())
            for i in np.flatnonzero(selected):
                selected[i] = self._is_news(int(faces.track_ids[i]), float(quality[i]), frame.pts_ns)
        return faces.with_(
            quality=quality.astype(np.float32),
            refusals=tuple(tuple(reasons) for reasons in refusals),
            selected=np.array(selected, np.bool_),
        )

    def confirm(self, faces: Faces) -> Faces:
        """After the embedder: refuses a face that it found less recognizable than the policy asks for, and
        takes its embedding back. The recognizer knows what the gate's network guesses: a face upside down."""
        if faces.ri is None or faces.embeddings is None:
            return faces
        embedded = ~np.isnan(faces.embeddings[:, 0])
        poor = np.flatnonzero(embedded & (faces.ri < self.policy.min_recognizability))
        if len(poor) == 0:
            return faces
        embeddings = faces.embeddings.copy()
        embeddings[poor] = np.nan
        refusals = [list(reasons) for reasons in faces.refusals or ((),) * len(faces)]
        self._refuse(_RECOGNIZABILITY, np.where(embedded, faces.ri, np.inf), refusals)
        return faces.with_(embeddings=embeddings, refusals=tuple(tuple(reasons) for reasons in refusals))

    def forget(self, track_ids: Iterable[int]) -> None:
        """Drops what is remembered about tracks that ended; unknown ids are ignored."""
        for track_id in track_ids:
            self._selected.pop(track_id, None)

    def _refuse(
        self, component: _Component, values: NDArray[np.floating], refusals: list[list[Refusal]]
    ) -> None:
        bound = float(getattr(self.policy, component.bound))
        values = np.abs(values)
        bad = values < bound if component.limit == "at least" else values > bound
        for i in np.flatnonzero(bad):
            refusals[i].append(
                Refusal(component.name, float(values[i]), bound, component.limit, component.unit)
            )

    def _recognize(self, faces: Faces, refusals: list[list[Refusal]]) -> NDArray[np.float32]:
        assert self._recognizability is not None
        if faces.crops is None:
            raise InputError("recognizability needs Faces.crops; put the align stage before the QualityGate")
        ri = np.full(len(faces), np.nan, np.float32)
        passed = np.flatnonzero([not reasons for reasons in refusals])
        if len(passed):
            scores = np.asarray(self._recognizability(faces.crops[passed]), np.float32)
            if scores.shape != passed.shape or not np.isfinite(scores).all():
                raise InputError(
                    f"recognizability gave shape {scores.shape} for {len(passed)} crops, "
                    f"expected ({len(passed)},) finite numbers"
                )
            ri[passed] = scores
        return ri

    def _is_news(self, track_id: int, quality: float, now_ns: int) -> bool:
        if track_id in self._selected:
            best, last_ns = self._selected[track_id]
            # A clock that ran backwards is a new stream: its faces are news.
            due = not last_ns <= now_ns < last_ns + self.policy.every_ns
            if not due and quality < best + self.policy.better_by:
                return False
            quality = max(quality, best)
        self._selected[track_id] = (quality, now_ns)
        return True
