"""What each kind of detector puts out, and how that becomes boxes, scores and landmarks.

A decoder takes the outputs in the order of its head, the (height, width) of the network input and
the score threshold. It gives every face that reaches the threshold, neighbours that mean the same
face included, in pixels of the network input.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_fr.engine import Head, ModelCard, TensorSpec
from edge_fr.errors import CardError
from edge_fr.structures import Faces

Array = NDArray[np.float32]

STRIDES = (8, 16, 32)
_RETINAFACE_PRIORS_PX = {8: (16, 32), 16: (64, 128), 32: (256, 512)}
_RETINAFACE_VARIANCES = (0.1, 0.2)


def decode_yunet(outputs: Sequence[Array], input_size: tuple[int, int], score_threshold: float) -> Faces:
    """YuNet: cls, obj, bbox and kps, each at strides 8, 16 and 32."""
    found = []
    for level, stride in enumerate(STRIDES):
        cls, obj, bbox, kps = outputs[level::3]
        squares = np.clip(cls.ravel(), 0, 1) * np.clip(obj.ravel(), 0, 1)
        rows = np.flatnonzero(squares >= score_threshold**2)
        corner = _cells(rows, stride, input_size)
        box = bbox.reshape(-1, 4)[rows]
        centre, size = corner + box[:, :2] * stride, np.exp(box[:, 2:]) * stride
        points = corner[:, None] + kps.reshape(-1, 5, 2)[rows] * stride
        scores: Array = np.sqrt(squares[rows])
        found.append(_faces(centre - size / 2, centre + size / 2, scores, points))
    return concatenate(found)


def decode_scrfd(outputs: Sequence[Array], input_size: tuple[int, int], score_threshold: float) -> Faces:
    """SCRFD: score, bbox and kps, each at strides 8, 16 and 32, two anchors in every cell."""
    found = []
    for level, stride in enumerate(STRIDES):
        score, bbox, kps = outputs[level::3]
        rows = np.flatnonzero(score.ravel() >= score_threshold)
        corner = _cells(rows // 2, stride, input_size)
        distance = bbox.reshape(-1, 4)[rows] * stride  # to the left, top, right and bottom edge
        points = corner[:, None] + kps.reshape(-1, 5, 2)[rows] * stride
        scores = score.ravel()[rows]
        found.append(_faces(corner - distance[:, :2], corner + distance[:, 2:], scores, points))
    return concatenate(found)


def decode_retinaface(outputs: Sequence[Array], input_size: tuple[int, int], score_threshold: float) -> Faces:
    """RetinaFace: softmax, loc and landms over the priors of strides 8, 16 and 32, two in every cell."""
    conf, loc, landms = outputs
    scores = conf.reshape(-1, 2)[:, 1]
    rows = np.flatnonzero(scores >= score_threshold)
    corners, sides = [], []
    start = 0
    for stride in STRIDES:
        count = 2 * _cell_count(stride, input_size)
        level = rows[(rows >= start) & (rows < start + count)] - start
        corners.append(_cells(level // 2, stride, input_size) + stride / 2)
        sides.append(np.array(_RETINAFACE_PRIORS_PX[stride], np.float32)[level % 2])
        start += count
    prior, side = np.concatenate(corners), np.concatenate(sides)[:, None]
    place, growth = _RETINAFACE_VARIANCES
    box = loc.reshape(-1, 4)[rows]
    centre, size = prior + box[:, :2] * (place * side), side * np.exp(box[:, 2:] * growth)
    points = prior[:, None] + landms.reshape(-1, 5, 2)[rows] * (place * side[:, None])
    return _faces(centre - size / 2, centre + size / 2, scores[rows], points)


@dataclass(frozen=True)
class Output:
    """One output of a head: a row for each anchor of each cell of its strides."""

    columns: int
    strides: tuple[int, ...]
    name: str | None = None  # None: the head fixes no names, outputs are told apart by their columns


@dataclass(frozen=True)
class Layout:
    """How a head's outputs are laid out, in the order its decoder wants them."""

    decode: Callable[[Sequence[Array], tuple[int, int], float], Faces]
    anchors: int
    outputs: tuple[Output, ...]

    def rows(self, output: Output, input_size: tuple[int, int]) -> int:
        """How many rows that output has for a network input of (height, width)."""
        return self.anchors * sum(_cell_count(stride, input_size) for stride in output.strides)


