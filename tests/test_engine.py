"""The model card and the door to the engines."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path

import pytest
from fakes import card

from edge_fr.engine import ModelCard, card_path, open_engine, require_task
from edge_fr.errors import CardError, EngineError, ModelNotFoundError

FULL = card(
    name="m",
    input_range=(-1.0, 1.0),
    precision="int8",
    template="arcface-112",
    calibration_digest="sha256:00",
    impostor_scores={"1e-4": 0.47},
    impostor_data="somebody",
    notes="é",
)


def test_a_card_comes_back_from_its_json_as_it_was() -> None:
    assert ModelCard.from_json(FULL.to_json()) == FULL
    assert "\n" not in FULL.to_json()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task": "recognise"}, "task is 'recognise', expected one of detect, embed, gate"),
        ({"precision": "int4"}, "precision is 'int4', expected one of fp32, fp16, int8"),
        ({"verdict": "fine"}, "verdict is 'fine', expected one of passed, refused, or none"),
        ({"colour": "rgb"}, "colour is 'rgb', expected BGR or RGB"),
        ({"input_range": (1.0, 0.0)}, r"input_range is \(1.0, 0.0\), expected \(low, high\)"),
        ({"input_range": (0.0,)}, "input_range is"),
        ({"task": "detect", "head": None}, "a detector needs head, one of yunet, scrfd, retinaface"),
        ({"embedding_size": None}, "an embedder needs embedding_size"),
    ],
)
def test_a_card_that_says_nothing_usable_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(CardError, match=message):
        card(**changes)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"here: not JSON"),
        ("[1]", "here: expected a JSON object, got list"),
        (json.dumps({**json.loads(FULL.to_json()), "color": "RGB"}), "here: unknown fields color"),
        ('{"input_range": [0, 1]}', "here: .*missing .*'name', 'task'"),
        ('{"input_range": 5}', "here: "),
    ],
)
def test_json_that_is_no_card_is_refused_with_the_place(text: str, message: str) -> None:
    with pytest.raises(CardError, match=message):
        ModelCard.from_json(text, where="here")


@pytest.mark.parametrize("field", [field.name for field in fields(ModelCard)])
def test_an_odd_value_in_json_gives_a_card_or_a_card_error(field: str) -> None:
    for value in (None, True, 7, "x", [], [1, "x"], {}, {"x": None}):
        try:
            read = ModelCard.from_json(json.dumps({**json.loads(FULL.to_json()), field: value}))
        except CardError:
            continue
        assert ModelCard.from_json(read.to_json()) == read


def test_a_model_for_another_task_is_refused() -> None:
    require_task(card(), "embed", "a.onnx")
    with pytest.raises(CardError, match=r"a\.onnx is a model for 'embed', expected one for 'detect'"):
        require_task(card(), "detect", "a.onnx")


def test_the_card_lies_beside_its_model() -> None:
    assert card_path(Path("/models/face.v2.onnx")) == Path("/models/face.v2.card.json")


def test_a_model_file_that_is_not_there_is_named_with_the_command(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match=r"no model file at .*face\.onnx; `edge-fr models pull`"):
        open_engine(tmp_path / "face.onnx")


@pytest.mark.parametrize("name", ["face.pth", "face"])
def test_a_file_of_another_kind_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"weights")
    with pytest.raises(EngineError, match=r"cannot open a .* file, expected \.onnx or \.engine"):
        open_engine(tmp_path / name)
