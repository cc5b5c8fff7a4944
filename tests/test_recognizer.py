"""The kiosk's object with the real models, on two public-domain portraits and what can go wrong with them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

import cv2
import numpy as np
import pytest
from fakes import FakeEngine, Feeds, card, spec
from numpy.typing import NDArray

from edge_fr.detect import Detector
from edge_fr.embed import Embedder
from edge_fr.engine import open_engine
from edge_fr.errors import (
    EnrollmentError,
    GalleryFileError,
    GalleryModelError,
    ImageError,
    InputError,
    UnknownIdentityError,
)
from edge_fr.gallery import Gallery, score_threshold
from edge_fr.models import resolve
from edge_fr.networks import open_networks
from edge_fr.pipeline import open_pipeline
from edge_fr.quality import QualityPolicy
from edge_fr.recognizer import Recognizer
from edge_fr.structures import Frame
from samples.standoff_people import COLLINS, HOPPER, portrait

COLLINS_PHOTO, HOPPER_PHOTO = portrait(COLLINS), portrait(HOPPER)


@pytest.fixture(scope="module")
def opened() -> Iterator[Recognizer]:
    with Recognizer.open() as recognizer:
        yield recognizer


@pytest.fixture
def recognizer(opened: Recognizer) -> Recognizer:
    """The models loaded once, with nobody enrolled."""
    for person in opened.gallery.identities():
        opened.gallery.remove(person.identity)
    return opened


def changed(photo: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Another shot of the same person: mirrored, darker, noisier, a little turned."""
    height, width = photo.shape[:2]
    turn = cv2.getRotationMatrix2D((width / 2, height / 2), 6, 0.9)
    noise = np.random.default_rng(0).normal(0, 4, photo.shape)
    image = cv2.warpAffine(photo[:, ::-1].copy(), turn, (width, height), borderValue=(90, 90, 90))
    return np.clip(image * 0.8 + noise, 0, 255).astype(np.uint8)


