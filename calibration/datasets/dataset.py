"""What an evaluation needs to know of labelled pictures, whatever their files look like."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.int64]

_KEPT = 8_192  # crops that stay in memory: 308 MB


class Crops:
    """Aligned crops by number, from `read`: kept while they fit into memory and protected against being
    written to. The digest of each is kept for good, so that none is detected and aligned again for it."""

    def __init__(self, read: Callable[[int], NDArray[np.uint8]]) -> None:
        self._read = read
        self._digests: dict[int, bytes] = {}
        self._crop = lru_cache(_KEPT)(self._first_read)

    def __call__(self, i: int) -> NDArray[np.uint8]:
        """Crop i, (112, 112, 3) uint8 BGR."""
        return self._crop(i)

    def sha256(self, i: int) -> bytes:
        """Of the pixels of crop i; a crop that was read once is not read again."""
        if i not in self._digests:
            self._crop(i)
        return self._digests[i]

    def _first_read(self, i: int) -> NDArray[np.uint8]:
        crop = self._read(i)
        crop.flags.writeable = False
        self._digests[i] = hashlib.sha256(crop.tobytes()).digest()
        return crop


@dataclass(frozen=True, eq=False)
class PairList:
    """Whom to compare with whom: `first` and `second` (P,) numbers of items, `same` (P,) whether both
    show one person, `folds` (P,) for cross-validated accuracy or None, and the rates to report."""

    first: Numbers
    second: Numbers
    same: NDArray[np.bool_]
    folds: Numbers | None = None
    fars: tuple[float, ...] = (1e-2, 1e-3)


@dataclass(frozen=True, eq=False)
class Lookup:
    """Whom to look up in which gallery, as item numbers: `gallery` (G,), groups of `probes` (P,) whose
    people are in it, and `strangers` (S,) who are not. A person may be in the gallery with several
    pictures. At the rates `fpirs` a probe has to be found within the first `open_rank` pictures."""

    gallery: Numbers
    probes: dict[str, Numbers]
    strangers: Numbers
    ranks: tuple[int, ...] = (1, 5, 20)
    fpirs: tuple[float, ...] = (1e-2, 1e-1)
    open_rank: int = 1


@dataclass(frozen=True, eq=False)
class Templates:
    """Which pictures together stand for a person: `template` (N,) numbers 0..T-1 and `media` (N,) (the
    photograph or video) of each picture, and its `weight` (N,)."""

    template: Numbers
    media: Numbers
    weight: NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Dataset:
    """Aligned faces with labels. `read(i)` gives picture i as a (112, 112, 3) uint8 BGR crop that is not
    to be written to. Items are the templates where there are any, else the pictures; `people` holds
    the identity number of each item, or is None where nobody knows it. `conditions` are those to
    report unless others are asked for. `whole` holds the paths, below the dataset's folder, of the pictures
    so far in which no face was found, so that they were taken whole."""

    title: str
    names: tuple[str, ...]
    read: Crops
    people: Numbers | None
    pairs: PairList | None = None
    lookup: Lookup | None = None
    templates: Templates | None = None
    conditions: tuple[str, ...] = ("as is",)
    whole: set[str] = field(default_factory=set)

    @cached_property
    def digest(self) -> str:
        """sha256 over the names, the labels, the protocol and the sha256 of every crop: two reports speak of
        the same data."""
        sha = hashlib.sha256("\n".join(self.names).encode())
        for column in self._columns():
            sha.update(str(len(column)).encode())
            sha.update(np.ascontiguousarray(column, "<f8").tobytes())
        for i in range(len(self.names)):
            sha.update(self.read.sha256(i))
        return f"sha256:{sha.hexdigest()}"

    def pictures_of(self, items: Numbers) -> Numbers:
        """The pictures that make up these items, in ascending order."""
        if self.templates is None:
            return np.unique(items)
        return np.flatnonzero(np.isin(self.templates.template, items))

    def _columns(self) -> list[NDArray[np.generic]]:
        columns: list[NDArray[np.generic]] = [] if self.people is None else [self.people]
        if self.pairs is not None:
            columns += [self.pairs.first, self.pairs.second, self.pairs.same]
            columns += [] if self.pairs.folds is None else [self.pairs.folds]
        if self.lookup is not None:
            columns += [self.lookup.gallery, *self.lookup.probes.values(), self.lookup.strangers]
        if self.templates is not None:
            columns += [self.templates.template, self.templates.media, self.templates.weight]
        return columns


def one_picture_each(people: Numbers) -> Lookup:
    """Enrolls the first picture of everybody who has several and looks up the others; of those who
    have one picture, that one is a stranger."""
    _, first, inverse, counts = np.unique(people, return_index=True, return_inverse=True, return_counts=True)
    later = np.ones(len(people), bool)
    later[first] = False
    return Lookup(
        gallery=first[counts > 1],
        probes={"all": np.flatnonzero(later & (counts[inverse] > 1))},
        strangers=first[counts == 1],
        ranks=(1, 5),
    )
