"""Low-resolution sets with a gallery: QMUL-TinyFace, QMUL-SurvFace and SCface, as their folders are.

None of them is aligned. TinyFace and SurvFace hold faces cut out tightly, SCface portraits and pieces of
surveillance pictures: a detector finds and aligns the faces (`pictures.crop_reader`). Crops of 112 x 112
that others aligned can lie in the same folders under the same names.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from calibration.datasets.dataset import Dataset, Lookup, Numbers
from calibration.datasets.pictures import crop_reader, pictures_in
from edge_fr.detect import Detector
from edge_fr.errors import InputError

_TINYFACE = "TinyFace's Testing_Set with Probe/, Gallery_Match/ and Gallery_Distractor/"
_SURVFACE = "SurvFace's Face_Identification_Test_Set with gallery/, mated_probe/ and unmated_probe/"
_SCFACE = "SCface's mugshot_frontal_cropped_all/ and surveillance_cameras_distance_1/ to _3/"
_STRANGER = -1


def tinyface(folder: Path, detector: Detector | None) -> Dataset:
    """`tinyface:DIR`: Probe/ is looked up in Gallery_Match/ and Gallery_Distractor/ together.

    Names are <person>_<anything>.jpg, and distractors whoever they are; rank-1, 5 and 20 count pictures.
    """
    folder = folder / "Testing_Set" if (folder / "Testing_Set").is_dir() else folder
    probes, enrolled, distractors = (
        pictures_in(folder / part, expected=_TINYFACE)
        for part in ("Probe", "Gallery_Match", "Gallery_Distractor")
    )
    return _dataset(
        "TinyFace", folder, [*enrolled, *distractors], {"all": probes}, [], len(enrolled), detector
    )


def survface(folder: Path, detector: Detector | None) -> Dataset:
    """`survface:DIR`, open set: mated_probe/ and unmated_probe/ are looked up in gallery/.

    Names are <person>_cam<c>_<n>.jpg, which say what the .mat files beside them say; strangers may be
    called anything. FNIR counts a probe as found within the first 20 gallery pictures, each ranked singly.
    Public evaluations fuse a person's gallery pictures first: figures here are pessimistic, and not
    comparable with theirs.
    """
    below = folder / "Face_Identification_Test_Set"
    folder = below if below.is_dir() else folder
    gallery, probes, strangers = (
        pictures_in(folder / part, expected=_SURVFACE) for part in ("gallery", "mated_probe", "unmated_probe")
    )
    return _dataset("SurvFace", folder, gallery, {"all": probes}, strangers, len(gallery), detector)


def scface(folder: Path, detector: Detector | None) -> Dataset:
    """`scface:DIR`: cameras 1 to 5 at three distances, looked up among the mugshots; rank-1 by distance.

    Names are <person>_frontal.jpg and <person>_cam<c>_<distance>.jpg; distance 1 is the farthest (4.2 m),
    3 the nearest (1.0 m). The infrared cameras 6 to 8 are left out, as the field does.
    """
    mugshots = pictures_in(folder / "mugshot_frontal_cropped_all", expected=_SCFACE)
    probes: dict[str, list[Path]] = {}
    for distance in (1, 2, 3):
        there = pictures_in(folder / f"surveillance_cameras_distance_{distance}", expected=_SCFACE)
        pattern = re.compile(rf"\d+_cam[1-5]_{distance}", re.IGNORECASE)
        probes[f"distance {distance}"] = [path for path in there if pattern.fullmatch(path.stem)]
        if not probes[f"distance {distance}"]:
            raise InputError(
                f"{there[0].parent} has no picture such as 001_cam1_{distance}.jpg; expected {_SCFACE}"
            )
    return _dataset("SCface", folder, mugshots, probes, [], len(mugshots), detector)


def _dataset(
    title: str,
    folder: Path,
    gallery: list[Path],
    probes: dict[str, list[Path]],
    strangers: list[Path],
    labelled: int,
    detector: Detector | None,
) -> Dataset:
    """A dataset whose probes and first `labelled` gallery pictures have the person in their name."""
    files, groups = list(gallery), {}
    people = [_person(path) for path in gallery[:labelled]] + [_STRANGER] * (len(gallery) - labelled)
    for group, paths in probes.items():
        groups[group] = _next(files, paths)
        people += [_person(path) for path in paths]
    absent = sorted(set(people[len(gallery) :]) - set(people[:labelled]))
    if absent:
        raise InputError(
            f"{folder}: {len(absent)} people among the probes are not in the gallery: {absent[:5]}"
        )
    numbers = _next(files, strangers)
    people += [_STRANGER] * len(strangers)
    whole: set[str] = set()
    return Dataset(
        title=title,
        names=tuple(path.relative_to(folder).as_posix() for path in files),
        read=crop_reader(files, folder, detector, whole),
        people=np.array(people, np.int64),
        lookup=Lookup(
            gallery=np.arange(len(gallery)),
            probes=groups,
            strangers=numbers,
            fpirs=(1e-2, 1e-1, 2e-1, 3e-1),
            open_rank=20,
        ),
        whole=whole,
    )


def _next(files: list[Path], paths: list[Path]) -> Numbers:
    """Appends the paths, and gives their numbers."""
    files += paths
    return np.arange(len(files) - len(paths), len(files))


def _person(path: Path) -> int:
    match = re.match(r"(\d{1,9})_", path.name)
    if match is None:
        raise InputError(f"{path}: expected a name that begins with the person's number, such as 12_1.jpg")
    return int(match[1])
