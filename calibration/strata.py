"""The calibration set: one's own faces as cameras will really see them, in stated shares.

Every face is used once, in one stratum. What is random is seeded by the set's seed and the face's place in
it, so that the same pictures give the same set; its digest, over all pixels, goes into the model's card.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from calibration.conditions import masked
from edge_fr.errors import InputError
from edge_fr.structures import CROP_SIDE_PX

Picture = NDArray[np.uint8]  # (H, W, 3) BGR
FEWEST_FACES = 300  # below it a percentile of 99.99 in the smallest stratum rests on a few pictures
_TURNED = "dark_or_turned"
_BATCH_PIXELS = 4 * CROP_SIDE_PX**2  # all that SFace computes for four faces takes 160 MB


@dataclass(frozen=True)
class Stratum:
    """A share (0..1) of the set, and what happens to its pictures."""

    share: float
    render: Callable[[Picture, np.random.Generator], Picture]


@dataclass(frozen=True, eq=False)
class CalibrationSet:
    """Pictures by stratum, (N, H, W, 3) uint8 BGR each."""

    strata: Mapping[str, NDArray[np.uint8]]

    def __len__(self) -> int:
        return sum(len(pictures) for pictures in self.strata.values())

    @property
    def digest(self) -> str:
        """sha256 over the strata's names and all pixels."""
        sha = hashlib.sha256()
        for name, pictures in self.strata.items():
            sha.update(f"{name} {pictures.shape}\n".encode())
            sha.update(np.ascontiguousarray(pictures).tobytes())
        return f"sha256:{sha.hexdigest()}"

    def first(self, count: int) -> CalibrationSet:
        """At most `count` pictures of each stratum."""
        return CalibrationSet({name: pictures[:count] for name, pictures in self.strata.items()})

    def batches(self, of: Callable[[NDArray[np.uint8]], NDArray[np.float32]]) -> dict[str, Batches]:
        """The set as inputs of a model; `of` makes an input of a few pictures."""
        return {name: Batches(pictures, of) for name, pictures in self.strata.items()}


@dataclass(frozen=True, eq=False)
class Batches:
    """A few pictures at a time, made anew at every pass, so that only one batch is in memory."""

    pictures: NDArray[np.uint8]
    of: Callable[[NDArray[np.uint8]], NDArray[np.float32]]

    def __iter__(self) -> Iterator[NDArray[np.float32]]:
        height, width = self.pictures.shape[1:3]
        size = max(1, _BATCH_PIXELS // (height * width))
        for start in range(0, len(self.pictures), size):
            yield self.of(self.pictures[start : start + size])


def stratify(
    pictures: Sequence[Picture],
    strata: Mapping[str, Stratum],
    *,
    seed: int = 0,
    turned: NDArray[np.bool_] | None = None,
) -> CalibrationSet:
    """Deals the pictures, all of one size, out to the strata and renders each.

    `turned` (N,) marks faces that came turned away: as far as there are any, they make up half of
    `dark_or_turned`, the last stratum, and are left as they are. InputError for a stratum that would get no
    picture.
    """
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(pictures)).tolist()
    counts = _counts(len(pictures), strata)
    empty = [name for name, count in counts.items() if count == 0]
    if empty:
        raise InputError(
            f"{len(pictures)} pictures leave {', '.join(empty)} empty, whose ranges would be guessed; "
            f"give at least {FEWEST_FACES}"
        )
    room = counts.get(_TURNED, 0) // 2
    aside = [] if turned is None else [i for i in order if turned[i]][:room]
    dealt = [i for i in order if i not in set(aside)] + aside
    found: dict[str, NDArray[np.uint8]] = {}
    for name, stratum in strata.items():
        chosen, dealt = dealt[: counts[name]], dealt[counts[name] :]
        found[name] = np.stack(
            [
                pictures[i] if i in aside else stratum.render(pictures[i], np.random.default_rng([seed, i]))
                for i in chosen
            ]
        )
    return CalibrationSet(found)


def with_shares(text: str, known: Mapping[str, Stratum]) -> dict[str, Stratum]:
    """The strata of "clean=0.7,masked=0.3", in their usual order; InputError unless the shares make 1."""
    shares: dict[str, float] = {}
    for part in text.split(","):
        name, _, share = part.partition("=")
        if name not in known:
            raise InputError(f"strata {text!r}: {name!r} is none of {', '.join(known)}")
        try:
            shares[name] = float(share)
        except ValueError:
            raise InputError(f"strata {text!r}: {part!r}, expected such as {name}=0.5") from None
    if not all(0 < share <= 1 for share in shares.values()) or abs(sum(shares.values()) - 1) > 1e-6:
        raise InputError(
            f"strata {text!r}: expected shares above 0 that make 1, such as clean=0.7,masked=0.3"
        )
    return {name: replace(known[name], share=shares[name]) for name in known if name in shares}


