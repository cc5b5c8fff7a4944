"""The values that travel through the pipeline: frozen, columnar, checked once at construction.

Arrays are not copied and must not be written to after they were handed over. Boxes are xyxy pixels
of the original frame; landmarks are (x, y) in the order image-left eye, image-right eye, nose,
image-left mouth corner, image-right mouth corner; images are BGR uint8 HWC.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, fields, replace
from datetime import datetime
from typing import Any, Literal, overload

import numpy as np
from numpy.typing import NDArray

from edge_fr.errors import InputError

CROP_SIDE_PX = 112
MASKED = 0.5  # a mask_prob of that much or more is called a mask

Status = Literal["known", "unknown", "unrecognizable"]
EventType = Literal[
    "face.identified",
    "face.unknown",
    "face.unrecognizable",
    "face.ended",
    "camera.online",
    "camera.offline",
]


@dataclass(frozen=True, eq=False, slots=True)
class Frame:
    """One picture of one camera.

    `image` is (H, W, 3) uint8 BGR and belongs to the frame: a source never writes into it again.
    `pts_ns` is the stream's own clock in nanoseconds, never earlier than the frame before it.
    `captured_at` is the wall clock, with a time zone. `index` counts the source's frames from 0.
    """

    image: NDArray[np.uint8]
    pts_ns: int
    captured_at: datetime
    camera: str = "camera"
    index: int = 0

    def __post_init__(self) -> None:
        image = self.image
        if not isinstance(image, np.ndarray):
            raise InputError(
                f"a frame needs its image as an array of NumPy, got {type(image).__name__}; "
                f"np.asarray(image, np.uint8) makes one of lists"
            )
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
            raise InputError(
                f"a frame needs a BGR image of shape (height, width, 3) and dtype uint8, got shape "
                f"{image.shape} and dtype {image.dtype}; edge_fr.image.to_bgr converts the usual forms"
            )
        if self.captured_at.tzinfo is None:
            raise InputError("captured_at needs a time zone, for example datetime.now(timezone.utc)")


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a face is not good enough, by its ISO/IEC 29794-5 component name.

    `measured` and `bound` are in `unit`; `limit` says on which side of the bound a good face lies. `detail`
    is for people to read; `component` is the code for programs.
    """

    component: str
    measured: float
    bound: float
    limit: Literal["at least", "at most"]
    unit: str = ""
    detail: str = ""

    def __str__(self) -> str:
        unit = f" {self.unit}" if self.unit else ""
        name = self.component.replace("_", " ")
        detail = f" ({self.detail})" if self.detail else ""
        return f"{name} {self.measured:.3g}{unit}, needs {self.limit} {self.bound:.3g}{unit}{detail}"


@dataclass(frozen=True, eq=False, slots=True)
class Face:
    """One row of `Faces`; a value a stage has not computed yet is None."""

    box: NDArray[np.float32]
    score: float
    landmarks: NDArray[np.float32]
    track_id: int | None
    crop: NDArray[np.uint8] | None
    quality: float | None
    refusals: tuple[Refusal, ...]
    embedding: NDArray[np.float32] | None
    ri: float | None
    mask_prob: float | None
    unsure: bool = False

    @property
    def worth(self) -> float:
        """What the face weighs as evidence, 0..1: its recognizability, else its quality, else its score."""
        return next(value for value in (self.ri, self.quality, self.score) if value is not None)

    @property
    def masked(self) -> bool | None:
        """Whether the face wears a mask; None where that was not computed."""
        return None if self.mask_prob is None else self.mask_prob >= MASKED

    @property
    def bbox(self) -> NDArray[np.float32]:
        """The box, (4,) xyxy, under InsightFace's name."""
        return self.box

    @property
    def kps(self) -> NDArray[np.float32]:
        """The landmarks, (5, 2), under InsightFace's name."""
        return self.landmarks

    @property
    def det_score(self) -> float:
        """The detector's score, 0..1, under InsightFace's name."""
        return self.score


