"""The TensorRT backend without a GPU: what it copies, launches, records, refuses and gives back."""

from __future__ import annotations

import gc
import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from fake_tensorrt import ORIN, FakeCuda, FakeTensorRT
from fakes import card

from edge_fr._session import Session
from edge_fr._tensorrt import TensorRTEngine
from edge_fr.engine import TensorSpec, open_engine
from edge_fr.errors import EngineError
from edge_fr.passport import Gpu, Passport, passport_path, read_passport, require_home

PROFILE = {"x": ((1, 3, 4), (8, 3, 4), (32, 3, 4))}
FLOAT = np.dtype(np.float32)


def passport(**changes: object) -> Passport:
    values = {
        "source": "face.onnx",
        "source_digest": "sha256:source",
        "engine_digest": f"sha256:{hashlib.sha256(b'plan').hexdigest()}",
        "card": card(),
        "library": "tensorrt",
        "library_version": "10.3.0",
        "gpu": ORIN,
        "flags": ("STRONGLY_TYPED",),
        "profile": PROFILE,
    }
    return Passport(**{**values, **changes})  # type: ignore[arg-type]


def session(trt: FakeTensorRT, plan: bytes = b"plan") -> Session:
    return Session(trt, trt.cuda, plan, PROFILE, where="face.engine")


def engine(trt: FakeTensorRT) -> TensorRTEngine:
    return TensorRTEngine(session(trt), passport(), Path("face.engine"))


@pytest.fixture
def trt() -> FakeTensorRT:
    return FakeTensorRT(FakeCuda())


