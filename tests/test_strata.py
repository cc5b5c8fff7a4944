"""The calibration set: stated shares, seeded, from the runtime's own faces, without those of the tests."""

from __future__ import annotations

import hashlib
from pathlib import Path

import cv2
import drawn_people
import numpy as np
import pytest
import skimage.data

from calibration.faces import Forbidden, gather_aligned, gather_faces
from calibration.strata import FACES, FRAMES, CalibrationSet, stratify, with_shares
from edge_fr.errors import InputError
from edge_fr.quality import QualityGate, QualityPolicy

CROPS = [drawn_people.crop("a", i) for i in range(40)]


def test_the_strata_get_their_shares_and_every_face_is_used_once() -> None:
    assert sum(stratum.share for stratum in FACES.values()) == pytest.approx(1)
    assert sum(stratum.share for stratum in FRAMES.values()) == pytest.approx(1)
    found = stratify(CROPS, FACES)
    assert {name: len(rows) for name, rows in found.strata.items()} == {
        "clean": 14,
        "low_resolution": 10,
        "blur_noise_jpeg": 6,
        "masked": 6,
        "dark_or_turned": 4,
    }
    originals = {crop.tobytes() for crop in CROPS}
    clean = {crop.tobytes() for crop in found.strata["clean"]}
    assert len(clean) == 14
    assert clean < originals
    for name in ("low_resolution", "blur_noise_jpeg", "masked", "dark_or_turned"):
        assert not {crop.tobytes() for crop in found.strata[name]} & originals, name


def test_the_same_seed_gives_the_same_pixels_and_digest() -> None:
    assert stratify(CROPS, FACES, seed=3).digest == stratify(CROPS, FACES, seed=3).digest
    assert stratify(CROPS, FACES, seed=3).digest != stratify(CROPS, FACES, seed=4).digest
    one = stratify(CROPS, FACES).strata
    changed = {name: rows.copy() for name, rows in one.items()}
    changed["masked"][0, 0, 0, 0] ^= 1
    assert CalibrationSet(changed).digest != CalibrationSet(one).digest


def test_each_face_is_degraded_in_its_own_way() -> None:
    for name, rows in stratify([CROPS[0]] * 40, FACES).strata.items():
        assert len({crop.tobytes() for crop in rows}) == (1 if name == "clean" else len(rows)), name


def test_faces_that_came_turned_make_up_half_of_their_stratum_and_are_left_as_they_are() -> None:
    turned = np.zeros(40, np.bool_)
    turned[[5, 6, 7]] = True
    found = stratify(CROPS, FACES, turned=turned).strata["dark_or_turned"]
    sideways = {CROPS[i].tobytes() for i in (5, 6, 7)}
    assert sum(crop.tobytes() in sideways for crop in found) == 2  # half of four