@dataclass(frozen=True, eq=False, slots=True)
class Faces:
    """All faces of one frame, one row each; every stage fills in its own columns.

    boxes       (N, 4) float32 xyxy pixels       scores    (N,) float32, 0..1
    landmarks   (N, 5, 2) float32 pixels         track_ids (N,) int64
    crops       (N, 112, 112, 3) uint8 BGR, aligned
    quality     (N,) float32, 0..1, higher is better
    refusals    N tuples; a row with any refusal is not good enough to be embedded
    selected    (N,) bool, rows that the gate passes on to the embedder
    embeddings  (N, D) float32 of unit length, NaN in rows that were not embedded
    ri          (N,) float32, 0..1, recognizability, NaN where not computed; the shipped recognizer's is the
                chance that a good picture of the same person is matched at one false match in 10,000
    mask_prob   (N,) float32, 0..1, NaN where not computed

    `faces[i]` is a `Face`; `faces[mask]`, `faces[indices]` and `faces[1:3]` are `Faces`.
    """

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    landmarks: NDArray[np.float32]
    track_ids: NDArray[np.int64] | None = None
    unsure: NDArray[np.bool_] | None = None
    crops: NDArray[np.uint8] | None = None
    quality: NDArray[np.float32] | None = None
    refusals: tuple[tuple[Refusal, ...], ...] | None = None
    selected: NDArray[np.bool_] | None = None
    embeddings: NDArray[np.float32] | None = None
    ri: NDArray[np.float32] | None = None
    mask_prob: NDArray[np.float32] | None = None

    def __post_init__(self) -> None:
        rest: dict[str, tuple[tuple[int | None, ...], type[np.generic]]] = {
            "boxes": ((4,), np.float32),
            "scores": ((), np.float32),
            "landmarks": ((5, 2), np.float32),
            "track_ids": ((), np.int64),
            "unsure": ((), np.bool_),
            "crops": ((CROP_SIDE_PX, CROP_SIDE_PX, 3), np.uint8),
            "quality": ((), np.float32),
            "selected": ((), np.bool_),
            "embeddings": ((None,), np.float32),
            "ri": ((), np.float32),
            "mask_prob": ((), np.float32),
        }
        boxes = self.boxes
        n = len(boxes) if isinstance(boxes, np.ndarray) and boxes.ndim else None
        for name, (shape, dtype) in rest.items():
            column = getattr(self, name)
            if column is not None or name in ("boxes", "scores", "landmarks"):
                _require_column(name, column, (n, *shape), dtype)
        if self.refusals is not None and len(self.refusals) != n:
            raise InputError(f"Faces.refusals needs {n} rows, got {len(self.refusals)}")

    @classmethod
    def empty(cls) -> Faces:
        """No face at all: what the first stage starts from."""
        return cls(np.zeros((0, 4), np.float32), np.zeros((0,), np.float32), np.zeros((0, 5, 2), np.float32))

    def with_(self, **columns: Any) -> Faces:
        """The same faces with the named columns set; lengths and types are checked again."""
        return replace(self, **columns)

    def __len__(self) -> int:
        return len(self.boxes)

    def __iter__(self) -> Iterator[Face]:
        return (self[i] for i in range(len(self)))

    @overload
    def __getitem__(self, rows: int) -> Face: ...
    @overload
    def __getitem__(self, rows: slice | NDArray[Any] | list[int]) -> Faces: ...
    def __getitem__(self, rows: int | slice | NDArray[Any] | list[int]) -> Face | Faces:
        if isinstance(rows, (int, np.integer)):
            return self._row(int(rows))
        index = np.arange(len(self))[rows]
        columns: dict[str, Any] = {}
        for f in fields(self):
            column = getattr(self, f.name)
            if column is not None:
                columns[f.name] = tuple(column[i] for i in index) if f.name == "refusals" else column[index]
        return Faces(**columns)

    def _row(self, i: int) -> Face:
        def number(column: NDArray[np.float32] | None) -> float | None:
            return None if column is None or np.isnan(column[i]) else float(column[i])

        embedding = None if self.embeddings is None else self.embeddings[i]
        if embedding is not None and np.isnan(embedding[0]):
            embedding = None
        return Face(
            box=self.boxes[i],
            score=float(self.scores[i]),
            landmarks=self.landmarks[i],
            track_id=None if self.track_ids is None else int(self.track_ids[i]),
            crop=None if self.crops is None else self.crops[i],
            quality=number(self.quality),
            refusals=() if self.refusals is None else self.refusals[i],
            embedding=embedding,
            ri=number(self.ri),
            mask_prob=number(self.mask_prob),
            unsure=self.unsure is not None and bool(self.unsure[i]),
        )


