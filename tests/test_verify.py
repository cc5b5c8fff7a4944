"""The comparison of an exported file, and of its engine, with the network it came from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import drawn_weights
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from edge_fr.engine import Engine, ModelCard, TensorSpec, open_engine
from edge_fr.errors import EngineError, InputError, ModelError
from edge_fr.passport import Passport, passport_path
from export.__main__ import main
from export.networks.published import LAYOUTS
from export.to_onnx import Origin, write_published
from export.verify import batches, photographs, synthetic, verify

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's exporter raises its own


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint, the file written from it, and the checkpoint of another training."""
    folder = tmp_path_factory.mktemp("verify")
    weights = drawn_weights.foamliu(16)
    torch.save(weights, folder / "face.pt")
    name = "mobilefacenet-foamliu"
    origin = Origin("mine", "ours", "our own")
    write_published(name, LAYOUTS[name], weights, folder / "face.onnx", origin)
    torch.save({**weights, "bn.bias": weights["bn.bias"] + 0.001}, folder / "other.pt")
    return folder


class Changed:
    """The file's own engine, whose answers are changed on the way, under a card of its own."""

    def __init__(self, engine: Engine, card: ModelCard, change: float = 0.0) -> None:
        self._engine, self._change = engine, change
        self.card = card
        self.inputs: tuple[TensorSpec, ...] = engine.inputs
        self.outputs: tuple[TensorSpec, ...] = engine.outputs

    def infer(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        found = self._engine.infer(feeds)
        noise = np.random.default_rng(0).normal(0, self._change, found["embedding"].shape)
        return {"embedding": (found["embedding"] + noise).astype(np.float32)}


def built(folder: Path, card: ModelCard, *, change: float = 0.0, least: int = 1, greatest: int = 8) -> Any:
    """Stands for `open_engine` where an engine was built for batches of `least` to `greatest`."""
    shapes = tuple((n, 3, 112, 112) for n in (least, greatest, greatest))
    passport = Passport("face.onnx", "", "", card, "tensorrt", "10", None, (), {"crops": shapes})  # type: ignore[dict-item]
    passport_path(folder / "face.engine").write_text(passport.to_json())

    def opened(path: Path, **how: object) -> Engine:
        engine = open_engine(folder / "face.onnx")
        if path.suffix == ".onnx":
            return engine
        assert how["device"] == "cuda"
        return Changed(engine, card, change)

    return opened


def test_a_file_agrees_with_the_weights_it_was_written_from_at_three_batches(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["verify", str(folder / "face.onnx"), "--against", str(folder / "face.pt")]
    assert main(command) == 0
    told = capsys.readouterr().out
    assert "on 32 synthetic crops" in told
    assert "beyond" not in told
    assert main([*command, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["passed"]
    assert [(row["engine"], row["output"], row["batch"]) for row in report["rows"]] == [
        ("onnxruntime", "embedding", batch) for batch in (1, 5, 32)
    ]
    for row in report["rows"]:
        assert 0 < row["greatest"] <= row["greatest_allowed"]
        assert row["cosine_allowed"] <= row["cosine"] <= 1.0000001


def test_a_file_of_other_weights_or_other_pixels_fails_and_the_exit_code_says_so(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = str(folder / "face.onnx")
    assert main(["verify", model, "--against", str(folder / "other.pt")]) == 1
    assert capsys.readouterr().out.count("beyond the bound") == 3
    assert main(["verify", model, "--against", str(folder / "face.pt"), "--colour", "BGR", "--json"]) == 1
    assert not json.loads(capsys.readouterr().out)["passed"]


def test_without_a_gpu_the_engine_s_part_is_an_error(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch_sees_one = torch.cuda.is_available()
    if torch_sees_one:
        pytest.skip("this machine has an NVIDIA driver")
    card = open_engine(folder / "face.onnx").card
    built(folder, card)
    (folder / "face.engine").write_bytes(b"plan")
    command = ["verify", str(folder / "face.onnx"), "--against", str(folder / "face.pt")]
    assert main([*command, "--engine", str(folder / "face.engine")]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")


def test_an_engine_is_compared_up_to_the_largest_batch_it_was_built_for(folder: Path) -> None:
    card = open_engine(folder / "face.onnx").card
    report = verify(
        folder / "face.onnx", folder / "face.pt", engine=folder / "face.engine", opened=built(folder, card)
    )
    assert [(row.engine, row.batch) for row in report.rows] == [
        (engine, batch) for engine in ("onnxruntime", "tensorrt") for batch in (1, 5, 8)
    ]
    assert report.passed


@pytest.mark.parametrize(("precision", "passed"), [("fp32", False), ("fp16", True)])
def test_half_precision_may_differ_more_than_single(folder: Path, precision: str, passed: bool) -> None:
    card = replace(open_engine(folder / "face.onnx").card, precision=precision)  # type: ignore[arg-type]
    opened = built(folder, card, change=0.005)  # of values that reach 3
    report = verify(folder / "face.onnx", folder / "face.pt", engine=folder / "face.engine", opened=opened)
    assert report.passed is passed
    assert all(row.passed for row in report.rows if row.engine == "onnxruntime")


def test_an_engine_of_another_model_and_an_int8_one_are_refused(folder: Path) -> None:
    card = open_engine(folder / "face.onnx").card
    files = (folder / "face.onnx", folder / "face.pt")
    engine = folder / "face.engine"
    with pytest.raises(EngineError, match=r"face\.engine was built from another model .* edge-fr build"):
        verify(*files, engine=engine, opened=built(folder, replace(card, weights_digest="sha256:0")))
    with pytest.raises(InputError, match=r"face\.engine is an int8 model.*calibration court"):
        verify(*files, engine=engine, opened=built(folder, replace(card, precision="int8")))
    with pytest.raises(InputError, match="it was not written by it"):
        verify(*files, engine=engine, opened=built(folder, replace(card, colour="BGR")))


def test_batches_lie_within_what_the_engine_was_built_for(folder: Path) -> None:
    card = open_engine(folder / "face.onnx").card
    built(folder, card, least=4, greatest=4)
    assert batches(card, folder / "face.engine") == [4]
    built(folder, card, least=2, greatest=16)
    assert batches(card, folder / "face.engine") == [2, 5, 16]
    assert batches(card, None) == [1, 5, 32]


def test_weights_of_no_known_recognizer_are_told(folder: Path) -> None:
    torch.save({"weight": torch.zeros(3)}, folder / "unknown.pt")
    with pytest.raises(ModelError, match=r"unknown\.pt are of no recognizer known here \(iresnet18, "):
        verify(folder / "face.onnx", folder / "unknown.pt")


def test_photographs_of_crop_size_are_taken_whole_and_repeat_when_they_are_few(tmp_path: Path) -> None:
    picture = np.zeros((112, 112, 3), np.uint8)
    picture[..., 0] = 200  # blue
    cv2.imwrite(str(tmp_path / "a.png"), picture)
    cv2.imwrite(str(tmp_path / "b.png"), picture[..., ::-1])
    crops, told = photographs(tmp_path, 3)
    assert told == f"2 faces of {tmp_path}"
    assert crops.shape == (3, 3, 112, 112)
    assert [crop[:, 0, 0].tolist() for crop in crops] == [[0, 0, 200], [200, 0, 0], [0, 0, 200]]
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no face found in the 0 pictures"):
        photographs(tmp_path / "empty", 3)


def test_synthetic_crops_are_pixels_and_always_the_same() -> None:
    crops, _ = synthetic(4)
    assert crops.min() == 0
    assert crops.max() == 255
    assert (crops == np.round(crops)).all()
    np.testing.assert_array_equal(crops, synthetic(4)[0])
