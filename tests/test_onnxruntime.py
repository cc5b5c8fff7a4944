"""The onnxruntime backend: what it gives, what it refuses to be fed, and how it fails."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from fakes import card
from onnx import TensorProto, helper
from onnx_files import doubling, save, tensor

from edge_fr._onnxruntime import OnnxRuntimeEngine, saturates
from edge_fr.engine import Engine, TensorSpec, open_engine
from edge_fr.errors import CardError, EngineError

X = np.arange(24, dtype=np.float32).reshape(2, 3, 4)


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    return open_engine(doubling(tmp_path / "m.onnx", card(name="doubling")))


def test_an_engine_says_what_it_is_and_what_it_takes(engine: Engine) -> None:
    assert isinstance(engine, OnnxRuntimeEngine)
    assert engine.card == card(name="doubling")
    assert engine.inputs == (TensorSpec("x", (None, 3, 4), np.dtype(np.float32)),)
    assert engine.outputs == (TensorSpec("y", (None, 3, 4), np.dtype(np.float32)),)


def test_an_engine_computes_every_row_of_a_batch(engine: Engine) -> None:
    outputs = engine.infer({"x": X})
    assert list(outputs) == ["y"]
    np.testing.assert_array_equal(outputs["y"], 2 * X)


def test_a_strided_view_is_read_as_what_it_shows(engine: Engine) -> None:
    wide = np.arange(48, dtype=np.float32).reshape(2, 3, 8)
    np.testing.assert_array_equal(engine.infer({"x": wide[:, :, ::-2]})["y"], 2 * wide[:, :, ::-2])


def test_outputs_belong_to_the_caller(engine: Engine) -> None:
    first = engine.infer({"x": X})["y"]
    first[:] = -1
    second = engine.infer({"x": X})["y"]
    np.testing.assert_array_equal(second, 2 * X)
    assert (first == -1).all()


@pytest.mark.parametrize(
    ("feeds", "message"),
    [
        ({}, r"takes the inputs \['x'\], got \[\]"),
        ({"image": X}, r"takes the inputs \['x'\], got \['image'\]"),
        ({"x": X, "z": X}, r"takes the inputs \['x'\], got \['x', 'z'\]"),
        (
            {"x": X.astype(np.float64)},
            r"needs shape \(any, 3, 4\) and dtype float32, got \(2, 3, 4\) and float64",
        ),
        ({"x": X.astype(np.uint8)}, "dtype float32, got .* uint8"),
        ({"x": X[0]}, r"got \(3, 4\) and float32"),
        ({"x": X[:, :2]}, r"got \(2, 2, 4\) and float32"),
    ],
)
def test_feeds_that_do_not_fit_are_refused(
    engine: Engine, feeds: dict[str, np.ndarray], message: str
) -> None:
    with pytest.raises(EngineError, match=message):
        engine.infer(feeds)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_an_output_that_is_no_number_is_an_error_that_names_it(engine: Engine, value: float) -> None:
    feed = X.copy()
    feed[1, 2, 3] = value
    with pytest.raises(EngineError, match="output 'y' holds NaN or infinity"):
        engine.infer({"x": feed})


def test_integer_outputs_pass(tmp_path: Path) -> None:
    path = save(
        tmp_path / "m.onnx",
        [helper.make_node("Shape", ["x"], ["y"])],
        [tensor("x", "batch", 3)],
        [tensor("y", 2, kind=TensorProto.INT64)],
        card=card(),
    )
    assert open_engine(path).infer({"x": np.zeros((5, 3), np.float32)})["y"].tolist() == [5, 3]


def test_a_failure_inside_the_network_names_the_shapes(tmp_path: Path) -> None:
    path = save(
        tmp_path / "m.onnx",
        [helper.make_node("Reshape", ["x", "shape"], ["y"])],
        [tensor("x", "batch", "width")],
        [tensor("y", 4, 2)],
        constants={"shape": np.array([4, 2])},
        card=card(),
    )
    engine = open_engine(path)
    assert engine.infer({"x": np.zeros((2, 4), np.float32)})["y"].shape == (4, 2)
    with pytest.raises(EngineError, match=r"failed on inputs of shape {'x': \(3, 5\)}"):
        engine.infer({"x": np.zeros((3, 5), np.float32)})


@pytest.mark.parametrize("damage", ["cut", "empty", "text", "swapped bytes"])
def test_a_damaged_file_is_refused_without_noise(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], damage: str
) -> None:
    path = doubling(tmp_path / "m.onnx", card())
    whole = path.read_bytes()
    contents = {
        "cut": whole[: len(whole) // 2],
        "empty": b"",
        "text": b"<html>not found</html>",
        "swapped bytes": whole[1::2] + whole[::2],
    }
    path.write_bytes(contents[damage])
    with pytest.raises(EngineError, match=r"m\.onnx cannot be opened: .* `edge-fr models verify`"):
        open_engine(path)
    assert capfd.readouterr() == ("", "")


def test_a_file_with_something_to_warn_about_opens_without_noise(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = save(
        tmp_path / "m.onnx",
        [helper.make_node("Add", ["x", "x"], ["y"])],
        [tensor("x", "batch", 3)],
        [tensor("y", "batch", 3)],
        constants={"unused": np.ones(3, np.float32)},
        card=card(),
    )
    open_engine(path)
    assert capfd.readouterr() == ("", "")


def test_a_file_whose_weights_lie_elsewhere_and_are_missing_is_refused(tmp_path: Path) -> None:
    path = save(
        tmp_path / "m.onnx",
        [helper.make_node("Add", ["x", "w"], ["y"])],
        [tensor("x", "batch", 400)],
        [tensor("y", "batch", 400)],
        constants={"w": np.ones(400, np.float32)},
        card=card(),
    )
    onnx.save(onnx.load(path), path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    assert open_engine(path).infer({"x": np.zeros((1, 400), np.float32)})["y"].max() == 1
    (tmp_path / "weights.bin").unlink()
    with pytest.raises(EngineError, match=r"parts missing.*weights\.bin"):
        open_engine(path)


def test_a_file_without_card_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CardError, match="edge-fr models card"):
        open_engine(doubling(tmp_path / "m.onnx", None))


def test_a_tensor_type_that_no_array_holds_is_refused(tmp_path: Path) -> None:
    path = save(
        tmp_path / "m.onnx",
        [helper.make_node("Identity", ["x"], ["y"])],
        [tensor("x", 1, kind=TensorProto.STRING)],
        [tensor("y", 1, kind=TensorProto.STRING)],
        card=card(),
    )
    with pytest.raises(EngineError, match=r"tensor 'x' is tensor\(string\), expected one of"):
        open_engine(path)


def test_a_device_that_is_not_there_is_an_error_and_never_the_cpu(tmp_path: Path) -> None:
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime has CUDA")
    with pytest.raises(
        EngineError, match=r"to run on cuda, but this onnxruntime has .*CPUExecutionProvider; .*gpu"
    ):
        open_engine(doubling(tmp_path / "m.onnx", card()), device="cuda")


def test_an_unknown_device_and_no_threads_are_refused(tmp_path: Path) -> None:
    path = doubling(tmp_path / "m.onnx", card())
    with pytest.raises(EngineError, match="device is 'gpu', expected one of cpu, cuda"):
        OnnxRuntimeEngine(path, device="gpu")  # type: ignore[arg-type]
    with pytest.raises(EngineError, match="threads is 0, expected at least 1"):
        OnnxRuntimeEngine(path, threads=0)


def test_without_onnxruntime_the_error_says_how_to_install_it() -> None:
    code = "import sys; sys.modules['onnxruntime'] = None; import edge_fr._onnxruntime"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "MissingDependencyError" in done.stderr
    assert "pip install '.[cpu]' in the checkout" in done.stderr


@pytest.mark.parametrize(
    ("machine", "cpuinfo", "expected"),
    [
        ("x86_64", "flags : avx2 avx512f avx512_vnni", False),
        ("x86_64", "flags : avx2 avx_vnni", False),
        ("x86_64", "flags : avx2 avx512f", True),
        ("AMD64", "", True),  # Windows, where nothing tells
        ("aarch64", "Features : asimd asimddp", False),
    ],
)
def test_exact_int8_kernels_are_asked_for_only_where_the_fast_ones_saturate(
    machine: str, cpuinfo: str, expected: bool
) -> None:
    assert saturates(machine, cpuinfo) == expected
