"""The embedder: what it feeds an engine, what it makes of the answer, what it refuses."""

from __future__ import annotations

from datetime import datetime, timezone

import numpy as np
import pytest
from fakes import FakeEngine, Feeds, card, spec
from numpy.typing import NDArray

from edge_fr.embed import Embedder
from edge_fr.errors import CardError, EngineError
from edge_fr.structures import Faces, Frame

FRAME = Frame(np.zeros((8, 8, 3), np.uint8), 0, datetime.now(timezone.utc))


def crops_of(*bgr: tuple[int, int, int]) -> NDArray[np.uint8]:
    """One crop a colour."""
    return np.stack([np.full((112, 112, 3), colour, np.uint8) for colour in bgr])


def mean_colour(feeds: Feeds) -> dict[str, NDArray[np.float32]]:
    """An embedding that is the mean of each input channel, and a constant."""
    means = feeds["x"].mean(axis=(2, 3))
    return {"embedding": np.c_[means, np.ones(len(means))].astype(np.float32)}


def test_an_rgb_model_gets_red_first_and_a_bgr_model_blue_first() -> None:
    for colour, expected in (("RGB", (30, 20, 10)), ("BGR", (10, 20, 30))):
        engine = FakeEngine(mean_colour, card(colour=colour))
        Embedder(engine).embed(crops_of((10, 20, 30)))
        assert engine.calls[0]["x"].mean(axis=(0, 2, 3)) == pytest.approx(expected)


def test_pixels_are_scaled_to_the_range_of_the_card() -> None:
    engine = FakeEngine(mean_colour, card(input_range=(-1.0, 1.0)))
    Embedder(engine).embed(crops_of((0, 0, 0), (255, 255, 255)))
    fed = engine.calls[0]["x"]
    assert fed.dtype == np.float32
    assert fed[0].min() == pytest.approx(-1)
    assert fed[1].max() == pytest.approx(1)


def test_embeddings_have_unit_length_and_keep_their_order() -> None:
    result = Embedder(FakeEngine(mean_colour)).embed(crops_of((0, 0, 9), (0, 18, 0), (27, 0, 0)))
    assert np.linalg.norm(result.vectors, axis=1) == pytest.approx([1, 1, 1])
    assert result.vectors.argmax(axis=1).tolist() == [0, 1, 2]
    assert result.norms == pytest.approx([82**0.5, 325**0.5, 730**0.5])  # of (9, 0, 0, 1) and so on
    assert result.ri is None
    assert result.mask_prob is None


def test_a_template_is_the_direction_between_a_crop_and_its_mirror_image() -> None:
    def left_and_right(feeds: Feeds) -> dict[str, NDArray[np.float32]]:
        halves = [feeds["x"][..., half].mean(axis=(1, 2, 3)) for half in (slice(56), slice(56, None))]
        return {"embedding": np.stack([*halves, *halves], axis=1).astype(np.float32)}

    lit_from_the_left, dark = crops_of((80, 80, 80), (0, 0, 0))
    lit_from_the_left[:, 56:] = 0
    dark[:, 56:] = 7
    found = Embedder(FakeEngine(left_and_right)).templates(np.stack([lit_from_the_left, dark]))
    assert found == pytest.approx(np.full((2, 4), 0.5))


def test_many_crops_go_in_batches_and_none_in_none() -> None:
    engine = FakeEngine(mean_colour)
    embedder = Embedder(engine, max_batch=2)
    assert len(embedder.embed(crops_of(*[(1, 2, 3)] * 5)).vectors) == 5
    assert [len(feeds["x"]) for feeds in engine.calls] == [2, 2, 1]
    assert embedder.embed(np.zeros((0, 112, 112, 3), np.uint8)).vectors.shape == (0, 4)
    assert len(engine.calls) == 3


