"""Finding faces: a frame through the detector, and its answers made into boxes and landmarks."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_fr.engine import Engine, ModelCard, TensorSpec, require_task
from edge_fr.errors import CardError, EngineError, InputError
from edge_fr.heads import LAYOUTS, concatenate, order_outputs
from edge_fr.image import letterbox, to_bgr
from edge_fr.structures import Faces, Frame

_MULTIPLE_PX = 32  # the largest stride of every head: inputs come in whole multiples of it
_MAX_BATCH = 8  # an input of 1080p takes 25 MB
_KEPT_BYTES = 256 << 20  # inputs of several sizes, for cameras that differ and for tiles
_TOP_K = 5000  # candidates that go into NMS, as in OpenCV: what a picture of noise costs has a bound

# Detectors are trained on pictures of about 640 px. At full size YuNet places the boxes and landmarks of
# faces over 500 px badly, from 800 px on it finds faces inside the face, and at 1000 px it misses a
# third. So an input that can hold such a face is looked at again at a sixth of the size, for a
# thirty-sixth of the cost; each look answers for the sizes it is good at.
_SECOND_LOOK_FROM_PX = 640
_SECOND_LOOK_SHRINK = 6
_LARGE_FACE_PX = 320


class Detector:
    """Finds the faces of a frame with the engine of a detector (YuNet, SCRFD or RetinaFace).

    Faces with a score of at least `score_threshold` (0..1) are kept; of two whose boxes overlap by an
    IoU above `nms_threshold`, the one with the higher score. A frame goes in at its full size; one
    whose longer side exceeds `max_side_px` (None: no bound) is scaled down to it, in whole multiples
    of 32, which loses its smallest faces: of those that are 24 px high where they reach the network
    YuNet finds nine in ten, at 16 px one in two. An engine with a fixed input size gets every frame
    scaled down to that size, and places faces badly that are over 500 px high there.

    A detector keeps only its inputs' memory between frames, so their size may change. Several threads may
    share one; the network runs for one after the other. CardError when the engine's inputs or outputs do not
    fit the head that its card names.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        score_threshold: float = 0.5,
        nms_threshold: float = 0.3,
        max_side_px: int | None = 1920,
    ) -> None:
        for name, value in (("score_threshold", score_threshold), ("nms_threshold", nms_threshold)):
            if not 0.0 < value <= 1.0:
                raise InputError(f"{name} is {value}, expected more than 0 and at most 1")
        if max_side_px is not None and max_side_px < _MULTIPLE_PX:
            raise InputError(f"max_side_px is {max_side_px}, expected at least {_MULTIPLE_PX}, or None")
        card = engine.card
        require_task(card, "detect", card.name)
        assert card.head is not None  # a ModelCard for detection cannot be made without one
        if card.head == "retinaface" and card.input_range != (0.0, 255.0):
            raise CardError(
                f"{card.name}: a RetinaFace subtracts another mean from each colour, which has to be in its "
                f"graph; its card's input_range is {card.input_range}, expected (0, 255)"
            )
        self._engine = engine
        self._score_threshold = score_threshold
        self._nms_threshold = nms_threshold
        self._max_side_px = max_side_px
        self._input, self._fixed_size, self._max_batch = _input(engine.inputs, card)
        if any(len(spec.shape) != 3 for spec in engine.outputs):  # rows of different pictures would mix
            self._max_batch = 1
        self._layout = LAYOUTS[card.head]
        self._tensors: dict[tuple[int, int], NDArray[np.float32]] = {}  # inputs to fill again, by size
        self._lock = threading.Lock()  # of those, from their filling until the network has read them
        self._names = order_outputs(self._layout, engine.outputs, self._fixed_size, card)

    @property
    def card(self) -> ModelCard:
        """The detector's card."""
        return self._engine.card

    @property
    def fixed_size(self) -> tuple[int, int] | None:
        """The (height, width) that the engine's input has; None: it takes any."""
        return self._fixed_size

    def scale(self, size: tuple[int, int]) -> float:
        """How large a picture of that (height, width) reaches the network, 1 or less."""
        height, width = self._fixed_size or self._size_for(size)
        return min(1.0, height / size[0], width / size[1])

    def __call__(self, frame: Frame, faces: Faces) -> Faces:
        """The faces of the frame, in place of those handed in."""
        return self.detect(frame.image)

    def detect(self, image: NDArray[np.uint8]) -> Faces:
        """The faces of a BGR picture, best score first: boxes, scores and landmarks.

        Boxes are not cut at the border of the picture, so that a face that is only partly in it can
        be told. EngineError when the engine's answer is not usable.
        """
        return self.detect_many([image])[0]

    def detect_many(self, images: Sequence[NDArray[np.uint8]]) -> list[Faces]:
        """The faces of each picture; those of one size go through the engine together, if it takes more
        than one at a time."""
        images = [to_bgr(image) for image in images]
        by_size: dict[tuple[int, int], list[int]] = {}
        for number, image in enumerate(images):
            by_size.setdefault(self._fixed_size or self._size_for(image.shape[:2]), []).append(number)
        found: list[Faces] = [Faces.empty()] * len(images)
        for size, numbers in by_size.items():
            for start in range(0, len(numbers), self._max_batch):
                some = numbers[start : start + self._max_batch]
                for number, faces in zip(some, self._detect([images[n] for n in some], size), strict=True):
                    found[number] = faces
        return found

    def _detect(self, images: list[NDArray[np.uint8]], size: tuple[int, int]) -> list[Faces]:
        """The faces of each of the pictures, which have one input size."""
        looks = self._look(images, size)
        if self._fixed_size is not None or max(size) <= _SECOND_LOOK_FROM_PX:
            return [self.suppress(found) for found, _ in looks]
        small = (_round_up(size[0] / _SECOND_LOOK_SHRINK), _round_up(size[1] / _SECOND_LOOK_SHRINK))
        results = []
        for (found, scale), (large, _) in zip(looks, self._look(images, small), strict=True):
            large_px = _LARGE_FACE_PX / scale
            # Between half of the bound and the bound both answer, and NMS picks the better one.
            both = concatenate([found[_sides(found) <= large_px], large[_sides(large) >= large_px / 2]])
            results.append(self.suppress(both))
        return results

    def _size_for(self, size: tuple[int, int]) -> tuple[int, int]:
        height, width = size
        longer = max(height, width)
        if self._max_side_px is not None and longer > self._max_side_px:
            shrink = self._max_side_px // _MULTIPLE_PX * _MULTIPLE_PX / longer
            height, width = round(height * shrink), round(width * shrink)
        return _round_up(height), _round_up(width)

    def _look(self, images: list[NDArray[np.uint8]], size: tuple[int, int]) -> list[tuple[Faces, float]]:
        """What the engine finds in each picture at that input size, in pixels of the picture, and how
        much the picture was scaled down."""
        card = self.card
        with self._lock:
            tensor = self._tensor(len(images), size)
            scales = [
                letterbox(image, size, colour=card.colour, input_range=card.input_range, out=row[None])[1]
                for image, row in zip(images, tensor, strict=True)
            ]
            outputs = self._engine.infer({self._input: tensor})
        arrays = []
        for name, output in zip(self._names, self._layout.outputs, strict=True):
            array = outputs[name]
            rows = self._layout.rows(output, size)
            if array.size != len(images) * rows * output.columns:
                raise EngineError(
                    f"{card.name}: output {name!r} has shape {array.shape} for {len(images)} inputs of "
                    f"{size[1]} x {size[0]}, expected {rows} rows of {output.columns} each; "
                    f"build the engine again"
                )
            arrays.append(np.asarray(array, np.float32).reshape(len(images), rows, output.columns))
        return [
            (self._decoded([array[i] for array in arrays], size, scale), scale)
            for i, scale in enumerate(scales)
        ]

    def _tensor(self, count: int, size: tuple[int, int]) -> NDArray[np.float32]:
        """Memory for so many pictures of a size, that of an earlier call if it is large enough."""
        tensor = self._tensors.get(size)
        if tensor is None or len(tensor) < count:
            tensor = np.empty((count, 3, *size), np.float32)
            if tensor.nbytes + sum(kept.nbytes for kept in self._tensors.values()) > _KEPT_BYTES:
                self._tensors.clear()
            self._tensors[size] = tensor
        return tensor[:count]

    def _decoded(self, arrays: list[NDArray[np.float32]], size: tuple[int, int], scale: float) -> Faces:
        with np.errstate(over="ignore"):  # a box of infinite size is refused below
            found = self._layout.decode(arrays, size, self._score_threshold)
        if not (np.isfinite(found.boxes).all() and np.isfinite(found.landmarks).all()):
            raise EngineError(
                f"{self.card.name} (precision {self.card.precision}) gave a box that is not finite; "
                f"check the model file with `edge-fr models verify`, or use the fp32 file"
            )
        return Faces(found.boxes / scale, found.scores, found.landmarks / scale)

    def suppress(self, found: Faces) -> Faces:
        """Of faces that overlap by more than `nms_threshold` the best one, best score first."""
        if len(found) == 0:
            return Faces.empty()
        left_top_size = np.concatenate([found.boxes[:, :2], found.boxes[:, 2:] - found.boxes[:, :2]], axis=1)
        kept = cv2.dnn.NMSBoxes(
            left_top_size.astype(np.float64),  # type: ignore[arg-type]
            found.scores,  # type: ignore[arg-type]
            0.0,
            self._nms_threshold,
            top_k=_TOP_K,
        )
        return found[np.asarray(kept, np.intp)]


