"""Which face of this frame is which face of the frames before: ByteTrack-style association.

Faces are matched in two rounds as in "ByteTrack: Multi-Object Tracking by Associating Every
Detection Box" (arXiv 2110.06864): the confident ones first, then the weak ones with the tracks
left over, so that a face which turns away keeps its track and a weak false alarm begins none.

This departs from the paper where small faces and low frame rates need it. A face moves up to nine
times its own size in a second (a passer-by at 1.4 m/s), so at five frames a second its boxes do not
overlap and IoU is 0 for the right pair. Here a pair is rated by how probable the face's place and
size are where the track may be by now, in units of face size and seconds: a Kalman filter with
constant velocity whose uncertainty grows with time, not with frames, so that the frame rate does
not matter and frames may be missing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_fr.assignment import assign, could_be_exchanged
from edge_fr.errors import InputError
from edge_fr.structures import Faces, Frame

_Floats = NDArray[np.float64]

# Lengths are in face sizes (the square root of the box area), so that they hold at any distance.
# Chosen on street and corridor videos at 3 to 25 frames a second, preferring a person who gets a
# second track over two people who share one: the first costs a moment, the second a wrong name.
_START_SPEED = 4.5  # deviation of an unseen velocity, sizes/s: half a brisk walk across the view
_SPEED_DRIFT = 2.0  # variance that velocity gains each second, (sizes/s)^2
_BOX_JITTER = 0.1  # deviation of a detected centre, sizes
_BOX_JITTER_PX = 0.7  # the same for the smallest faces, where the pixel grid decides
_SIZE_JITTER = 0.15  # deviation of the logarithm of a detected size
_SIZE_DRIFT = 0.3  # deviation that it gains each second unseen
_GATE = 7.0  # minus twice the log-density below which a face is more probably a new one
_SLOW_S = 0.4  # above so long between two frames, the place tells less and less, and looks have to tell
_SAME_PLACE = (
    6.0  # two pairs whose ratings differ by less, a likelihood of 20 to 1, could be the other way round
)


@dataclass(eq=False)
class _Tracks:
    """The state of all tracks, one row each; ids are 0 until a track is confirmed."""

    ids: NDArray[np.int64]
    first_ns: NDArray[np.int64]
    seen_ns: NDArray[np.int64]
    centres: _Floats  # (T, 2) px
    velocities: _Floats  # (T, 2) px/s
    sizes: _Floats  # (T,) px
    faces: NDArray[np.int64]  # how many there were
    covariance: _Floats  # (T, 3): place-place, place-velocity, velocity-velocity, in sizes and seconds

    @classmethod
    def begin(cls, centres: _Floats, sizes: _Floats, now_ns: int) -> _Tracks:
        n = len(sizes)
        covariance = np.zeros((n, 3))
        covariance[:, 0] = _place_noise(sizes)
        covariance[:, 2] = _START_SPEED**2
        now = np.full(n, now_ns, np.int64)
        none, one = np.zeros(n, np.int64), np.ones(n, np.int64)
        return cls(none, now, now.copy(), centres, np.zeros((n, 2)), sizes, one, covariance)

    def __getitem__(self, rows: NDArray[np.bool_] | NDArray[np.intp]) -> _Tracks:
        return _Tracks(*(column[rows] for column in vars(self).values()))

    def __add__(self, other: _Tracks) -> _Tracks:
        pairs = zip(vars(self).values(), vars(other).values(), strict=True)
        return _Tracks(*(np.concatenate(pair) for pair in pairs))

    def __len__(self) -> int:
        return len(self.ids)

    def predict(self, seconds: float) -> None:
        """Moves every track on by its velocity."""
        place, mixed, speed = self.covariance.T
        self.centres += self.velocities * seconds
        place += seconds * (2 * mixed + seconds * (speed + seconds * _SPEED_DRIFT / 3))
        mixed += seconds * (speed + seconds * _SPEED_DRIFT / 2)
        speed += seconds * _SPEED_DRIFT

    def rate(self, centres: _Floats, sizes: _Floats, now_ns: int) -> _Floats:
        """(T, N): minus twice the log-density of every face under every track, less the gate.

        A pair below 0 may be one face. The density counts, not the distance alone: of two tracks
        equally near, the one that knew better where it would be is the better match, and a track
        lost for long, which may be anywhere, claims nobody.
        """
        x, y = centres[:, 0] - self.centres[:, :1], centres[:, 1] - self.centres[:, 1:]
        growth = np.log(sizes) - np.log(self.sizes)[:, None]
        variance, size_variance = self._variances(now_ns)
        rated: _Floats = (x * x + y * y) / (variance * self.sizes**2)[:, None]
        rated += growth * growth / size_variance[:, None] + self.expected(now_ns)[:, None]
        return rated

    def expected(self, now_ns: int) -> _Floats:
        """(T,): what `rate` gives a face that is just where and as large as its track says."""
        variance, size_variance = self._variances(now_ns)
        return np.asarray(2 * np.log(variance) + np.log(size_variance) - _GATE, np.float64)

    def _variances(self, now_ns: int) -> tuple[_Floats, _Floats]:
        """Of the place and of the logarithm of the size of a face of each track."""
        place = self.covariance[:, 0] + _place_noise(self.sizes)
        seconds = (now_ns - self.seen_ns) * 1e-9
        return place, np.asarray(_SIZE_JITTER**2 + (_SIZE_DRIFT * seconds) ** 2, np.float64)

    def close(self, centres: _Floats) -> NDArray[np.bool_]:
        """(T, N): whether the track is so close to the face that it may be in its way."""
        apart = np.linalg.norm(self.centres[:, None] - centres, axis=2)
        return np.asarray(apart < _CLOSE * self.sizes[:, None], np.bool_)

    def correct(self, rows: NDArray[np.intp], centres: _Floats, sizes: _Floats, now_ns: int) -> None:
        """Takes in one face for each of `rows`."""
        place, mixed, speed = self.covariance[rows].T
        gain = place / (place + _place_noise(self.sizes[rows]))
        speed_gain = mixed / (place + _place_noise(self.sizes[rows]))
        missed_by = centres - self.centres[rows]
        self.centres[rows] += gain[:, None] * missed_by
        self.velocities[rows] += speed_gain[:, None] * missed_by
        kept = 1 - gain
        self.covariance[rows] = np.stack([kept * place, kept * mixed, speed - speed_gain * mixed], axis=1)
        self.sizes[rows] = sizes
        self.faces[rows] += 1
        self.seen_ns[rows] = now_ns


_SURPRISE = 6.0  # one face in ten of a track is rated worse by as much than one where it should be
_CLOSE = 2.5  # face sizes; a turn beside somebody may be an exchange
_PATIENCE = 2.5  # a track is kept for as many times what lies between two frames, so that one may miss a face
_LONGEST_NS = 10_000_000_000  # but no longer than that: slower, nobody is followed


class Tracker:
    """Gives the faces of one camera's frames the ids of their tracks, and says where it is `unsure`.

    Call it with every frame, in order, also with those that show no face. It returns the faces that
    belong to a confirmed track, with `track_ids` from 1 upwards and never used twice; each id that
    was ever returned appears in `ended` (or in what `finish` returns) exactly once, and no other
    does. A face that is in no confirmed track yet is not returned: a track is confirmed by its
    second face or a later one, `confirm_ns` after its first. Returned boxes are the detector's own.

    A face scoring `high_score` or more may begin a track or find a lost one again; a weaker one only
    continues a confirmed track that was seen within `lost_after_ns`. A track that no face has
    continued for `keep_ns` ends; where frames come so slowly that two and a half intervals are longer, it is
    kept as long as that, up to 10 s. Tracks also end when the frame size changes or `pts_ns` runs
    backwards, since places or times before and after do not compare.

    `unsure` faces are those that somebody else may be: their track was out of sight for `doubt_ns` or longer,
    or another track or face was about as near, or they did beside another track what was not to be expected.

    The camera is assumed to stand still or to turn slowly. Memory holds at most the faces of the
    last `keep_ns`. Frames of a second camera, and boxes or scores that are not finite, are an
    InputError: use one Tracker for each camera.
    """

    def __init__(
        self,
        *,
        high_score: float = 0.6,
        confirm_ns: int = 100_000_000,
        lost_after_ns: int = 300_000_000,
        keep_ns: int = 1_500_000_000,
        doubt_ns: int = 250_000_000,
    ) -> None:
        if not 0 < confirm_ns <= keep_ns or not 0 < lost_after_ns <= keep_ns:
            raise InputError(
                f"a tracker needs 0 < confirm_ns <= keep_ns and 0 < lost_after_ns <= keep_ns, got "
                f"confirm_ns={confirm_ns}, lost_after_ns={lost_after_ns}, keep_ns={keep_ns}"
            )
        self._high_score = high_score
        self._confirm_ns = confirm_ns
        self._lost_after_ns = lost_after_ns
        self._least_keep_ns = keep_ns
        self._doubt_ns = doubt_ns
        self._interval_ns = 0.0  # between the last frames, on average
        self.brief = 0
        """Faces that could have begun a track and were gone before it was confirmed."""
        self._next_id = 1
        self._ended: tuple[int, ...] = ()
        self._camera: str | None = None
        self._frame_size = (0, 0)
        self._now_ns = 0
        self._tracks = _Tracks.begin(np.zeros((0, 2)), np.zeros(0), 0)

    @property
    def keep_ns(self) -> int:
        """How long a track is kept without a face, at the rate at which frames come."""
        return max(self._least_keep_ns, min(round(_PATIENCE * self._interval_ns), _LONGEST_NS))

    @property
    def too_slow(self) -> bool:
        """Whether frames come so far apart that nobody can be followed from one to the next."""
        return self._interval_ns > _LONGEST_NS

    @property
    def ended(self) -> tuple[int, ...]:
        """Ids of the tracks that the last call ended, ascending."""
        return self._ended

    def __call__(self, frame: Frame, faces: Faces) -> Faces:
        centres, sizes = _measure(faces)  # first: faces that are refused must not cost the tracks
        self._ended = ()
        self._advance(frame)
        now_ns = frame.pts_ns
        strong = faces.scores >= self._high_score
        track_of = np.full(len(faces), -1)
        unsure = np.zeros(len(faces), np.bool_)
        slow_s = max(self._interval_ns * 1e-9 / _SLOW_S, 1.0)

        def match(rows: NDArray[np.intp], columns: NDArray[np.intp]) -> None:
            # A place is spread over slow_s squared as much: nearly any is likelier than a new face's.
            some = self._tracks[rows]
            costs = some.rate(centres[columns], sizes[columns], now_ns)
            r, c = assign(costs - 4 * np.log(slow_s))
            track_of[columns[c]] = rows[r]
            beside_others = self._tracks.close(centres[columns[c]]).sum(axis=0) > 1
            surprising = costs[r, c] - some.expected(now_ns)[r] > _SURPRISE
            unsure[columns[c]] = could_be_exchanged(costs, r, c) | (beside_others & surprising)

        tracks = self._tracks
        match(np.arange(len(tracks)), np.flatnonzero(strong))
        recent = (tracks.ids > 0) & (now_ns - tracks.seen_ns <= self._lost_after_ns)
        recent[track_of[track_of >= 0]] = False
        match(np.flatnonzero(recent), np.flatnonzero(~strong))

        found = np.flatnonzero(track_of >= 0)
        unsure[found] |= now_ns - tracks.seen_ns[track_of[found]] > self._doubt_ns
        tracks.correct(track_of[found], centres[found], sizes[found], now_ns)
        self._confirm(now_ns)
        track_ids = np.zeros(len(faces), np.int64)
        track_ids[found] = tracks.ids[track_of[found]]

        waiting = (tracks.ids == 0) & (now_ns - tracks.seen_ns > self._confirm_ns)
        new = strong & (track_of < 0)
        self._drop(waiting)
        self._tracks = self._tracks + _Tracks.begin(centres[new], sizes[new], now_ns)
        returned = track_ids > 0
        return faces.with_(track_ids=track_ids, unsure=unsure)[returned]

    def finish(self) -> tuple[int, ...]:
        """Ends all tracks and returns their ids, ascending; the tracker can then start afresh."""
        self._ended = ()
        self._end(np.ones(len(self._tracks), np.bool_))
        self._camera = None
        return self._ended

    def _advance(self, frame: Frame) -> None:
        """Moves all tracks to the time of `frame` and ends those that cannot go on."""
        frame_size = frame.image.shape[:2]
        if self._camera is None:
            self._camera, self._frame_size, self._now_ns = frame.camera, frame_size, frame.pts_ns
            self._interval_ns = 0.0
        if frame.camera != self._camera:
            raise InputError(
                f"this tracker follows camera {self._camera!r} and got a frame of {frame.camera!r}; "
                f"use one Tracker for each camera, or finish() before a change"
            )
        passed_ns = frame.pts_ns - self._now_ns
        if passed_ns < 0 or frame_size != self._frame_size:
            self._end(np.ones(len(self._tracks), np.bool_))
        elif passed_ns > 0:
            self._interval_ns += (passed_ns - self._interval_ns) / 4 if self._interval_ns else passed_ns
        self._end(frame.pts_ns - self._tracks.seen_ns > self.keep_ns)
        self._tracks.predict(passed_ns * 1e-9)
        self._frame_size, self._now_ns = frame_size, frame.pts_ns

    def _confirm(self, now_ns: int) -> None:
        tracks = self._tracks
        ready = np.flatnonzero(
            (tracks.ids == 0) & (tracks.seen_ns == now_ns) & (now_ns - tracks.first_ns >= self._confirm_ns)
        )
        tracks.ids[ready] = np.arange(self._next_id, self._next_id + len(ready))
        self._next_id += len(ready)

    def _end(self, rows: NDArray[np.bool_]) -> None:
        ids = self._tracks.ids[rows]
        self._ended = tuple(sorted((*self._ended, *ids[ids > 0].tolist())))
        self._drop(rows)

    def _drop(self, rows: NDArray[np.bool_]) -> None:
        self.brief += int(self._tracks.faces[rows & (self._tracks.ids == 0)].sum())
        self._tracks = self._tracks[~rows]


def _measure(faces: Faces) -> tuple[_Floats, _Floats]:
    """Centres (N, 2) and sizes (N,) in pixels."""
    if not (np.isfinite(faces.boxes).all() and np.isfinite(faces.scores).all()):
        raise InputError("boxes and scores must be finite numbers, got NaN or infinity from the detector")
    boxes = faces.boxes.astype(np.float64)
    sides = np.maximum(boxes[:, 2:] - boxes[:, :2], 1)
    return (boxes[:, :2] + boxes[:, 2:]) / 2, np.sqrt(sides.prod(axis=1))


def _place_noise(sizes: _Floats) -> _Floats:
    """The variance of a detected centre, in face sizes."""
    return _BOX_JITTER**2 + (_BOX_JITTER_PX / sizes) ** 2
