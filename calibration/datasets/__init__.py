"""Labelled pictures for evaluation, read in the forms in which the field passes them on."""

from __future__ import annotations

from pathlib import Path

from calibration.datasets.dataset import Dataset
from calibration.datasets.folders import lfw, people
from calibration.datasets.ijb import ijb
from calibration.datasets.insightface_bin import insightface_bin
from calibration.datasets.surveillance import scface, survface, tinyface
from edge_fr.detect import Detector
from edge_fr.errors import InputError

FORMS = "lfw:DIR, people:DIR, bin:FILE, tinyface:DIR, survface:DIR, scface:DIR or ijb:DIR"


def open_dataset(name: str, detector: Detector | None = None) -> Dataset:
    """Opens FORM:PATH, where the form is one of FORMS.

    The detector is for pictures that are not aligned crops and have no landmarks. Labels are read here
    and files looked for; pictures are decoded when they are used. InputError says what is missing or
    damaged.
    """
    form, _, where = name.partition(":")
    path = Path(where)
    folders = {"lfw": lfw, "people": people, "tinyface": tinyface, "survface": survface, "scface": scface}
    if form not in (*folders, "bin", "ijb") or not where:
        raise InputError(f"unknown dataset {name!r}, expected {FORMS}")
    if form == "bin":
        dataset = insightface_bin(path)
    elif not path.is_dir():
        raise InputError(f"{name}: there is no folder {path}")
    else:
        dataset = ijb(path) if form == "ijb" else folders[form](path, detector)
    if dataset.pairs is not None and len(set(dataset.pairs.same.tolist())) < 2:
        what = "one person" if dataset.pairs.same.all() else "two people"
        raise InputError(
            f"{name}: all {len(dataset.pairs.same)} pairs show {what}, expected pairs of both kinds"
        )
    return dataset
