"""insightface's .bin files: AgeDB-30, CFP-FP, CALFW, CPLFW, LFW and others, pictures and pairs in one pickle.

The pickle holds `(bins, issame_list)`: encoded pictures, two for each pair, and whether the pairs show
one person. A pickle may call any function when it is loaded, so nothing is taken from it but
containers, bytes, numbers and one-byte numpy arrays; its references to numpy are answered by the
stand-ins below, which cannot do more than hold bytes.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from calibration.datasets.dataset import Crops, Dataset, PairList
from calibration.datasets.folders import REPORTED
from edge_fr.errors import InputError
from edge_fr.image import to_bgr
from edge_fr.structures import CROP_SIDE_PX

FOLDS = 10
_EXPECTED = "insightface's pickle of (pictures, same-or-not), two pictures for each pair"

# What a damaged or foreign pickle may raise while it is read.
_FAILURES = (
    pickle.UnpicklingError,
    AttributeError,
    EOFError,
    IndexError,
    KeyError,
    MemoryError,
    OverflowError,
    TypeError,
    ValueError,
)


def insightface_bin(path: Path) -> Dataset:
    """`bin:FILE`, pairs in their order in ten folds, without identities: intervals draw pairs."""
    encoded, same = _load(path)
    numbers = np.arange(len(encoded), dtype=np.int64)

    def read(i: int) -> NDArray[np.uint8]:
        return _decode(encoded[i], i, path)

    return Dataset(
        title=path.stem,
        names=tuple(f"{path.stem}_{i:05d}" for i in numbers),
        read=Crops(read),
        people=None,
        pairs=PairList(
            first=numbers[::2],
            second=numbers[1::2],
            same=np.array(same, np.bool_),
            folds=np.arange(len(same)) * FOLDS // len(same),
        ),
        conditions=REPORTED,
    )


def _load(path: Path) -> tuple[list[bytes], list[bool]]:
    try:
        with path.open("rb") as file:
            content = _DataUnpickler(file, encoding="bytes").load()
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error}); expected {_EXPECTED}") from error
    except _FAILURES as error:
        raise InputError(f"{path}: {error}; expected {_EXPECTED}") from error
    if not isinstance(content, (tuple, list)) or len(content) != 2:
        raise InputError(f"{path} holds a {type(content).__name__}; expected {_EXPECTED}")
    pictures, same = (_items(part, path) for part in content)
    if not same or len(pictures) != 2 * len(same):
        raise InputError(f"{path} holds {len(pictures)} pictures and {len(same)} pairs; expected {_EXPECTED}")
    encoded = [item.data if isinstance(item, _Array) else item for item in pictures]
    for i, item in enumerate(encoded):
        if not isinstance(item, (bytes, bytearray)):
            raise InputError(f"{path}: picture {i} is a {type(item).__name__}, expected encoded bytes")
    for i, item in enumerate(same):
        if item not in (0, 1):
            raise InputError(f"{path}: pair {i} is marked {item!r}, expected True or False")
    return [bytes(item) for item in encoded], [bool(item) for item in same]


def _items(part: object, path: Path) -> list[Any]:
    if isinstance(part, _Array):
        return list(part.data)
    if not isinstance(part, (list, tuple)):
        raise InputError(f"{path} holds a {type(part).__name__} where a list is due; expected {_EXPECTED}")
    return list(part)


def _decode(data: bytes, i: int, path: Path) -> NDArray[np.uint8]:
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error as error:
        raise InputError(f"{path}: picture {i} cannot be decoded: {error}") from error
    if image is None:
        raise InputError(f"{path}: picture {i} ({len(data)} bytes) is damaged, or no picture")
    if image.shape != (CROP_SIDE_PX, CROP_SIDE_PX, 3):
        raise InputError(
            f"{path}: picture {i} is {image.shape[1]}x{image.shape[0]}, expected an aligned "
            f"{CROP_SIDE_PX}x{CROP_SIDE_PX} crop"
        )
    return to_bgr(image)


class _DType:
    """Stands in for numpy.dtype: one byte an element, or it is refused."""

    def __init__(self, code: str | bytes, *_: object) -> None:
        name = code.decode("latin1") if isinstance(code, bytes) else code
        if name not in ("b1", "u1", "i1"):
            raise pickle.UnpicklingError(f"an array of type {name!r}, only bytes and flags are read")

    def __setstate__(self, state: object) -> None:
        """Byte order and the like mean nothing for single bytes."""


class _Array:
    """Stands in for numpy.ndarray: its bytes, flat."""

    data = b""

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, _, dtype, _, data = state
        if not isinstance(dtype, _DType) or not isinstance(data, bytes):
            raise pickle.UnpicklingError("an array whose content is not bytes")
        self.data = data


def _reconstruct(kind: object, shape: object, code: object) -> _Array:
    return _Array()


def _from_buffer(buffer: object, dtype: object, shape: object, order: object) -> _Array:
    array = _Array()
    array.__setstate__((1, shape, dtype, False, bytes(buffer) if isinstance(buffer, bytearray) else buffer))
    return array


def _scalar(dtype: object, data: bytes) -> int:
    if not isinstance(dtype, _DType) or not isinstance(data, bytes) or len(data) != 1:
        raise pickle.UnpicklingError("a number that is not a single byte")
    return data[0]


def _bytes(text: str, encoding: str) -> bytes:
    """Python 3's way to write bytes into a pickle that Python 2 can read."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"bytes written as {encoding!r}")
    return text.encode("latin1")


_STAND_INS = {
    ("_codecs", "encode"): _bytes,
    ("numpy", "dtype"): _DType,
    ("numpy", "ndarray"): _Array,
    **{(f"numpy.{core}.multiarray", "_reconstruct"): _reconstruct for core in ("core", "_core")},
    **{(f"numpy.{core}.multiarray", "scalar"): _scalar for core in ("core", "_core")},
    **{(f"numpy.{core}.numeric", "_frombuffer"): _from_buffer for core in ("core", "_core")},
}


class _DataUnpickler(pickle.Unpickler):
    """Loads data and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _STAND_INS:
            raise pickle.UnpicklingError(
                f"the file refers to {module}.{name}, which a file of pictures has no use for: do not load "
                f"it with pickle"
            )
        return _STAND_INS[module, name]
