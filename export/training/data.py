"""The training faces, packed once into one file, and split so that no person is on both sides.

`pack` decodes every picture of the configured folders to an aligned 112x112 crop and writes them as one
memory-mapped array, so that an epoch costs no decoding. `Faces` is that array with its labels.
"""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from edge_fr.errors import ImageError, InputError

PICTURES = (".jpg", ".jpeg", ".png")
TEMPLATE = np.array(
    [(38.2946, 51.6963), (73.5318, 51.5014), (56.0252, 71.7366), (41.5493, 92.3655), (70.7299, 92.2041)],
    dtype=np.float32,
)
# Mean landmarks of CelebA's own alignment (178x218), halved; its pictures all share them.
CELEBA_HALF = np.array([(34.5, 55.5), (54.0, 55.5), (44.2, 67.6), (36.2, 76.2), (52.4, 76.2)], np.float32)


class Source(BaseModel):
    """One folder of faces: how its pictures lie and where its identities are written.

    `layout`: `aligned` pictures are 112x112 crops already, `celeba-half` are CelebA's aligned pictures
    at 89x109. `identities`: `folder` takes the name of the folder a picture lies in, a path names a CSV
    file of image,identity rows, None means that nobody is named.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    path: str
    layout: Literal["aligned", "celeba-half"] = "aligned"
    identities: str | None = None
    people: str | None = None  # sources of one value share their identities
    share: float = Field(1.0, gt=0, le=1)  # of its pictures that an epoch shows


@dataclass(frozen=True)
class Faces:
    """Packed faces: `crops` N x 112 x 112 x 3 uint8 BGR (memory-mapped, read only) and their labels."""

    crops: NDArray[np.uint8]
    source: NDArray[np.int64]  # N, index into the configured sources
    identity: NDArray[np.int64]  # N, -1 where nobody is named
    tune: NDArray[np.bool_]  # N, True for people held out of training
    digest: str


def held_out(identity: str) -> bool:
    """Whether a person is kept for tuning: one in ten, by a digest of the name, the same everywhere."""
    return hashlib.sha256(identity.encode()).digest()[0] % 10 == 0


def _similarity(landmarks: NDArray[np.float32]) -> NDArray[np.float64]:
    """The least-squares similarity (2 x 3) that takes five landmarks to the template."""
    x, y = landmarks[:, 0], landmarks[:, 1]
    one, zero = np.ones(5), np.zeros(5)
    system = np.concatenate([np.stack([x, -y, one, zero], 1), np.stack([y, x, zero, one], 1)])  # 10 x 4
    a, b, dx, dy = np.linalg.lstsq(system, TEMPLATE.T.reshape(-1), rcond=None)[0]
    return np.array([[a, -b, dx], [b, a, dy]])


def _read(path: Path, layout: str) -> NDArray[np.uint8]:
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if image is None:
        raise ImageError(f"{path} cannot be decoded; remove it or fetch it again")
    if layout == "celeba-half":
        warp = _similarity(CELEBA_HALF)
        return np.asarray(
            cv2.warpAffine(image, warp, (112, 112), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE),
            dtype=np.uint8,
        )
    if image.shape != (112, 112, 3):
        raise ImageError(f"{path} is {image.shape[1]}x{image.shape[0]}, expected an aligned crop of 112x112")
    return np.asarray(image, dtype=np.uint8)


def _names(path: Path) -> dict[str, str]:
    try:
        with path.open(newline="") as file:
            return {row["image"]: row["identity"] for row in csv.DictReader(file)}
    except (OSError, KeyError) as error:
        raise InputError(
            f"{path}: expected a CSV file with the columns image and identity ({error!r})"
        ) from error


def _list(source: Source, root: Path) -> Iterator[tuple[Path, str | None]]:
    """The pictures of a source in a fixed order, each with its person's name or None."""
    folder = root / source.path
    pictures = sorted(p for p in folder.rglob("*") if p.suffix.lower() in PICTURES)
    if not pictures:
        raise InputError(f"no pictures under {folder} (source {source.name!r}); check --data and the config")
    named = {} if source.identities in (None, "folder") else _names(root / str(source.identities))
    people = source.people or source.name
    for picture in pictures:
        if source.identities is None:
            yield picture, None
        elif source.identities == "folder":
            yield picture, f"{people}/{picture.parent.name}"
        elif picture.name in named:
            yield picture, f"{people}/{named[picture.name]}"
        else:
            raise InputError(f"{picture} has no row in {root / source.identities}")


def pack(sources: list[Source], root: Path, cache: Path) -> Faces:
    """The faces of `sources`, from the cache if it holds these very files, else decoded into it."""
    listed = [(i, path, who) for i, source in enumerate(sources) for path, who in _list(source, root)]
    key = hashlib.sha256()
    for i, path, who in listed:
        key.update(f"{sources[i].layout} {path.relative_to(root)} {path.stat().st_size} {who}\n".encode())
    digest = key.hexdigest()[:16]
    folder = cache / f"faces-{digest}"
    if not (folder / "whole").is_file():
        folder.mkdir(parents=True, exist_ok=True)
        crops = np.lib.format.open_memmap(
            folder / "crops.npy", mode="w+", dtype=np.uint8, shape=(len(listed), 112, 112, 3)
        )
        for row, (i, path, _) in enumerate(listed):
            crops[row] = _read(path, sources[i].layout)
        crops.flush()
        (folder / "whole").touch()
    names = sorted({who for _, _, who in listed if who is not None})
    number = {who: n for n, who in enumerate(names)}
    return Faces(
        crops=np.load(folder / "crops.npy", mmap_mode="r"),
        source=np.array([i for i, _, _ in listed]),
        identity=np.array([-1 if who is None else number[who] for _, _, who in listed]),
        tune=np.array([who is not None and held_out(who) for _, _, who in listed]),
        digest=digest,
    )