LAYOUTS: dict[Head, Layout] = {
    "yunet": Layout(
        decode_yunet,
        anchors=1,
        outputs=tuple(
            Output(columns, (stride,), f"{kind}_{stride}")
            for kind, columns in (("cls", 1), ("obj", 1), ("bbox", 4), ("kps", 10))
            for stride in STRIDES
        ),
    ),
    "scrfd": Layout(
        decode_scrfd,
        anchors=2,
        outputs=tuple(Output(columns, (stride,)) for columns in (1, 4, 10) for stride in STRIDES),
    ),
    "retinaface": Layout(
        decode_retinaface,
        anchors=2,
        outputs=tuple(Output(columns, STRIDES) for columns in (2, 4, 10)),
    ),
}


def order_outputs(
    layout: Layout, specs: Sequence[TensorSpec], input_size: tuple[int, int] | None, card: ModelCard
) -> tuple[str, ...]:
    """The names of an engine's outputs in the order of the layout.

    CardError when they do not fit it: names, columns, or, where the engine fixes its (height, width)
    `input_size`, rows. Outputs without names are taken by their columns, and those with the same
    number of columns in the order the engine lists them, which has to be that of their strides;
    others are left aside.
    """
    wanted = layout.outputs
    tables = [spec for spec in specs if len(spec.shape) >= 2]
    if wanted[0].name is not None:
        by_name = {spec.name: spec for spec in tables}
        ordered = [by_name[output.name] for output in wanted if output.name in by_name]
    else:
        columns = [output.columns for output in wanted]
        known = [spec for spec in tables if spec.shape[-1] in columns]
        ordered = sorted(known, key=lambda spec: columns.index(spec.shape[-1] or 0))
    fits = len(ordered) == len(wanted) and all(
        spec.shape[-1] == output.columns
        and (input_size is None or spec.shape[-2] in (None, layout.rows(output, input_size)))
        for spec, output in zip(ordered, wanted, strict=True)
    )
    if not fits:
        size = f" for an input of {input_size[1]} x {input_size[0]}" if input_size else ""
        expected = ", ".join(
            f"{output.name or 'any name'} ({layout.rows(output, input_size) if input_size else 'N'}, "
            f"{output.columns})"
            for output in wanted
        )
        got = ", ".join(f"{spec.name} {spec.shape}" for spec in specs)
        raise CardError(
            f"the outputs of {card.name} do not fit the head {card.head!r} of its card{size}: got {got}; "
            f"expected {expected}; write another head into the card, or export the model with landmarks"
        )
    return tuple(spec.name for spec in ordered)


def concatenate(parts: Sequence[Faces]) -> Faces:
    """All detections of several lists, in their order."""
    return Faces(
        np.concatenate([part.boxes for part in parts]),
        np.concatenate([part.scores for part in parts]),
        np.concatenate([part.landmarks for part in parts]),
    )


def _cell_count(stride: int, input_size: tuple[int, int]) -> int:
    return -(-input_size[0] // stride) * -(-input_size[1] // stride)


def _cells(cells: NDArray[Any], stride: int, input_size: tuple[int, int]) -> Array:
    """The (x, y) of the top left corner of numbered cells, in pixels."""
    across = -(-input_size[1] // stride)
    return np.stack([cells % across, cells // across], axis=1).astype(np.float32) * stride


def _faces(
    top_left: NDArray[Any], bottom_right: NDArray[Any], scores: NDArray[Any], landmarks: NDArray[Any]
) -> Faces:
    boxes = np.concatenate([top_left, bottom_right], axis=1)
    return Faces(boxes.astype(np.float32), scores.astype(np.float32), landmarks.astype(np.float32))
