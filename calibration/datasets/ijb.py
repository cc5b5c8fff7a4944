"""IJB-B and IJB-C in the form in which insightface passes them on.

meta/ijbc_name_5pts_score.txt      picture, five landmarks, detector score
meta/ijbc_face_tid_mid.txt         picture, template, media (the photograph or video)
meta/ijbc_template_pair_label.txt  template, template, 1 for one person
loose_crop/                        the pictures
"""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from calibration.datasets.dataset import Crops, Dataset, Numbers, PairList, Templates
from calibration.datasets.pictures import read_lines, require_files
from edge_fr.errors import InputError
from edge_fr.image import align, read_image

_Number = TypeVar("_Number", np.float32, np.int64)

FARS = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6)


def ijb(folder: Path) -> Dataset:
    """`ijb:DIR`, 1:1 verification of templates; DIR is IJBB or IJBC.

    Nobody is named in the lists: whom the genuine pairs connect is one person.
    """
    prefix = next(
        (p for p in ("ijbc", "ijbb") if (folder / "meta" / f"{p}_name_5pts_score.txt").is_file()), None
    )
    if prefix is None:
        raise InputError(
            f"{folder}/meta has no ijbb_name_5pts_score.txt and no ijbc_name_5pts_score.txt; expected "
            f"insightface's folder IJBB or IJBC with meta/ and loose_crop/"
        )
    names, landmarks, scores = _landmarks(folder / "meta" / f"{prefix}_name_5pts_score.txt")
    template, media = _templates(folder / "meta" / f"{prefix}_face_tid_mid.txt", names)
    known, numbered = np.unique(template, return_inverse=True)
    first, second, same = _pairs(folder / "meta" / f"{prefix}_template_pair_label.txt", known)
    files = [folder / "loose_crop" / name for name in names]
    require_files(files, folder / "meta")

    def read(i: int) -> NDArray[np.uint8]:
        (crop,) = align(read_image(files[i]), landmarks[i][None])
        return np.asarray(crop, np.uint8)

    return Dataset(
        title=prefix.upper().replace("IJB", "IJB-"),
        names=names,
        read=Crops(read),
        people=connected(len(known), first[same], second[same]),
        pairs=PairList(first, second, same, fars=FARS),
        templates=Templates(np.asarray(numbered, np.int64), media, scores),
    )


def connected(count: int, first: Numbers, second: Numbers) -> Numbers:
    """Numbers of the groups into which the links first-second join `count` things, by their least one."""
    group = np.arange(count)
    while True:
        least = np.minimum(group[first], group[second])
        joined = group.copy()
        np.minimum.at(joined, first, least)
        np.minimum.at(joined, second, least)
        joined = joined[joined]
        if np.array_equal(joined, group):
            return np.asarray(np.unique(group, return_inverse=True)[1], np.int64)
        group = joined


def _landmarks(path: Path) -> tuple[tuple[str, ...], NDArray[np.float32], NDArray[np.float32]]:
    expected = "lines of a picture's name, x and y of five landmarks, and the detector's score"
    rows = [line.split() for line in read_lines(path, expected=expected)]
    for number, row in enumerate(rows, 1):
        if len(row) != 12:
            raise InputError(f"{path}, line {number}: {len(row)} words; expected {expected}")
    values = _numbers([row[1:] for row in rows], np.float32, path, expected)
    return tuple(row[0] for row in rows), values[:, :10].reshape(-1, 5, 2), values[:, 10]


def _templates(path: Path, names: tuple[str, ...]) -> tuple[Numbers, Numbers]:
    expected = "lines of a picture's name, its template and its media, in the order of the landmarks"
    rows = [line.split() for line in read_lines(path, expected=expected)]
    if len(rows) != len(names):
        raise InputError(f"{path} has {len(rows)} lines for {len(names)} pictures; expected {expected}")
    for number, (row, name) in enumerate(zip(rows, names, strict=True), 1):
        if len(row) != 3 or row[0] != name:
            raise InputError(
                f"{path}, line {number}: {' '.join(row)!r} where {name} is due; expected {expected}"
            )
    values = _numbers([row[1:] for row in rows], np.int64, path, expected)
    return values[:, 0], values[:, 1]


def _pairs(path: Path, known: Numbers) -> tuple[Numbers, Numbers, NDArray[np.bool_]]:
    """The pairs by the place of their templates in `known`, which is sorted."""
    expected = "lines of two templates and 1 for one person, 0 for two"
    if not path.is_file() or path.stat().st_size == 0:
        raise InputError(f"{path} is missing or empty; expected {expected}")
    try:
        # 15 million lines: too many to split them in Python
        table = np.loadtxt(path, np.int64, ndmin=2)
    except ValueError as error:
        raise InputError(f"{path}: {error}; expected {expected}") from error
    if table.shape[1:] != (3,) or not np.isin(table[:, 2], (0, 1)).all():
        raise InputError(
            f"{path} has {table.shape[1]} columns or other labels than 0 and 1; expected {expected}"
        )
    ends = table[:, :2]
    unknown = ends[~np.isin(ends, known)]
    if unknown.size:
        raise InputError(f"{path} names template {unknown[0]}, which has no pictures; expected {expected}")
    first, second = np.searchsorted(known, ends.T)
    return first, second, table[:, 2] == 1


def _numbers(rows: list[list[str]], kind: type[_Number], path: Path, expected: str) -> NDArray[_Number]:
    try:
        values: NDArray[_Number] = np.array(rows).astype(kind)
    except ValueError as error:
        raise InputError(f"{path}: {error}; expected {expected}") from error
    if not np.isfinite(values).all():
        raise InputError(f"{path} has values that are no finite numbers; expected {expected}")
    return values