def far_away(photo: NDArray[np.uint8], factor: float) -> NDArray[np.uint8]:
    """The picture shrunk onto a grey wall of the same size."""
    small = cv2.resize(photo, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
    wall = np.full_like(photo, 110)
    wall[40 : 40 + small.shape[0], 40 : 40 + small.shape[1]] = small
    return wall


def test_what_is_no_picture_is_refused_with_the_call_that_makes_one(recognizer: Recognizer) -> None:
    lists = COLLINS_PHOTO[:4, :4].tolist()
    for asked in (recognizer.analyze, recognizer.identify):
        with pytest.raises(InputError, match=r"got list; np\.asarray\(picture, np\.uint8\) makes one"):
            asked(lists)  # type: ignore[operator]
    with pytest.raises(EnrollmentError, match=r"picture 1: .* got list; np\.asarray"):
        recognizer.enroll("Eileen", [lists])  # type: ignore[list-item]
    with pytest.raises(
        InputError, match="pictures are a path, an array of NumPy, or several of them, got int"
    ):
        recognizer.enroll("Eileen", 7)  # type: ignore[arg-type]


def test_a_person_is_verified_from_another_shot_and_a_stranger_is_not(recognizer: Recognizer) -> None:
    recognizer.enroll("Eileen", COLLINS_PHOTO)
    same = recognizer.verify(changed(COLLINS_PHOTO), "Eileen")
    assert same.status == "match"
    assert same
    other = recognizer.verify(HOPPER_PHOTO, "Eileen")
    assert other.status == "no match"
    assert not other
    assert other.score is not None
    assert same.score is not None
    assert other.score < same.threshold <= same.score


def test_what_is_enrolled_lies_between_the_face_and_its_mirror_image(recognizer: Recognizer) -> None:
    recognizer.enroll("Eileen", COLLINS_PHOTO)
    (face,) = recognizer.analyze(COLLINS_PHOTO)
    assert face.crop is not None
    embedder = Embedder(open_engine(resolve("recognizer")))
    image, mirrored = embedder.embed(np.stack([face.crop, face.crop[:, ::-1]])).vectors
    assert image @ mirrored < 0.99
    (template,) = recognizer.gallery.templates("Eileen")
    assert template @ image == pytest.approx(template @ mirrored, abs=1e-4)
    assert template @ image == pytest.approx(((1 + image @ mirrored) / 2) ** 0.5, abs=1e-4)


def test_each_face_of_a_picture_gets_its_own_answer_largest_first(recognizer: Recognizer) -> None:
    recognizer.enroll("Eileen", COLLINS_PHOTO)
    height = 300
    pair = [
        cv2.resize(photo, (round(photo.shape[1] * height / photo.shape[0]), height))
        for photo in (changed(COLLINS_PHOTO), HOPPER_PHOTO)
    ]
    answers = recognizer.identify(np.hstack(pair))
    found = {(answer.decision.status, answer.decision.identity) for answer in answers}
    assert found == {("known", "Eileen"), ("unknown", None)}
    areas = [float(np.prod(a.face.box[2:] - a.face.box[:2])) for a in answers]
    assert areas == sorted(areas, reverse=True)


def test_a_face_too_small_to_tell_is_unrecognizable_with_the_reasons(recognizer: Recognizer) -> None:
    recognizer.enroll("Eileen", COLLINS_PHOTO)
    answer = recognizer.verify(far_away(COLLINS_PHOTO, 0.11), "Eileen")
    assert (answer.status, answer.score) == ("unrecognizable", None)
    assert any("head size" in reason for reason in answer.reasons)
    (found,) = recognizer.identify(far_away(COLLINS_PHOTO, 0.11))
    assert found.decision.status == "unrecognizable"
    assert found.decision.refusals


@pytest.mark.parametrize(("ri", "status"), [(0.39, "unrecognizable"), (0.41, "no match")])
def test_a_picture_too_poor_to_find_an_enrolled_person_tells_nothing_of_a_stranger(
    ri: float, status: str
) -> None:
    def embedded(feeds: Feeds) -> dict[str, NDArray[np.float32]]:
        crops = feeds["x"]
        rows = np.eye(4, dtype=np.float32)[[0 if crop.mean() > 100 else 1 for crop in crops]]
        return {"embedding": rows, "ri": np.full((len(crops), 1), ri, np.float32)}

    model = card(impostor_scores={"1e-1": 0.2, "1e-4": 0.4})
    engine = FakeEngine(embedded, model, outputs=(spec("embedding", None, 4), spec("ri", None, 1)))
    detector = Detector(open_engine(resolve("yunet")))
    with Gallery.open(":memory:", model, create=True) as gallery:
        lenient = replace(QualityPolicy.enrollment(), min_recognizability=0.3)
        kiosk = Recognizer(detector, Embedder(engine), gallery, enrollment=lenient)
        kiosk.enroll("Eileen", COLLINS_PHOTO)
        dark = (COLLINS_PHOTO * 0.5).astype(np.uint8)
        assert kiosk.verify(COLLINS_PHOTO, "Eileen").status == "match"
        answer = kiosk.verify(dark, "Eileen")
        assert answer.status == status
        decision = kiosk.identify(dark)[0].decision
        assert decision.status == {"no match": "unknown"}.get(status, status)
        reasons = ["recognizability 0.39, needs at least 0.4"] if status == "unrecognizable" else []
        assert [str(refusal) for refusal in decision.refusals] == reasons
        assert list(answer.reasons) == [
            f"{reason} (come closer and look at the camera)" for reason in reasons
        ]
        assert answer.codes == ("recognizability",) * len(reasons)


def test_a_picture_without_a_face_says_so(recognizer: Recognizer) -> None:
    recognizer.enroll("Eileen", COLLINS_PHOTO)
    wall = np.full((240, 320, 3), 128, np.uint8)
    assert recognizer.identify(wall) == ()
    assert recognizer.verify(wall, "Eileen").reasons == ("no face found",)


def test_nobody_is_known_to_an_empty_gallery(recognizer: Recognizer) -> None:
    (answer,) = recognizer.identify(COLLINS_PHOTO)
    assert (answer.decision.status, answer.decision.candidates) == ("unknown", ())
    with pytest.raises(UnknownIdentityError, match="nobody called 'Eileen'"):
        recognizer.verify(COLLINS_PHOTO, "Eileen")


@pytest.mark.parametrize(
    ("picture", "reason"),
    [
        (np.full((240, 320, 3), 128, np.uint8), "no face found"),
        (np.hstack([COLLINS_PHOTO, COLLINS_PHOTO]), "2 faces found"),
        (far_away(COLLINS_PHOTO, 0.2), "not good enough to keep: .*needs at least"),
        (cv2.GaussianBlur(COLLINS_PHOTO, (0, 0), 7), "not good enough to keep: .*sharpness"),
    ],
    ids=["no face", "two faces", "too small", "too blurred"],
)
def test_a_picture_that_would_poison_the_gallery_is_refused_with_the_reason(
    recognizer: Recognizer, picture: NDArray[np.uint8], reason: str
) -> None:
    with pytest.raises(EnrollmentError, match=reason):
        recognizer.enroll("Eileen", picture)
    assert len(recognizer.gallery) == 0


def test_a_face_good_enough_to_be_recognized_may_be_too_poor_to_be_enrolled(recognizer: Recognizer) -> None:
    small = far_away(COLLINS_PHOTO, 0.3)
    (face,) = recognizer.analyze(small)
    assert face.refusals == ()
    with pytest.raises(EnrollmentError, match=r"not good enough to keep: .*needs at least 30 px"):
        recognizer.enroll("Eileen", small)


def test_good_pictures_are_kept_and_bad_ones_named(recognizer: Recognizer, tmp_path: Path) -> None:
    good, text, gone = tmp_path / "good.png", tmp_path / "text.jpg", tmp_path / "gone.jpg"
    cv2.imwrite(str(good), COLLINS_PHOTO)
    text.write_text("not a picture at all")
    result = recognizer.enroll("Eileen", [text, good, gone])
    assert result.kept == (str(good),)
    assert [name for name, _ in result.refused] == [str(text), str(gone)]
    assert "not a picture" in result.refused[0][1]
    (provenance,) = recognizer.gallery.provenance("Eileen")
    assert provenance.source == str(good)


def test_a_known_face_is_not_enrolled_under_a_second_name_unless_forced(recognizer: Recognizer) -> None:
    recognizer.enroll("Eileen", COLLINS_PHOTO)
    with pytest.raises(EnrollmentError, match="looks like 'Eileen', who is enrolled"):
        recognizer.enroll("Grace", changed(COLLINS_PHOTO))
    recognizer.enroll("Grace", changed(COLLINS_PHOTO), force=True)
    assert len(recognizer.gallery) == 2


def test_a_picture_of_another_person_is_not_added_to_a_known_one(recognizer: Recognizer) -> None:
    recognizer.enroll("Eileen", COLLINS_PHOTO)
    with pytest.raises(EnrollmentError, match="does not look like the other pictures of 'Eileen'"):
        recognizer.enroll("Eileen", HOPPER_PHOTO)
    assert recognizer.gallery.template_count == 1


def test_another_picture_is_compared_with_what_the_person_s_own_have_in_common() -> None:
    shown = np.eye(4, dtype=np.float32)

    def embedded(feeds: Feeds) -> dict[str, NDArray[np.float32]]:
        return {"embedding": np.tile(shown[:1], (len(feeds["x"]), 1))}

    model = card(impostor_scores={"1e-1": 0.2, "1e-2": 0.3, "1e-3": 0.4, "1e-4": 0.5})
    bound = score_threshold(model, 0.01, 1).score  # one comparison, however many pictures there are
    detector = Detector(open_engine(resolve("yunet")))
    with Gallery.open(":memory:", model, create=True) as gallery:
        kiosk = Recognizer(detector, Embedder(FakeEngine(embedded, model)), gallery)
        gallery.add("Eileen", np.eye(4, dtype=np.float32)[:2])
        gallery.add("Grace", np.repeat(np.eye(4, dtype=np.float32)[3:], 4, axis=0))
        for score, kept in ((bound - 0.001, False), (bound + 0.001, True)):
            along = score / np.sqrt(2)  # of each of the two pictures
            shown[0] = [along, along, np.sqrt(1 - 2 * along**2), 0]
            if kept:
                assert kiosk.enroll("Eileen", COLLINS_PHOTO).kept == ("picture 1",)
            else:
                with pytest.raises(
                    EnrollmentError, match="does not look like the other pictures of 'Eileen'"
                ):
                    kiosk.enroll("Eileen", COLLINS_PHOTO)


def test_of_several_pictures_those_are_kept_that_most_are_like(recognizer: Recognizer) -> None:
    others = [COLLINS_PHOTO, changed(COLLINS_PHOTO), cv2.convertScaleAbs(COLLINS_PHOTO, alpha=0.7)]
    result = recognizer.enroll("Eileen", [HOPPER_PHOTO, *others])
    assert result.kept == ("picture 2", "picture 3", "picture 4")
    ((name, reason),) = result.refused
    assert name == "picture 1"
    assert reason.startswith("does not look like the other pictures of 'Eileen'")
    assert recognizer.verify(COLLINS_PHOTO, "Eileen").status == "match"
    assert recognizer.verify(HOPPER_PHOTO, "Eileen").status == "no match"


def test_the_same_picture_many_times_is_one_template(recognizer: Recognizer) -> None:
    result = recognizer.enroll("Eileen", [COLLINS_PHOTO] * 10)
    assert (result.kept, recognizer.gallery.template_count) == (("picture 1",), 1)
    assert [reason for _, reason in result.refused] == ["the same picture as picture 1"] * 9
    again = recognizer.enroll("Eileen", COLLINS_PHOTO)
    assert (again.kept, again.refused) == ((), (("picture 1", "the same picture as one that is enrolled"),))
    assert recognizer.gallery.template_count == 1


def test_a_face_upside_down_is_neither_enrolled_nor_named(recognizer: Recognizer) -> None:
    recognizer.enroll("Eileen", COLLINS_PHOTO)
    for photo in (COLLINS_PHOTO, HOPPER_PHOTO):
        turned = cv2.rotate(photo, cv2.ROTATE_180)
        with pytest.raises(EnrollmentError, match="was not enrolled"):
            recognizer.enroll("somebody", turned)
        assert all(decision.identity is None for _, decision in recognizer.identify(turned))


def test_what_the_recognizer_itself_finds_hopeless_is_no_look_whatever_the_gate_guessed() -> None:
    def embedded(feeds: Feeds) -> dict[str, NDArray[np.float32]]:
        count = len(feeds["x"])
        row = np.eye(1, 4, dtype=np.float32)
        return {"embedding": np.repeat(row, count, 0), "ri": np.full((count, 1), 0.06, np.float32)}

    model = card(impostor_scores={"1e-1": 0.2, "1e-4": 0.4})
    engine = FakeEngine(embedded, model, outputs=(spec("embedding", None, 4), spec("ri", None, 1)))
    detector = Detector(open_engine(resolve("yunet")))
    with Gallery.open(":memory:", model, create=True) as gallery:
        gallery.add("Eileen", np.eye(1, 4, dtype=np.float32))
        kiosk = Recognizer(
            detector,
            Embedder(engine),
            gallery,
            recognizability=lambda crops: np.full(len(crops), 0.9, np.float32),
        )
        answer = kiosk.verify(COLLINS_PHOTO, "Eileen")
        assert (answer.status, answer.codes) == ("unrecognizable", ("recognizability",))
        assert kiosk.identify(COLLINS_PHOTO)[0].decision.status == "unrecognizable"
        with pytest.raises(EnrollmentError, match=r"recognizability 0\.06, needs at least 0\.4"):
            kiosk.enroll("Eileen", COLLINS_PHOTO)


def test_a_picture_that_may_be_the_person_s_and_is_not_like_enough_asks_for_a_better_one() -> None:
    shown = [0.0]

    def embedded(feeds: Feeds) -> dict[str, NDArray[np.float32]]:
        row = np.array([[shown[0], np.sqrt(1 - shown[0] ** 2), 0, 0]], np.float32)
        return {"embedding": np.repeat(row, len(feeds["x"]), 0)}

    model = card(impostor_scores={"1e-1": 0.2, "1e-5": 0.4}, genuine_scores={"ri>=0": 0.25})
    detector = Detector(open_engine(resolve("yunet")))
    with Gallery.open(":memory:", model, create=True) as gallery:
        gallery.add("Eileen", np.eye(1, 4, dtype=np.float32))
        kiosk = Recognizer(detector, Embedder(FakeEngine(embedded, model)), gallery)
        for score, status, codes in (
            (0.24, "no match", ()),
            (0.26, "unrecognizable", ("score",)),
            (0.39, "unrecognizable", ("score",)),
            (0.41, "match", ()),
        ):
            shown[0] = score
            answer = kiosk.verify(COLLINS_PHOTO, "Eileen")
            assert (answer.status, answer.codes) == (status, codes)
            assert answer.face is not None
            # 1 in 100,000 random pairs: of people alike ten times as many, 1 in 10,000 as asked
            assert answer.threshold == pytest.approx(0.4)


def test_models_serve_a_pipeline_too_and_what_only_continues_a_track_there_is_no_face_of_a_still() -> None:
    large, small = (cv2.resize(COLLINS_PHOTO, (px, px), interpolation=cv2.INTER_AREA) for px in (400, 160))
    picture = np.full((400, 640, 3), 100, np.uint8)
    picture[:, :400] = large
    picture[200:360, 440:600] = cv2.GaussianBlur(small, (0, 0), 5)
    networks = open_networks()
    strong, weak = networks.detector.detect(picture).scores
    assert 0.4 < weak < 0.6 < strong
    with Recognizer.open(networks=networks) as kiosk:
        assert kiosk.analyze(picture).scores.tolist() == [strong]
        assert kiosk.enroll("Eileen", picture).kept == ("picture 1",)  # not "2 faces found"
        camera = open_pipeline(kiosk.gallery, networks, stills=True)
        step = camera.process(Frame(picture, 0, datetime.now(timezone.utc)))
    assert [decision.identity for decision in step.decisions.values()] == ["Eileen", None]


def test_a_masked_face_is_enrolled_only_when_forced(recognizer: Recognizer) -> None:
    def masked(feeds: Feeds) -> dict[str, NDArray[np.float32]]:
        count = len(feeds["x"])
        row = np.eye(1, 4, dtype=np.float32)
        return {"embedding": np.repeat(row, count, 0), "mask_prob": np.full((count, 1), 0.93, np.float32)}

    model = card(impostor_scores={"1e-1": 0.2, "1e-4": 0.4})
    engine = FakeEngine(masked, model, outputs=(spec("embedding", None, 4), spec("mask_prob", None, 1)))
    detector = Detector(open_engine(resolve("yunet")))
    with Gallery.open(":memory:", model, create=True) as gallery:
        kiosk = Recognizer(detector, Embedder(engine), gallery)
        with pytest.raises(
            EnrollmentError, match=r"wears a mask \(93% sure\); take it off, or give force=True"
        ):
            kiosk.enroll("Eileen", COLLINS_PHOTO)
        assert kiosk.enroll("Eileen", COLLINS_PHOTO, force=True).kept == ("picture 1",)
        assert kiosk.identify(COLLINS_PHOTO)[0].decision.mask_prob == pytest.approx(0.93)


def test_grey_rgba_and_16_bit_pictures_of_one_person_agree(recognizer: Recognizer) -> None:
    recognizer.enroll("Eileen", COLLINS_PHOTO)
    grey = cv2.cvtColor(COLLINS_PHOTO, cv2.COLOR_BGR2GRAY)
    rgba = cv2.cvtColor(COLLINS_PHOTO, cv2.COLOR_BGR2BGRA)
    for picture in (grey, rgba, COLLINS_PHOTO.astype(np.uint16) * 257):
        assert recognizer.verify(picture, "Eileen").status == "match"


@pytest.mark.parametrize("shape", [(1, 1, 3), (20, 20_000, 3), (20_000, 20, 3)])
def test_pictures_of_absurd_shapes_hold_no_face_and_do_no_harm(
    recognizer: Recognizer, shape: tuple[int, int, int]
) -> None:
    assert len(recognizer.analyze(np.full(shape, 90, np.uint8))) == 0


def test_an_array_that_is_no_picture_is_refused(recognizer: Recognizer) -> None:
    with pytest.raises(ImageError, match="float64"):
        recognizer.analyze(np.full((100, 100, 3), np.nan))


def test_a_second_picture_under_a_sloppily_written_name_is_the_same_person(recognizer: Recognizer) -> None:
    recognizer.enroll("José", COLLINS_PHOTO)
    recognizer.enroll("  Jose\u0301 ", changed(COLLINS_PHOTO))
    assert [p.identity for p in recognizer.gallery.identities()] == ["José"]
    assert recognizer.gallery.template_count == 2


def test_a_gallery_that_is_not_there_is_made_only_when_asked(tmp_path: Path) -> None:
    with pytest.raises(GalleryFileError, match="typo"):
        Recognizer.open(tmp_path / "typo.db")
    assert list(tmp_path.iterdir()) == []


def test_an_open_gallery_of_another_model_is_refused_too() -> None:
    from fakes import card

    other = card(name="other", embedding_size=128)
    with (
        Gallery.open(":memory:", other, create=True) as people,
        pytest.raises(GalleryModelError, match="other"),
    ):
        open_pipeline(people)


def test_a_gallery_of_another_model_is_refused(tmp_path: Path) -> None:
    from fakes import card

    Gallery.open(tmp_path / "people.db", card(), create=True).close()
    with pytest.raises(GalleryModelError, match="fake"):
        Recognizer.open(tmp_path / "people.db")