def _require_column(name: str, column: Any, shape: tuple[int | None, ...], dtype: type[np.generic]) -> None:
    """InputError unless the column of `Faces` is an array of that type and shape; None is any side."""
    got, hint = type(column).__name__, ""
    if isinstance(column, (list, tuple)):
        hint = f"; np.asarray({name}, np.{dtype.__name__}) makes an array of it"
    if isinstance(column, np.ndarray):
        fits = len(shape) == column.ndim
        fits = fits and all(want in (None, has) for want, has in zip(shape, column.shape, strict=True))
        if fits and column.dtype == dtype:
            return
        got = f"{column.shape} and {column.dtype}"
        hint = f"; {name}.astype(np.{dtype.__name__}) converts it" if fits else ""
    sides = [str(side) if side is not None else "D" if i else "N" for i, side in enumerate(shape)]
    wanted = f"({sides[0]},)" if len(sides) == 1 else f"({', '.join(sides)})"
    raise InputError(f"Faces.{name} needs shape {wanted} and dtype {np.dtype(dtype).name}, got {got}{hint}")


@dataclass(frozen=True, slots=True)
class Candidate:
    """One enrolled identity as an answer: cosine score, and its lead over the next identity (None: there is
    nobody else)."""

    identity: str
    score: float
    margin: float | None


@dataclass(frozen=True, eq=False, slots=True)
class Matches:
    """The best identities for each probe, best first; one tuple a probe, empty for an empty gallery.

    `others` has for each probe its mean score with everybody but the best identity: how much it is like
    the gallery's people in general; None where that was not computed or there is nobody else.
    """

    candidates: tuple[tuple[Candidate, ...], ...]
    others: tuple[float | None, ...] | None = None

    def __len__(self) -> int:
        return len(self.candidates)

    def __getitem__(self, probe: int) -> tuple[Candidate, ...]:
        return self.candidates[probe]


@dataclass(frozen=True, slots=True)
class Decision:
    """What is known about a track (or a still picture) now.

    `identity` is set only when `status` is "known". `frames_used` counts the embeddings fused;
    `ri` is the best recognizability among them and `mask_prob` their mean, weighted as they were fused
    (None: the recognizer tells neither). `refusals` say why a face is unrecognizable: those of the best face
    seen when nothing could be used, or that what could be used is too poor to call somebody unknown.
    """

    status: Status
    identity: str | None
    candidates: tuple[Candidate, ...]
    threshold: float
    frames_used: int
    target_fpir: float | None = None
    refusals: tuple[Refusal, ...] = ()
    ri: float | None = None
    mask_prob: float | None = None


@dataclass(frozen=True, eq=False, slots=True)
class Event:
    """Something to tell the world, in the form that every sink writes (`edge_fr.events.to_json`).

    `dedupe_key` is the same for the same happening however often it is sent. `face` and `decision`
    are None for camera events; `model` is the recognizer's weights digest and precision. `reason` is
    why a camera went offline.
    """

    event_id: str
    dedupe_key: str
    type: EventType
    camera: str
    captured_at: datetime
    emitted_at: datetime
    pts_ns: int
    track_id: int | None = None
    frame_size: tuple[int, int] | None = None  # (height, width)
    face: Face | None = None
    decision: Decision | None = None
    model: dict[str, str] = field(default_factory=dict)
    reason: str = ""