def test_a_model_with_a_fixed_batch_gets_full_batches_and_the_padding_is_cut_off() -> None:
    engine = FakeEngine(mean_colour, inputs=(spec("x", 4, 3, 112, 112),))
    assert len(Embedder(engine).embed(crops_of(*[(1, 2, 3)] * 5)).vectors) == 5
    assert [len(feeds["x"]) for feeds in engine.calls] == [4, 4]


def test_only_selected_faces_are_embedded_and_the_other_rows_are_empty() -> None:
    def outputs(feeds: Feeds) -> dict[str, NDArray[np.float32]]:
        n = len(feeds["x"])
        return {**mean_colour(feeds), "ri": np.full((n, 1), 0.7, np.float32)}

    engine = FakeEngine(outputs, outputs=(spec("embedding", None, 4), spec("ri", None, 1)))
    faces = Faces(
        np.zeros((3, 4), np.float32),
        np.ones(3, np.float32),
        np.zeros((3, 5, 2), np.float32),
        crops=crops_of((1, 1, 1), (2, 2, 2), (3, 3, 3)),
        selected=np.array([False, True, False]),
    )
    filled = Embedder(engine)(FRAME, faces)
    assert len(engine.calls[0]["x"]) == 1
    assert [face.embedding is not None for face in filled] == [False, True, False]
    assert [face.ri for face in filled] == [None, pytest.approx(0.7), None]


@pytest.mark.parametrize(
    ("engine", "message"),
    [
        (
            FakeEngine(mean_colour, card(task="detect", head="yunet")),
            "expected one for 'embed'",
        ),
        (FakeEngine(mean_colour, inputs=(spec("x", None, 3, 96, 96),)), r"expected one\s+input of shape"),
        (FakeEngine(mean_colour, outputs=(spec("embedding", None, 512),)), "its card says size 4"),
        (FakeEngine(mean_colour, outputs=(spec("a", None, 4), spec("b", None, 4))), "named 'embedding'"),
    ],
)
def test_a_model_that_does_not_fit_its_card_is_refused(engine: FakeEngine, message: str) -> None:
    with pytest.raises(CardError, match=message):
        Embedder(engine)


def test_an_embedding_of_length_zero_is_an_error_and_no_division_by_zero() -> None:
    engine = FakeEngine(lambda feeds: {"embedding": np.zeros((len(feeds["x"]), 4), np.float32)})
    with pytest.raises(EngineError, match="length zero"):
        Embedder(engine).embed(crops_of((1, 2, 3)))


def test_faces_of_several_frames_share_one_call_and_go_back_to_their_frames() -> None:
    def outputs(feeds: Feeds) -> dict[str, NDArray[np.float32]]:
        return {**mean_colour(feeds), "ri": feeds["x"].mean(axis=(1, 2, 3))[:, None] / 255}

    def faces(*greys: int, selected: list[bool] | None = None) -> Faces:
        n = len(greys)
        return Faces(
            np.zeros((n, 4), np.float32),
            np.ones(n, np.float32),
            np.zeros((n, 5, 2), np.float32),
            crops=np.stack([np.full((112, 112, 3), grey, np.uint8) for grey in greys]),
            selected=None if selected is None else np.array(selected),
        )

    engine = FakeEngine(outputs, outputs=(spec("embedding", None, 4), spec("ri", None, 1)))
    embedder = Embedder(engine)
    frames = [faces(51, 102, selected=[False, True]), Faces.empty(), faces(153), faces(204, selected=[False])]
    filled = embedder.embed_many(frames)
    assert [len(feeds["x"]) for feeds in engine.calls] == [2]
    assert [[face.ri for face in f] for f in filled] == [
        [None, pytest.approx(0.4)],
        [],
        [pytest.approx(0.6)],
        [None],
    ]
    assert [[face.embedding is not None for face in f] for f in filled] == [
        [False, True],
        [],
        [True],
        [False],
    ]
    embedder.embed_many([Faces.empty()])
    assert len(engine.calls) == 1