def _input(specs: tuple[TensorSpec, ...], card: ModelCard) -> tuple[str, tuple[int, int] | None, int]:
    """The name of the input, its (height, width) unless the engine takes any, and the largest batch."""
    if len(specs) == 1 and len(specs[0].shape) == 4:
        batch, channels, height, width = specs[0].shape
        if batch in (None, 1) and channels == 3 and specs[0].dtype == np.float32:
            if height is None and width is None:
                return specs[0].name, None, _MAX_BATCH if batch is None else 1
            if height and width and height % _MULTIPLE_PX == width % _MULTIPLE_PX == 0:
                return specs[0].name, (height, width), _MAX_BATCH if batch is None else 1
    got = ", ".join(f"{spec.name} {spec.shape} {spec.dtype}" for spec in specs)
    raise CardError(
        f"{card.name} takes {got}, expected one float32 input of shape (1, 3, height, width), with both "
        f"sides open or multiples of {_MULTIPLE_PX}"
    )


def _round_up(side: float) -> int:
    return max(1, int(np.ceil(side / _MULTIPLE_PX))) * _MULTIPLE_PX


def _sides(faces: Faces) -> NDArray[np.float32]:
    """The longer side of each box."""
    longer: NDArray[np.float32] = (faces.boxes[:, 2:] - faces.boxes[:, :2]).max(axis=1)
    return longer
