"""Threads that share a recognizer, or its models, get the answers for their own pictures."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import cv2
import numpy as np
import pytest
from fakes import FakeEngine, Feeds, card
from numpy.typing import NDArray

from edge_fr.detect import Detector
from edge_fr.embed import Embedder
from edge_fr.engine import Engine, ModelCard, TensorSpec, open_engine
from edge_fr.errors import EnrollmentError, GalleryError
from edge_fr.gallery import Gallery
from edge_fr.models import resolve
from edge_fr.recognizer import Recognizer
from samples.standoff_people import COLLINS, HOPPER, portrait

THREADS = 8
T = TypeVar("T")


class Slow:
    """A real engine that lets the other threads go on before it looks at its input."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @property
    def card(self) -> ModelCard:
        return self._engine.card

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        return self._engine.inputs

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        return self._engine.outputs

    def infer(self, feeds: Feeds) -> dict[str, NDArray[Any]]:
        time.sleep(0.002)
        return self._engine.infer(feeds)


def picture(number: int) -> NDArray[np.uint8]:
    """One of two people, each time at another place of a picture of one size, or a wall."""
    wall = np.full((320, 640, 3), 110, np.uint8)
    if number % 4 < 3:
        photo = cv2.resize(portrait((COLLINS, HOPPER)[number % 2]), (240, 240), interpolation=cv2.INTER_AREA)
        left = 50 * (number % 8)
        wall[40:280, left : left + 240] = photo
    return wall


def at_once(call: Callable[[NDArray[np.uint8]], T], pictures: Sequence[NDArray[np.uint8]]) -> list[T]:
    with ThreadPoolExecutor(THREADS) as threads:
        return list(threads.map(call, pictures))


@pytest.fixture(scope="module")
def detector() -> Detector:
    return Detector(Slow(open_engine(resolve("yunet"), threads=1)))


@pytest.fixture
def people(detector: Detector) -> Iterator[Gallery]:
    """Eileen and Grace."""
    embedder = Embedder(Slow(open_engine(resolve("recognizer"), threads=1)))
    with Gallery.open(":memory:", embedder.card, create=True) as gallery:
        recognizer = Recognizer(detector, embedder, gallery)
        recognizer.enroll("Eileen", portrait(COLLINS))
        recognizer.enroll("Grace", portrait(HOPPER))
        yield gallery


def who(recognizer: Recognizer) -> Callable[[NDArray[np.uint8]], list[tuple[str | None, list[float]]]]:
    return lambda image: [
        (decision.identity, face.box.tolist()) for face, decision in recognizer.identify(image)
    ]


def test_threads_that_share_a_detector_find_the_faces_of_their_own_pictures(detector: Detector) -> None:
    pictures = [picture(number) for number in range(24)]
    alone = [detector.detect(image).boxes.tolist() for image in pictures]
    assert {len(boxes) for boxes in alone} == {0, 1}
    assert at_once(lambda image: detector.detect(image).boxes.tolist(), pictures) == alone


@pytest.mark.parametrize("recognizers", [1, 2])
def test_threads_that_share_a_recognizer_or_its_models_get_the_answers_for_their_own_pictures(
    detector: Detector, people: Gallery, recognizers: int
) -> None:
    embedder = Embedder(Slow(open_engine(resolve("recognizer"), threads=1)))
    asked = [who(Recognizer(detector, embedder, people)) for _ in range(recognizers)]
    pictures = [picture(number) for number in range(24)]
    alone = [asked[0](image) for image in pictures]
    assert {identity for answer in alone for identity, _ in answer} == {"Eileen", "Grace"}
    turns = iter(range(24))
    assert at_once(lambda image: asked[next(turns) % recognizers](image), pictures) == alone


def test_a_person_whom_many_threads_enroll_at_once_is_enrolled_once(detector: Detector) -> None:
    def same(feeds: Feeds) -> dict[str, NDArray[np.float32]]:
        time.sleep(0.1)  # longer than the others take to find the face
        return {"embedding": np.tile(np.eye(1, 4, dtype=np.float32), (len(feeds["x"]), 1))}

    model = card(impostor_scores={"1e-1": 0.2, "1e-4": 0.4})
    photo = portrait(HOPPER)
    with Gallery.open(":memory:", model, create=True) as gallery:
        recognizer = Recognizer(detector, Embedder(FakeEngine(same, model)), gallery)

        def enroll(name: str) -> str:
            try:
                return str(recognizer.enroll(name, photo).kept)
            except EnrollmentError as error:
                return str(error)

        with ThreadPoolExecutor(THREADS) as threads:
            said = list(threads.map(enroll, map(str, range(THREADS))))
        assert len(gallery) == 1
        assert sum("looks like" in answer for answer in said) == THREADS - 1


def test_a_recognizer_that_is_closed_ends_the_calls_under_way_and_refuses_later_ones(
    detector: Detector, people: Gallery
) -> None:
    recognizer = Recognizer(detector, Embedder(Slow(open_engine(resolve("recognizer"), threads=1))), people)
    with ThreadPoolExecutor(THREADS) as threads:
        answers = [threads.submit(recognizer.verify, picture(0), "Eileen") for _ in range(16)]
        recognizer.close()
        errors = [answer.exception() for answer in answers]
    assert all(error is None or isinstance(error, GalleryError) for error in errors)
    with pytest.raises(GalleryError, match="is closed"):
        recognizer.verify(picture(0), "Eileen")