def in_every_stratum(
    pictures: Sequence[Picture], strata: Mapping[str, Stratum], *, seed: int = 0
) -> CalibrationSet:
    """Each picture rendered for each stratum: to judge on, where every stratum needs enough of them."""
    return CalibrationSet(
        {
            name: np.stack(
                [
                    stratum.render(picture, np.random.default_rng([seed, place, number]))
                    for number, picture in enumerate(pictures)
                ]
            )
            for place, (name, stratum) in enumerate(strata.items())
        }
    )


def _counts(total: int, strata: Mapping[str, Stratum]) -> dict[str, int]:
    """How many pictures each stratum gets; what rounding leaves over goes to the first."""
    counts = {name: int(total * stratum.share) for name, stratum in strata.items()}
    first = next(iter(counts))
    counts[first] += total - sum(counts.values())
    return counts


def _clean(picture: Picture, rng: np.random.Generator) -> Picture:
    return picture


def _low_resolution(picture: Picture, rng: np.random.Generator) -> Picture:
    """Down to 12 to 48 px, drawn log-uniformly, and back by one of several ways."""
    side = round(float(np.exp(rng.uniform(np.log(12), np.log(48)))))
    return _shrunk(picture, side / CROP_SIDE_PX, rng)


def _shrunk(picture: Picture, ratio: float, rng: np.random.Generator) -> Picture:
    height, width = picture.shape[:2]
    size = max(1, round(width * ratio)), max(1, round(height * ratio))
    small = cv2.resize(picture, size, interpolation=int(rng.choice([cv2.INTER_AREA, cv2.INTER_LINEAR])))
    back = int(rng.choice([cv2.INTER_CUBIC, cv2.INTER_LINEAR, cv2.INTER_NEAREST], p=[0.6, 0.3, 0.1]))
    return np.asarray(cv2.resize(small, (width, height), interpolation=back), np.uint8)


def _rough(picture: Picture, rng: np.random.Generator) -> Picture:
    """Blurred, noisy or strongly compressed, a third each."""
    kind = rng.integers(3)
    if kind == 0:
        return np.asarray(cv2.GaussianBlur(picture, (0, 0), rng.uniform(1.0, 3.0)), np.uint8)
    if kind == 1:
        grain = rng.normal(0, rng.uniform(8, 25), picture.shape)
        return np.clip(picture + grain, 0, 255).astype(np.uint8)
    _, data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(10, 40))])
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR), np.uint8)


def _masked(picture: Picture, rng: np.random.Generator) -> Picture:
    return masked(picture, str(rng.integers(1 << 32)))


def _dark(picture: Picture, rng: np.random.Generator) -> Picture:
    gain, gamma = rng.uniform(0.15, 0.5), rng.uniform(1.0, 1.6)
    table = 255 * gain * (np.arange(256) / 255) ** gamma
    return np.asarray(cv2.LUT(picture, np.clip(table, 0, 255).astype(np.uint8)), np.uint8)


def _half_to_quarter(picture: Picture, rng: np.random.Generator) -> Picture:
    """A frame whose faces are two to four times smaller, in the corner that a letterbox leaves them in."""
    ratio = rng.uniform(0.25, 0.5)
    size = max(1, round(picture.shape[1] * ratio)), max(1, round(picture.shape[0] * ratio))
    small = np.zeros_like(picture)
    small[: size[1], : size[0]] = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    return small


# Aligned faces, for a recognizer or a gate.
FACES: dict[str, Stratum] = {
    "clean": Stratum(0.35, _clean),
    "low_resolution": Stratum(0.25, _low_resolution),
    "blur_noise_jpeg": Stratum(0.15, _rough),
    "masked": Stratum(0.15, _masked),
    _TURNED: Stratum(0.10, _dark),
}
# Whole pictures, for a detector.
FRAMES: dict[str, Stratum] = {
    "clean": Stratum(0.40, _clean),
    "small": Stratum(0.25, _half_to_quarter),
    "blur_noise_jpeg": Stratum(0.20, _rough),
    "dark": Stratum(0.15, _dark),
}