def batch(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((count, 3, 4), np.float32)


def test_an_engine_says_what_it_is_and_what_it_takes(trt: FakeTensorRT) -> None:
    made = engine(trt)
    assert made.card == card()
    assert made.inputs == (TensorSpec("x", (None, 3, 4), FLOAT),)
    assert made.outputs == (TensorSpec("y", (None, 3, 4), FLOAT), TensorSpec("sum", (None,), FLOAT))


def test_every_size_of_batch_is_computed_whichever_came_before(trt: FakeTensorRT) -> None:
    made = engine(trt)
    for i, count in enumerate([5, 1, 32, 5, 5, 1, 32, 5, 1]):
        x = batch(count, seed=i)
        outputs = made.infer({"x": x})
        np.testing.assert_array_equal(outputs["y"], 2 * x)
        np.testing.assert_allclose(outputs["sum"], x.sum(axis=(1, 2)), rtol=1e-6)  # sums in another order
        assert outputs["sum"].shape == (count,)


def test_a_strided_view_is_read_as_what_it_shows(trt: FakeTensorRT) -> None:
    wide = np.arange(48, dtype=np.float32).reshape(2, 3, 8)
    np.testing.assert_array_equal(engine(trt).infer({"x": wide[:, :, ::-2]})["y"], 2 * wide[:, :, ::-2])


def test_outputs_belong_to_the_caller(trt: FakeTensorRT) -> None:
    made = engine(trt)
    first = made.infer({"x": batch(2)})["y"]
    kept = first.copy()
    made.infer({"x": batch(2, seed=1)})
    np.testing.assert_array_equal(first, kept)


def test_memory_is_for_the_greatest_shapes_and_is_asked_for_once(trt: FakeTensorRT) -> None:
    made = engine(trt)
    largest = 32 * 3 * 4 * 4
    before = list(trt.cuda.allocations)
    assert sorted(before) == sorted(
        [("stream", 0), ("device", 1000)]  # 1000: the contexts' working memory, which they share
        + [("device", size) for size in (largest, largest, 128)]
        + [("pinned", size) for size in (largest, largest, 128)]
    )
    for _ in range(4):
        for count in (1, 32):
            made.infer({"x": batch(count)})
    assert trt.cuda.allocations == before


def test_a_call_uploads_runs_downloads_and_waits_in_this_order(trt: FakeTensorRT) -> None:
    engine(trt).infer({"x": batch(2)})
    assert trt.cuda.log == ["upload", "execute", "download", "download", "wait"]


def test_a_shape_that_comes_again_is_recorded_once_and_then_launched(trt: FakeTensorRT) -> None:
    made = engine(trt)
    for _ in range(2):
        made.infer({"x": batch(2)})
    assert trt.cuda.log.count("capture") == 1
    trt.cuda.log.clear()
    for i in range(3):
        x = batch(2, seed=i)
        np.testing.assert_array_equal(made.infer({"x": x})["y"], 2 * x)
    assert trt.cuda.log == ["launch", "wait"] * 3


def test_each_graph_has_a_context_of_its_own_whose_shape_never_changes(trt: FakeTensorRT) -> None:
    made = engine(trt)
    for count in (2, 2, 3, 3, 4, 2, 3):
        made.infer({"x": batch(count)})
    shared, *own = trt.engine.contexts
    assert [context.shape[0] for context in own] == [2, 3]
    assert not any(context.needs_memory for context in trt.engine.contexts)
    assert shared.shape is not None


def test_the_number_of_graphs_is_bounded(trt: FakeTensorRT) -> None:
    made = engine(trt)
    for count in range(1, 33):
        for _ in range(3):
            x = batch(count)
            np.testing.assert_array_equal(made.infer({"x": x})["y"], 2 * x)
    assert len(trt.engine.contexts) == 1 + 8


def test_a_library_that_still_compiles_is_asked_again_at_the_next_call(trt: FakeTensorRT) -> None:
    trt.capturable = 2
    made = engine(trt)
    for _ in range(6):
        made.infer({"x": batch(2)})
    assert trt.cuda.log.count("capture") == 1
    assert trt.cuda.log.count("launch") == 2  # calls 2 and 3 were told to wait, call 4 recorded
    assert len(trt.engine.contexts) == 2


def test_a_network_that_cannot_be_recorded_runs_on_and_says_so_once(trt: FakeTensorRT) -> None:
    trt.cuda.capture_fails = True
    made = engine(trt)
    made.infer({"x": batch(2)})
    with pytest.warns(RuntimeWarning, match=r"face\.engine runs without CUDA graphs.*not permitted"):
        made.infer({"x": batch(2)})
    x = batch(3)
    for _ in range(3):
        np.testing.assert_array_equal(made.infer({"x": x})["y"], 2 * x)
    assert trt.cuda.log.count("capture") == 1


@pytest.mark.parametrize("lacks", ["graphs", "shared memory"])
def test_a_binding_or_library_without_graphs_launches_every_call(lacks: str) -> None:
    trt = FakeTensorRT(FakeCuda(has_graphs=lacks != "graphs"))
    if lacks == "shared memory":  # as in 8.6
        trt.ExecutionContextAllocationStrategy = None  # type: ignore[assignment]
    made = engine(trt)
    for _ in range(4):
        made.infer({"x": batch(2)})
    assert trt.cuda.log.count("execute") == 4
    assert len(trt.engine.contexts) == 1


def test_an_engine_of_fixed_shape_is_told_no_shape() -> None:
    trt = FakeTensorRT(FakeCuda(), shape=(2, 3, 4), greatest=(2, 3, 4))
    made = Session(trt, trt.cuda, b"plan", {"x": ((2, 3, 4),) * 3}, where="face.engine")
    x = batch(2)
    np.testing.assert_array_equal(made.run({"x": x})["y"], 2 * x)


def test_the_gpu_is_given_back_when_the_engine_is_dropped(trt: FakeTensorRT) -> None:
    made = engine(trt)
    made.infer({"x": batch(2)})
    assert not trt.cuda.closed
    del made
    gc.collect()
    assert trt.cuda.closed


def test_feeds_outside_of_the_profile_are_refused_with_what_it_is(trt: FakeTensorRT) -> None:
    made = engine(trt)
    with pytest.raises(EngineError, match=r"shape \(33, 3, 4\), and the engine was built for .*--batch"):
        made.infer({"x": batch(33)})
    with pytest.raises(EngineError, match=r"takes the inputs \['x'\], got \['z'\]"):
        made.infer({"z": batch(1)})
    with pytest.raises(EngineError, match=r"needs shape \(any, 3, 4\) and dtype float32, got .*float64"):
        made.infer({"x": batch(1).astype(np.float64)})


def test_an_output_that_is_no_number_is_an_error_that_names_it(trt: FakeTensorRT) -> None:
    x = batch(2)
    x[1, 2, 3] = np.nan
    with pytest.raises(EngineError, match="output 'y' holds NaN"):
        engine(trt).infer({"x": x})


def test_a_launch_that_fails_tells_the_library_s_reason(trt: FakeTensorRT) -> None:
    made = engine(trt)
    trt.refuses_launch = True
    with pytest.raises(EngineError, match="could not be launched: Error Code 1: Cuda Runtime"):
        made.infer({"x": batch(2)})


@pytest.mark.parametrize(
    ("change", "plan", "message"),
    [
        ({}, b"damaged", "cannot be loaded: IRuntime::deserializeCudaEngine: Error Code 1: Serialization"),
        ({"refuses_context": True}, b"plan", "gave no context: the library gave no reason"),
        ({"dtype": "FP8"}, b"plan", "'x' is FP8, expected one of FLOAT"),
    ],
)
def test_an_engine_that_cannot_open_gives_its_cause_and_the_memory_back(
    trt: FakeTensorRT, change: dict[str, object], plan: bytes, message: str
) -> None:
    for name, value in change.items():
        setattr(trt, name, value)
    with pytest.raises(EngineError, match=message):
        session(trt, plan)
    assert trt.cuda.closed


def test_a_profile_of_other_inputs_is_refused(trt: FakeTensorRT) -> None:
    with pytest.raises(EngineError, match="profile is of other inputs"):
        Session(trt, trt.cuda, b"plan", {"z": PROFILE["x"]}, where="face.engine")


def write_engine(folder: Path, made: Passport, plan: bytes = b"plan") -> Path:
    path = folder / "face.engine"
    path.write_bytes(plan)
    passport_path(path).write_text(made.to_json())
    return path


def test_a_passport_comes_back_from_its_file_as_it_was(tmp_path: Path) -> None:
    path = write_engine(tmp_path, passport())
    assert read_passport(path) == passport()
    path = write_engine(tmp_path, passport(gpu=None, library="tensorrt_rtx"))
    assert read_passport(path).gpu is None


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", "null", '{"card": 1}', passport().to_json().replace('"gpu"', '"card"')]
)
def test_a_broken_passport_is_refused_by_its_name(tmp_path: Path, text: str) -> None:
    path = write_engine(tmp_path, passport())
    passport_path(path).write_text(text)
    with pytest.raises(EngineError, match=r"face\.engine\.json is no engine passport .*edge-fr build"):
        read_passport(path)


