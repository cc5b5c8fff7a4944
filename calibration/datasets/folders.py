"""Folders of aligned crops: LFW with its list of pairs, and a folder for each person."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import numpy as np

from calibration.datasets.dataset import Dataset, Numbers, PairList, one_picture_each
from calibration.datasets.pictures import SUFFIXES, crop_reader, read_lines, require_files
from edge_fr.detect import Detector
from edge_fr.errors import InputError

REPORTED = ("clean", "px8", "px12", "px16", "px24", "mask", "mask+px24")
_PAIRS_TXT = "LFW's list: '10<TAB>300', then 6000 lines 'name<TAB>n<TAB>n' or 'name<TAB>n<TAB>name<TAB>n'"

Picture = tuple[str, int]


def lfw(folder: Path, detector: Detector | None) -> Dataset:
    """`lfw:DIR`, pairs.txt beside aligned112/<name>_<nnnn>.jpg: the 6,000 standard pairs in ten folds."""
    source = folder / "pairs.txt"
    lines = read_lines(source, expected=_PAIRS_TXT)
    try:
        fold_count, half = (int(word) for word in lines[0].split())
    except ValueError as error:
        raise InputError(
            f"{source}: cannot read the first line {lines[0]!r}; expected {_PAIRS_TXT}"
        ) from error
    ends = [_ends(line, number, source) for number, line in enumerate(lines[1:], 2)]
    if not ends or len(ends) != 2 * half * fold_count:
        raise InputError(
            f"{source} has {len(ends)} pairs, expected {2 * half * fold_count}: its first line announces "
            f"{fold_count} folds of {half} genuine and {half} impostor pairs"
        )
    index: dict[Picture, int] = {}
    pairs = np.array([[index.setdefault(end, len(index)) for end in pair] for pair in ends], np.int64)
    files = [folder / "aligned112" / f"{person}_{number:04d}.jpg" for person, number in index]
    require_files(files, source)
    people = _numbered([person for person, _ in index])
    whole: set[str] = set()
    return Dataset(
        title="LFW",
        names=tuple(file.name for file in files),
        read=crop_reader(files, folder, detector, whole),
        people=people,
        pairs=PairList(
            first=pairs[:, 0],
            second=pairs[:, 1],
            same=people[pairs[:, 0]] == people[pairs[:, 1]],
            folds=np.arange(len(pairs)) // (2 * half),
        ),
        lookup=one_picture_each(people),
        conditions=REPORTED,
        whole=whole,
    )


def people(folder: Path, detector: Detector | None) -> Dataset:
    """`people:DIR`, one folder a person: every genuine pair, and as many seeded impostor pairs."""
    files = sorted(path for path in folder.glob("*/*") if path.suffix.lower() in SUFFIXES)
    owners = _numbered([path.parent.name for path in files])
    of_each = [np.flatnonzero(owners == owner).tolist() for owner in np.unique(owners)]
    genuine = [pair for pictures in of_each for pair in combinations(pictures, 2)]
    if not genuine or len(of_each) < 2:
        raise InputError(
            f"{folder} holds {len(files)} pictures of {len(of_each)} people, expected one folder a person, "
            f"at least two people, and two pictures of one of them"
        )
    rng = np.random.default_rng(0)
    pairs = np.array(genuine + _impostors(owners, len(genuine), rng), np.int64)
    whole: set[str] = set()
    return Dataset(
        title=folder.name,
        names=tuple(file.relative_to(folder).as_posix() for file in files),
        read=crop_reader(files, folder, detector, whole),
        people=owners,
        pairs=PairList(
            first=pairs[:, 0],
            second=pairs[:, 1],
            same=owners[pairs[:, 0]] == owners[pairs[:, 1]],
            folds=rng.integers(0, 10, len(pairs)),
        ),
        lookup=one_picture_each(owners),
        whole=whole,
    )


def _ends(line: str, number: int, source: Path) -> tuple[Picture, Picture]:
    words = line.split("\t")
    if len(words) not in (3, 4) or not (words[1].isdecimal() and words[-1].isdecimal()):
        raise InputError(f"{source}, line {number}: cannot read {line!r}; expected {_PAIRS_TXT}")
    other = words[0] if len(words) == 3 else words[2]
    return (words[0], int(words[1])), (other, int(words[-1]))


def _numbered(owners: list[str]) -> Numbers:
    return np.asarray(np.unique(np.array(owners, str), return_inverse=True)[1], np.int64)


def _impostors(owners: Numbers, count: int, rng: np.random.Generator) -> list[tuple[int, int]]:
    """`count` different pairs of two people, or all there are."""
    possible = len(owners) * (len(owners) - 1) // 2 - sum(n * (n - 1) // 2 for n in np.bincount(owners))
    if possible <= 2 * count:  # drawing would take long to find the last ones
        pairs = [pair for pair in combinations(range(len(owners)), 2) if owners[pair[0]] != owners[pair[1]]]
        chosen = rng.permutation(len(pairs))[:count]
        return sorted(pairs[i] for i in chosen)
    drawn: set[tuple[int, int]] = set()
    while len(drawn) < count:
        i, j = sorted(rng.integers(0, len(owners), 2).tolist())
        if owners[i] != owners[j]:
            drawn.add((i, j))
    return sorted(drawn)
