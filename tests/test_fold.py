"""Folding: fp32 weights, nothing left that a runtime refuses, any batch and size, the same everywhere."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from fakes import card
from onnx import numpy_helper
from onnx_files import BLOCK, BLOCK_QUANTISED_SHAPES, ROWS, block_quantised

from edge_fr.cards import read_card
from edge_fr.engine import open_engine
from edge_fr.errors import ModelError
from edge_fr.fold import fold, weights_digest
from edge_fr.models import MODELS

SOURCE = block_quantised()


def unpacked_weights(model: onnx.ModelProto) -> np.ndarray:
    """(value - zero point) * scale, written as loops over the file's own numbers."""
    constants = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    weights = np.empty((ROWS, 3 * BLOCK), np.float32)
    for row in range(ROWS):
        for column in range(3 * BLOCK):
            block = column // BLOCK
            steps = int(constants["w_quantized"][row, column]) - int(constants["w_zero_point"][row, block])
            weights[row, column] = np.float32(steps) * constants["w_scales"][row, block]
    return weights[:, :2].reshape(2, 2, 1, 1)


def expected_digest() -> str:
    """The digest as its docstring words it, over what folding must give."""
    model = onnx.load_from_string(SOURCE)
    bias = next(numpy_helper.to_array(t) for t in model.graph.initializer if t.name == "bias")
    weights = unpacked_weights(model)
    text = b"bias float32 (2,)\n" + bias.tobytes() + b"w float32 (2, 2, 1, 1)\n" + weights.tobytes()
    return f"sha256:{hashlib.sha256(text).hexdigest()}"


DIGEST = expected_digest()


def folded() -> onnx.ModelProto:
    return onnx.load_from_string(
        fold(SOURCE, card=card(weights_digest=DIGEST), shapes=BLOCK_QUANTISED_SHAPES)
    )


def test_folding_gives_the_weights_that_the_blocks_stand_for() -> None:
    constants = {t.name: numpy_helper.to_array(t) for t in folded().graph.initializer}
    expected = unpacked_weights(onnx.load_from_string(SOURCE))
    np.testing.assert_array_equal(constants["w"], expected)
    assert constants["w"].dtype == np.float32


def test_a_folded_file_holds_only_what_the_network_needs() -> None:
    graph = folded().graph
    assert [node.op_type for node in graph.node] == ["Conv", "Transpose", "Reshape"]
    assert {t.name for t in graph.initializer} == {"w", "bias", "y_shape"}
    assert [i.name for i in graph.input] == ["x"]


def test_a_folded_network_takes_any_batch_and_size(tmp_path: Path) -> None:
    path = tmp_path / "folded.onnx"
    path.write_bytes(fold(SOURCE, card=card(weights_digest=DIGEST), shapes=BLOCK_QUANTISED_SHAPES))
    model = onnx.load_from_string(SOURCE)
    weights = unpacked_weights(model)[:, :, 0, 0]
    bias = next(numpy_helper.to_array(t) for t in model.graph.initializer if t.name == "bias")
    engine = open_engine(path)
    for batch, height, width in ((1, 4, 4), (3, 4, 4), (2, 6, 8)):
        x = np.random.default_rng(batch).normal(size=(batch, 2, height, width)).astype(np.float32)
        expected = np.einsum("oc,bchw->bhwo", weights, x).reshape(batch, -1, 2) + bias
        # two products a value, of weights up to 13: a few units in the last place of float32
        np.testing.assert_allclose(engine.infer({"x": x})["y"], expected, rtol=1e-5, atol=1e-5)


def test_a_folded_file_carries_its_card(tmp_path: Path) -> None:
    path = tmp_path / "folded.onnx"
    expected = card(name="mine", weights_digest=DIGEST)
    path.write_bytes(fold(SOURCE, card=expected, shapes=BLOCK_QUANTISED_SHAPES))
    assert read_card(path) == expected


def test_folding_gives_the_same_bytes_each_time() -> None:
    assert folded().SerializeToString() == folded().SerializeToString()