def test_an_engine_without_a_passport_or_for_the_cpu_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "face.engine"
    path.write_bytes(b"plan")
    with pytest.raises(EngineError, match=r"has no passport at .*face\.engine\.json"):
        open_engine(path, device="cuda")
    with pytest.raises(EngineError, match=r"engine for the GPU, and was to run on cpu; say --device cuda"):
        open_engine(path)


def test_a_damaged_engine_is_told_before_any_library_is_loaded(tmp_path: Path) -> None:
    path = write_engine(tmp_path, passport(), plan=b"plam")
    with pytest.raises(EngineError, match=r"damaged, or not of one build; .*edge-fr build face\.onnx -o"):
        open_engine(path, device="cuda")


@pytest.mark.parametrize(
    ("changes", "differing"),
    [
        ({}, ""),
        ({"gpu": ORIN._replace(driver="11.4")}, ""),  # engines do not depend on the driver
        ({"library_version": "8.6.2"}, r"tensorrt 8\.6\.2, here it is 10\.3\.0"),
        ({"gpu": ORIN._replace(multiprocessors=16)}, "multiprocessors 16, here it is 8"),
        ({"gpu": Gpu("NVIDIA T4", "7.5", 40, "12.6")}, r"GPU NVIDIA T4, here it is Orin; compute .* 7\.5"),
        ({"library": "tensorrt_rtx", "gpu": None}, ""),  # RTX engines run on any card that it knows
        ({"library": "tensorrt_rtx", "gpu": None, "library_version": "1.2"}, r"tensorrt_rtx 1\.2, here"),
    ],
)
def test_an_engine_of_elsewhere_or_another_version_is_refused_with_what_differs(
    changes: dict[str, object], differing: str
) -> None:
    made = passport(**changes)
    if not differing:
        require_home(made, version="10.3.0", gpu=ORIN, engine=Path("face.engine"))
        return
    with pytest.raises(EngineError, match=rf"{differing}.*edge-fr build face\.onnx -o face\.engine"):
        require_home(made, version="10.3.0", gpu=ORIN, engine=Path("face.engine"))


def test_without_a_driver_an_engine_is_refused_and_no_library_is_loaded(tmp_path: Path) -> None:
    """In a process of its own: a library that is loaded would be seen, and a crash would be too."""
    path = write_engine(tmp_path, passport(library="tensorrt_rtx", gpu=None))
    code = (
        "import ctypes, sys\n"
        "try:\n    ctypes.CDLL('libcuda.so.1')\n    sys.exit(9)\nexcept OSError:\n    pass\n"
        "from edge_fr.engine import open_engine\n"
        "from edge_fr.errors import EngineError\n"
        "try:\n    open_engine(sys.argv[1], device='cuda')\n"
        "except EngineError as error:\n    print(error)\n"
        "print({'tensorrt', 'tensorrt_rtx'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=False
    )
    if done.returncode == 9:
        pytest.skip("this machine has an NVIDIA driver")
    assert done.returncode == 0, done.stderr
    message, modules = done.stdout.strip().splitlines()
    assert "need an NVIDIA GPU and its driver, and there is none here" in message
    assert modules == "set()"
