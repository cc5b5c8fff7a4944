"""Labelled pictures for evaluation: aligned crops, who is on them, and which pairs to compare."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from edge_fr.image import read_image
from numpy.typing import NDArray

from edge_fr.errors import InputError


@dataclass(frozen=True, eq=False)
class Dataset:
    """`names` and `people` (N,) of the pictures; `first`, `second` (P,) picture numbers of the pairs,
    `folds` (P,) for cross-validation; `read(i)` gives a (112, 112, 3) uint8 BGR crop."""

    title: str
    names: tuple[str, ...]
    people: NDArray[np.int64]
    first: NDArray[np.int64]
    second: NDArray[np.int64]
    folds: NDArray[np.int64]
    read: Callable[[int], NDArray[np.uint8]]

    @property
    def same(self) -> NDArray[np.bool_]:
        """(P,) whether both pictures of a pair show one person."""
        return np.asarray(self.people[self.first] == self.people[self.second])

    @cached_property
    def digest(self) -> str:
        """sha256 over the names, the pairs and all pixels: two reports speak of the same data."""
        sha = hashlib.sha256("\n".join(self.names).encode())
        for column in (self.people, self.first, self.second, self.folds):
            sha.update(np.ascontiguousarray(column, "<i8").tobytes())
        for i in range(len(self.names)):
            sha.update(self.read(i).tobytes())
        return f"sha256:{sha.hexdigest()}"


def open_dataset(name: str) -> Dataset:
    """`lfw:DIR` (pairs.txt beside aligned112/), `people:DIR` (one folder a person; all genuine pairs and
    as many seeded impostor pairs)."""
    kind, _, where = name.partition(":")
    readers = {"lfw": _lfw, "people": _people}
    if kind not in readers or not where:
        expected = " or ".join(f"{kind}:DIR" for kind in readers)
        raise InputError(f"unknown dataset {name!r}, expected {expected}")
    folder = Path(where)
    if not folder.is_dir():
        raise InputError(f"{name}: there is no folder {folder}")
    return readers[kind](folder)


def _from_files(
    title: str, files: list[Path], owners: list[str], pairs: list[tuple[int, int]], folds: list[int]
) -> Dataset:
    number = {owner: i for i, owner in enumerate(sorted(set(owners)))}
    first, second = np.array(pairs, np.int64).reshape(-1, 2).T
    return Dataset(
        title=title,
        names=tuple(file.name for file in files),
        people=np.array([number[owner] for owner in owners], np.int64),
        first=first,
        second=second,
        folds=np.array(folds, np.int64),
        read=lambda i: _crop(files[i]),
    )


def _crop(path: Path) -> NDArray[np.uint8]:
    image = read_image(path)
    if image.shape != (112, 112, 3):
        raise InputError(f"{path} is {image.shape[1]}x{image.shape[0]}, expected an aligned 112x112 crop")
    return image


def _lfw(folder: Path) -> Dataset:
    """The 6,000 standard pairs in their ten folds of 600."""
    lines = (folder / "pairs.txt").read_text().splitlines()
    fold_count, half = (int(word) for word in lines[0].split())
    index: dict[tuple[str, int], int] = {}
    pairs = []
    for line in lines[1:]:
        words = line.split("\t")
        if len(words) not in (3, 4):
            raise InputError(f"{folder / 'pairs.txt'}: cannot read the line {line!r}")
        other = words[0] if len(words) == 3 else words[2]
        ends = ((words[0], int(words[1])), (other, int(words[-1])))
        pairs.append(tuple(index.setdefault(end, len(index)) for end in ends))
    files = [folder / "aligned112" / f"{person}_{number:04d}.jpg" for person, number in index]
    folds = [i // (2 * half) for i in range(2 * half * fold_count)]
    return _from_files("LFW", files, [person for person, _ in index], pairs, folds)  # type: ignore[arg-type]


def _people(folder: Path) -> Dataset:
    """Every genuine pair of a folder of people, and as many impostor pairs drawn with a fixed seed."""
    files = sorted(path for path in folder.glob("*/*") if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
    owners = [path.parent.name for path in files]
    genuine = [(i, j) for i in range(len(files)) for j in range(i + 1, len(files)) if owners[i] == owners[j]]
    if not genuine:
        raise InputError(f"{folder}: no person has two pictures; expected one folder a person")
    rng = np.random.default_rng(0)
    impostors: set[tuple[int, int]] = set()
    while len(impostors) < len(genuine):
        i, j = sorted(rng.integers(0, len(files), 2).tolist())
        if owners[i] != owners[j]:
            impostors.add((i, j))
    pairs = genuine + sorted(impostors)
    folds = rng.integers(0, 10, len(pairs)).tolist()
    return _from_files(folder.name, files, owners, pairs, folds)