def test_weights_other_than_the_card_names_are_refused() -> None:
    with pytest.raises(ModelError, match=rf"gave weights {DIGEST}, expected sha256:fake"):
        fold(SOURCE, card=card(), shapes=BLOCK_QUANTISED_SHAPES)


def test_a_file_with_other_tensors_is_refused() -> None:
    with pytest.raises(ModelError, match=r"has the tensors \['x', 'y'\], expected \['x', 'z'\]"):
        fold(SOURCE, card=card(), shapes={"x": (1,), "z": (1,)})


def test_the_weights_digest_follows_names_shapes_and_values_of_floats_alone() -> None:
    def digest(**changes: np.ndarray) -> str:
        model = folded()
        for constant in model.graph.initializer:
            if constant.name in changes:
                constant.CopyFrom(numpy_helper.from_array(changes[constant.name], constant.name))
        return weights_digest(model)

    bias = next(numpy_helper.to_array(t) for t in folded().graph.initializer if t.name == "bias")
    assert digest() == DIGEST
    assert digest(y_shape=np.array([7, -1, 2])) == DIGEST
    assert digest(bias=bias[::-1].copy()) != DIGEST
    assert digest(bias=bias.reshape(1, 2)) != DIGEST


def test_without_onnx_the_error_says_how_to_install_it() -> None:
    code = "import sys; sys.modules['onnx'] = None; import edge_fr.fold"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "MissingDependencyError" in done.stderr
    assert "pip install '.[cpu]' in the checkout" in done.stderr


def test_the_pulled_files_hold_the_weights_that_their_cards_name(pulled: Callable[[str], Path]) -> None:
    for name in ("yunet", "sface"):
        assert weights_digest(onnx.load(pulled(name))) == read_card(pulled(name)).weights_digest


@pytest.mark.parametrize(("height", "width"), [(96, 160), (320, 320), (480, 640), (640, 480)])
def test_yunet_gives_at_any_size_what_opencv_gives(
    pulled: Callable[[str], Path], height: int, width: int
) -> None:
    skimage_data = pytest.importorskip("skimage.data")
    image = cv2.resize(skimage_data.astronaut()[:, :, ::-1], (width, height))
    blob = cv2.dnn.blobFromImage(image)
    outputs = open_engine(pulled("yunet")).infer({"input": np.concatenate([blob[..., ::-1], blob])})
    network = cv2.dnn.readNet(str(pulled("yunet")))
    network.setInput(blob)
    names = list(outputs)
    for name, expected in zip(names, network.forward(names), strict=True):
        # fp32 on both sides, summed in another order through some 50 layers; offsets reach about 10
        np.testing.assert_allclose(outputs[name][1:], expected, atol=1e-4, err_msg=name)
    assert outputs["cls_8"].shape == (2, height * width // 64, 1)


def test_opencv_detects_and_recognizes_with_the_pulled_files_and_agrees_with_the_engine(
    pulled: Callable[[str], Path],
) -> None:
    image = pytest.importorskip("skimage.data").astronaut()[:, :, ::-1].copy()
    height, width = image.shape[:2]
    _, faces = cv2.FaceDetectorYN.create(str(pulled("yunet")), "", (width, height)).detect(image)
    assert len(faces) == 1
    assert faces[0, -1] > 0.9  # the astronaut looks into the camera
    recognizer = cv2.FaceRecognizerSF.create(str(pulled("sface")), "")
    crop = recognizer.alignCrop(image, faces[0])
    expected = recognizer.feature(crop)[0]
    blob = cv2.dnn.blobFromImage(crop, swapRB=MODELS["sface"].card.colour == "RGB")
    embedding = open_engine(pulled("sface")).infer({"data": blob})["fc1"][0]
    cosine = embedding @ expected / np.linalg.norm(embedding) / np.linalg.norm(expected)
    # with the colours the wrong way round it is 0.953; rounding leaves less than 1e-6
    assert cosine > 0.9999