def test_the_shares_can_be_told_and_keep_the_strata_s_order() -> None:
    told = with_shares("masked=0.25,clean=0.75", FACES)
    assert {name: stratum.share for name, stratum in told.items()} == {"clean": 0.75, "masked": 0.25}
    turned = np.ones(40, np.bool_)
    found = stratify(CROPS, told, turned=turned).strata
    assert {name: len(rows) for name, rows in found.items()} == {"clean": 30, "masked": 10}
    originals = {crop.tobytes() for crop in CROPS}
    # Turned faces are put aside for a stratum that this set has not: all ten wear masks.
    assert not {crop.tobytes() for crop in found["masked"]} & originals
    alone = stratify(CROPS, with_shares("clean=1", FACES), turned=turned).strata
    assert {crop.tobytes() for crop in alone["clean"]} == originals


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("clean=0.5,rainy=0.5", "'rainy' is none of clean, low_resolution,"),
        ("clean", "'clean', expected such as clean=0.5"),
        ("clean=0.5,masked=0.4", "expected shares above 0 that make 1"),
        ("clean=1.5,masked=-0.5", "expected shares above 0 that make 1"),
        ("clean=nan", "expected shares above 0 that make 1"),
    ],
)
def test_shares_that_cannot_be_dealt_are_refused(text: str, complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        with_shares(text, FACES)


def test_a_stratum_that_would_be_empty_is_named() -> None:
    with pytest.raises(InputError, match="9 pictures leave dark_or_turned empty"):
        stratify(CROPS[:9], FACES)


def test_a_dark_face_is_darker_and_a_small_frame_is_in_the_corner() -> None:
    rng = np.random.default_rng(0)
    assert FACES["dark_or_turned"].render(CROPS[0], rng).mean() < 0.6 * CROPS[0].mean()
    small = FRAMES["small"].render(np.full((64, 96, 3), 200, np.uint8), rng)
    assert small.shape == (64, 96, 3)
    assert small[0, 0].tolist() == [200] * 3
    assert not small[33:].any()
    assert not small[:, 49:].any()


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    """A folder with a portrait, the same too small to be recognised, and no face at all."""
    astronaut = skimage.data.astronaut()[:, :, ::-1]
    tiny = np.zeros_like(astronaut)
    tiny[:72, :72] = cv2.resize(astronaut, (72, 72), interpolation=cv2.INTER_AREA)
    for name, image in (
        ("grace_01", astronaut),
        ("tiny", tiny),
        ("wall", np.full((200, 200, 3), 90, np.uint8)),
    ):
        assert cv2.imwrite(str(tmp_path / f"{name}.png"), image)
    return tmp_path


def test_faces_go_through_the_runtimes_detector_gate_and_aligner(photographs: Path) -> None:
    from edge_fr.detect import Detector
    from edge_fr.engine import open_engine
    from edge_fr.errors import ModelNotFoundError
    from edge_fr.models import resolve

    try:
        detector = Detector(open_engine(resolve("yunet")))
    except ModelNotFoundError as error:
        pytest.skip(f"needs the detector: {error}")
    found = gather_faces(photographs, detector, QualityGate(QualityPolicy.without_index()), None)
    golden = cv2.imread(str(Path(__file__).parent / "golden" / "astronaut_112.png"))
    assert len(found.crops) == 1
    assert found.turned == [False]
    # grey levels; the golden crop was cut by the same stages
    assert np.abs(found.crops[0].astype(int) - golden).mean() < 3
    assert "wall.png" in found.faceless
    strict = QualityGate(QualityPolicy(min_inter_eye_px=500.0))
    refused = gather_faces(photographs, detector, strict, None)
    assert refused.crops == []
    assert refused.refused == refused.reasons["inter_eye_distance"] >= 1


def test_aligned_crops_are_taken_as_such_only_when_asked_for(tmp_path: Path) -> None:
    drawn_people.write(tmp_path / "crop.png", "a", 1)
    assert len(gather_aligned(tmp_path, None).crops) == 1
    drawn_people.write(tmp_path / "photograph.png", "a", 2, side=150)
    with pytest.raises(InputError, match=r"photograph\.png is 150x150, expected an aligned crop of 112x112"):
        gather_aligned(tmp_path, None)


@pytest.mark.parametrize("form", ["folder", "picture's name", "person's name", "digest"])
def test_a_picture_of_the_tests_is_refused_by_name(tmp_path: Path, form: str) -> None:
    mine = [
        drawn_people.write(tmp_path / "mine" / f"{name}.png", name, 1) for name in ("Ada_0001", "Bob_0002")
    ]
    digest = f"sha256:{hashlib.sha256(mine[0].read_bytes()).hexdigest()}"
    listed = tmp_path / "tests.csv"
    if form == "folder":
        listed = tmp_path / "tests"
        listed.mkdir()
        (listed / "renamed.png").write_bytes(mine[0].read_bytes())
    else:
        name = {"picture's name": "Ada_0001.png", "person's name": "Ada", "digest": digest}[form]
        listed.write_text(f"{name},seen\n")
    with pytest.raises(InputError, match=r"1 of 2 pictures must not .*Ada_0001\.png"):
        gather_aligned(tmp_path / "mine", Forbidden(listed))


def test_pictures_of_others_are_not_refused(tmp_path: Path) -> None:
    drawn_people.write(tmp_path / "mine" / "Ada_0001.png", "Ada", 1)
    (tmp_path / "tests.csv").write_text("Adam\n0001\n")
    assert len(gather_aligned(tmp_path / "mine", Forbidden(tmp_path / "tests.csv")).crops) == 1


def test_an_empty_list_of_test_pictures_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "tests.csv").write_text("\n")
    with pytest.raises(InputError, match=r"tests\.csv is empty"):
        Forbidden(tmp_path / "tests.csv")
    with pytest.raises(InputError, match="cannot be read"):
        Forbidden(tmp_path / "absent.csv")
