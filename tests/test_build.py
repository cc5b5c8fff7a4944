"""ONNX to engine: by the real TensorRT for RTX, which needs no GPU for it, and under each version's names."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_builder import FakeConfig, FakeLibrary
from fake_tensorrt import ORIN, FakeCuda
from fakes import card
from onnx import helper
from onnx_files import doubling, save, tensor

from edge_fr._files import locked
from edge_fr.build import Built, build, read_faces
from edge_fr.engine import open_engine
from edge_fr.errors import CardError, EngineError, ModelError
from edge_fr.models import resolve
from edge_fr.passport import passport_path, read_passport

BUILT_FOR_REAL = ["yunet", "sface"]  # names or paths; an engine of each is built, and it may take seconds


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder of the test's own for what builds learn; `models` and `real` look in the user's."""
    monkeypatch.setenv("EDGE_FR_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def models() -> dict[str, Path]:
    return {name: resolve(name) for name in BUILT_FOR_REAL}


@pytest.fixture(scope="module", params=BUILT_FOR_REAL)
def real(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Built]:
    """A model's file, and the engine that TensorRT for RTX makes of it."""
    pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx-cu13 is not installed")
    source = resolve(request.param)
    output = tmp_path_factory.mktemp("engines") / "m.engine"
    return source, build(source, output, library="tensorrt_rtx", unproven=True)


def test_a_real_model_becomes_an_engine_without_a_gpu(real: tuple[Path, Built]) -> None:
    source, built = real
    assert not built.reused
    # Weights are most of a model, and the engine holds them in the file's own precision.
    assert built.path.stat().st_size > 0.9 * source.stat().st_size
    made = read_passport(built.path)
    assert made == built.passport
    assert (made.source, made.library, made.gpu) == (source.name, "tensorrt_rtx", None)
    assert "STRONGLY_TYPED" in made.flags
    ((least, _, greatest),) = made.profile.values()
    assert (least[0], greatest[0]) == ((1, 1) if made.card.task == "detect" else (1, 32))


def test_the_same_build_again_keeps_the_engine(real: tuple[Path, Built]) -> None:
    source, built = real
    again = build(source, built.path, library="tensorrt_rtx", unproven=True)
    assert again == built._replace(reused=True)


def test_a_real_engine_is_refused_without_a_driver_and_nothing_crashes(real: tuple[Path, Built]) -> None:
    code = (
        "import ctypes, sys\n"
        "try:\n    ctypes.CDLL('libcuda.so.1')\n    sys.exit(9)\nexcept OSError:\n    pass\n"
        "from edge_fr.engine import open_engine\n"
        "open_engine(sys.argv[1], device='cuda')"
    )
    command = [sys.executable, "-c", code, str(real[1].path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == 9:
        pytest.skip("this machine has an NVIDIA driver")
    assert done.returncode == 1  # a Python error, not a signal
    assert "EngineError: engines need an NVIDIA GPU and its driver" in done.stderr


def test_a_real_parser_s_refusal_is_told(tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx-cu13 is not installed")
    node = helper.make_node("NoSuchOperator", ["x"], ["y"])
    path = save(tmp_path / "m.onnx", [node], [tensor("x", 1, 4)], [tensor("y", 1, 4)], card=card())
    with pytest.raises(EngineError, match=r"tensorrt_rtx .* does not take .*m\.onnx: .*NoSuchOperator"):
        build(path, tmp_path / "m.engine", library="tensorrt_rtx")
    assert not (tmp_path / "m.engine").exists()


def test_ctrl_c_ends_a_real_build_and_leaves_no_engine(tmp_path: Path, models: dict[str, Path]) -> None:
    pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx-cu13 is not installed")
    asked: list[str] = []

    def interrupt(phase: str, step: int, steps: int) -> None:
        if not asked:
            asked.append(phase)
            os.kill(os.getpid(), signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in a shell's background
    try:
        with pytest.raises(KeyboardInterrupt):
            build(models["sface"], tmp_path / "m.engine", library="tensorrt_rtx", progress=interrupt)
    finally:
        signal.signal(signal.SIGINT, before)
    assert asked
    assert not (tmp_path / "m.engine").exists()
    assert not [thread for thread in threading.enumerate() if thread.name == "edge-fr build"]


def make(folder: Path, trt: FakeLibrary, *, cuda: FakeCuda | None = None, **options: Any) -> Built:
    source = folder / "face.onnx"
    if not source.exists():
        doubling(source, card(precision=options.pop("precision", "fp32"), verdict="passed"))
    return build(source, folder / "face.engine", trt=trt, cuda=cuda or FakeCuda(), **options)


@pytest.mark.parametrize(
    ("version", "precision", "bits", "told"),
    [
        ("8.6.2", "fp32", 1, ("EXPLICIT_BATCH", "no TF32")),
        ("8.6.2", "fp16", 1, ("EXPLICIT_BATCH", "FP16", "no TF32")),
        ("8.6.2", "int8", 1, ("EXPLICIT_BATCH", "INT8", "no TF32")),
        ("10.3.0", "int8", 2, ("STRONGLY_TYPED", "no TF32")),
        ("11.4.1", "fp16", 1, ("STRONGLY_TYPED", "no TF32")),
    ],
)
def test_each_version_is_told_the_file_s_precision_in_its_own_way(
    tmp_path: Path, version: str, precision: str, bits: int, told: tuple[str, ...]
) -> None:
    trt = FakeLibrary(version)
    built = make(tmp_path, trt, precision=precision)
    (config,) = trt.configs
    assert trt.network_bits == bits
    assert config.flags == {name for name in told if name in ("FP16", "INT8")}
    assert built.passport.flags == told
    assert built.passport.gpu == ORIN


def test_the_profile_and_the_workspace_are_handed_to_the_builder(tmp_path: Path) -> None:
    trt = FakeLibrary("10.3.0")
    built = make(tmp_path, trt, cuda=FakeCuda(free=1000))
    (config,) = trt.configs
    assert config.pools == {"WORKSPACE": 500}
    shapes = ((1, 3, 4), (8, 3, 4), (32, 3, 4))
    assert [profile.shapes for profile in config.profiles] == [{"x": shapes}]
    assert built.passport.profile == {"x": shapes}


def test_a_network_of_fixed_shape_gets_no_profile(tmp_path: Path) -> None:
    trt = FakeLibrary("10.3.0", shape=(2, 3, 4))
    assert make(tmp_path, trt).passport.profile == {"x": ((2, 3, 4),) * 3}
    assert trt.configs[0].profiles == []


def test_a_dimension_that_nobody_knows_the_size_of_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"leaves dimension 1 open, expected only the batch"):
        make(tmp_path, FakeLibrary("10.3.0", shape=(1, -1, 4)))


def test_what_one_build_learned_is_there_for_the_next_unless_it_is_damaged(
    tmp_path: Path, cache: Path
) -> None:
    seen: list[bytes] = []
    trt = FakeLibrary("10.3.0", on_build=lambda config: seen.append(config.timings))
    for _ in range(2):
        make(tmp_path, trt, force=True)
    (kept,) = (cache / "timings").iterdir()
    kept.write_bytes(kept.read_bytes()[:-1] + b"?")
    make(tmp_path, trt, force=True)
    assert seen == [b"new", b"new+", b"new"]


@pytest.mark.parametrize(
    ("change", "reused"),
    [
        (lambda folder: {}, True),
        (lambda folder: {"cuda": FakeCuda(gpu=ORIN._replace(driver="12.9"))}, True),
        (lambda folder: {"cuda": FakeCuda(gpu=ORIN._replace(multiprocessors=16))}, False),
        (lambda folder: {"trt": FakeLibrary("10.4.0")}, False),
        (lambda folder: {"force": True}, False),
        (lambda folder: (folder / "face.engine").write_bytes(b"plam") and {}, False),
        (lambda folder: passport_path(folder / "face.engine").write_text("{}") and {}, False),
        (lambda folder: passport_path(folder / "face.engine").unlink() or {}, False),
        (lambda folder: doubling(folder / "face.onnx", card(name="new")) and {}, False),
    ],
    ids=["same", "driver", "gpu", "version", "force", "engine", "passport", "no passport", "model"],
)
def test_an_engine_is_built_again_exactly_when_it_would_be_another(
    tmp_path: Path, change: Any, reused: bool
) -> None:
    make(tmp_path, FakeLibrary("10.3.0"))
    options = {"trt": FakeLibrary("10.3.0"), **change(tmp_path)}
    assert make(tmp_path, **options).reused is reused
    assert make(tmp_path, **{**options, "force": False}).reused is True


def test_an_engine_that_cannot_be_built_leaves_the_old_one(tmp_path: Path) -> None:
    before = make(tmp_path, FakeLibrary("10.3.0"))
    trt = FakeLibrary("10.4.0")
    trt.plan = None
    with pytest.raises(EngineError, match=r"10\.4\.0 could not build it: Error Code 2: OutOfMemory; if it"):
        make(tmp_path, trt)
    assert read_passport(before.path) == before.passport
    assert before.path.read_bytes() == b"plan"
    assert {entry.name for entry in tmp_path.iterdir()} >= {"face.engine", "face.engine.json"}
    assert not [path for path in tmp_path.glob(".*") if path.is_dir()]


def test_a_place_that_cannot_be_written_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "face.engine").mkdir()  # a folder in its place, which the superuser cannot overwrite either
    with pytest.raises(EngineError, match=r"face\.engine cannot be written .* name another place with -o"):
        make(tmp_path, FakeLibrary("10.3.0"))
    with pytest.raises(EngineError, match=r"expected a name that ends with \.engine"):
        build(doubling(tmp_path / "m.onnx", card()), tmp_path / "m.plan", trt=FakeLibrary("10.3.0"))


def _hold(path: Path, inside: Any, leave: Any) -> None:
    with locked(path, waiting=lambda: None):
        inside.set()
        leave.wait(300)


def test_a_build_waits_for_that_of_another_process_and_says_so(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    inside, leave = context.Event(), context.Event()
    other = context.Process(target=_hold, args=(tmp_path / "face.engine", inside, leave))
    other.start()
    assert inside.wait(300)
    told: list[str] = []

    def report(line: str) -> None:
        told.append(line)
        leave.set()

    make(tmp_path, FakeLibrary("10.3.0"), report=report)
    other.join(300)
    assert "another process builds" in told[0]
    assert told[1].startswith("building ")


def test_a_damaged_model_is_refused_before_the_library_sees_it(tmp_path: Path) -> None:
    (tmp_path / "face.onnx").write_bytes(b"\x08")
    trt = FakeLibrary("10.3.0")
    with pytest.raises(ModelError, match="damaged, hostile or not an ONNX file"):
        make(tmp_path, trt)
    assert trt.network_bits is None


def test_an_int8_model_without_a_passing_verdict_is_neither_built_nor_opened_unasked(
    tmp_path: Path,
) -> None:
    for verdict, message in (
        (None, "has not been compared"),
        ("refused", "was refused when it was compared"),
    ):
        path = doubling(tmp_path / "face.onnx", card(precision="int8", verdict=verdict))
        with pytest.raises(CardError, match=rf"{message} with its original; .*--unproven"):
            make(tmp_path, FakeLibrary("10.3.0"))
        with pytest.raises(CardError, match=message):
            open_engine(path)
        assert open_engine(path, unproven=True).card.verdict == verdict
        assert make(tmp_path, FakeLibrary("10.3.0"), unproven=True).passport.card.verdict == verdict
    path = doubling(tmp_path / "face.onnx", card(precision="int8", verdict="passed"))
    assert open_engine(path).card.verdict == "passed"
    gate = doubling(tmp_path / "gate.onnx", card(precision="int8", task="gate", guards="sha256:fake"))
    with pytest.raises(CardError, match="compared with its original; use the fp32 file, or say --unproven"):
        open_engine(gate)  # a court is for recognizers


FACES = np.random.default_rng(0).random((304, 3, 4, 4), np.float32)


def test_a_library_with_calibrators_is_shown_every_face_and_its_ranges_are_kept(
    tmp_path: Path, cache: Path
) -> None:
    """The names and calls are 8.6's; the library itself was not at hand."""
    cuda, shown = FakeCuda(), []

    def calibrate(config: Any) -> None:
        calibrator = config.int8_calibrator
        assert calibrator.ready
        if (ranges := calibrator.read_calibration_cache()) is not None:
            shown.append(ranges)
            return
        while (addresses := calibrator.get_batch(["x"])) is not None:
            (address,) = addresses
            shown.append(cuda.memory[address].view(np.float32).copy())
            assert calibrator.get_batch_size() * FACES[0].nbytes == shown[-1].nbytes
        calibrator.write_calibration_cache(b"ranges")

    trt = FakeLibrary("8.6.2", shape=(-1, 3, 4, 4), on_build=calibrate)
    built = make(tmp_path, trt, cuda=cuda, calibration=FACES, dla_core=0)
    np.testing.assert_array_equal(np.concatenate(shown), FACES.reshape(-1))
    assert built.passport.flags == (*("EXPLICIT_BATCH", "INT8", "FP16", "DLA:0", "GPU_FALLBACK", "no TF32"),)
    assert (built.passport.card.precision, built.passport.card.verdict) == ("int8", None)
    assert trt.configs[0].DLA_core == 0  # type: ignore[attr-defined]
    shown.clear()
    make(tmp_path, trt, cuda=FakeCuda(), calibration=FACES, dla_core=0, force=True)
    assert shown == [b"ranges"]


@pytest.mark.parametrize(
    ("version", "faces", "message"),
    [
        ("11.4.1", FACES, r"has no calibrators .*python -m calibration quantize"),
        ("8.6.2", FACES[:299], "expected float32 of"),
        ("8.6.2", FACES.astype(np.float64), "are float64 of shape"),
        ("8.6.2", FACES - 1, "leave the card's range of 0.0 to 255.0"),
        ("8.6.2", np.full_like(FACES, np.nan), "leave the card's range"),
    ],
)
def test_calibration_that_cannot_be_done_is_refused(
    tmp_path: Path, version: str, faces: np.ndarray, message: str
) -> None:
    with pytest.raises(EngineError, match=message):
        make(tmp_path, FakeLibrary(version, shape=(-1, 3, 4, 4)), calibration=faces)


def test_a_file_without_faces_is_refused_by_its_name(tmp_path: Path) -> None:
    np.save(tmp_path / "faces.npy", FACES)
    np.testing.assert_array_equal(read_faces(tmp_path / "faces.npy"), FACES)
    np.save(tmp_path / "objects.npy", np.array([{}], object), allow_pickle=True)
    for name in ("objects.npy", "absent.npy"):
        with pytest.raises(EngineError, match=rf"{name} holds no calibration faces"):
            read_faces(tmp_path / name)


def test_the_command_builds_keeps_and_refuses(tmp_path: Path, models: dict[str, Path]) -> None:
    pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx-cu13 is not installed")

    def edge_fr(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "edge_fr.cli", "build", *arguments]
        return subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)

    yunet = [str(models["yunet"]), "--library", "tensorrt_rtx", "--height", "64", "480", "480"]
    first = edge_fr(*yunet, "-o", "small.engine")
    assert (first.returncode, first.stdout) == (0, "written to small.engine\n"), first.stderr
    assert "with tensorrt_rtx" in first.stderr
    made = json.loads((tmp_path / "small.engine.json").read_text())
    assert made["profile"] == {"input": [[1, 3, 64, 32], [1, 3, 480, 1920], [1, 3, 480, 1920]]}
    assert edge_fr(*yunet, "-o", "small.engine").stdout == "kept small.engine\n"
    doubling(tmp_path / "int8.onnx", card(precision="int8"))
    refused = edge_fr("int8.onnx", "--library", "tensorrt_rtx")
    assert refused.returncode == 1
    assert refused.stderr.startswith("edge-fr: int8.onnx is an int8 model and has not been compared")
    wrong = edge_fr(*yunet[:3], "--batch", "8", "1", "1")
    assert "batch is 8 1 1, expected least, best and greatest" in wrong.stderr


def test_the_config_of_a_library_that_shows_progress_has_a_monitor_and_an_older_one_does_not(
    tmp_path: Path,
) -> None:
    told: list[tuple[str, int, int]] = []

    def work(config: FakeConfig) -> None:
        monitor = config.progress_monitor  # type: ignore[attr-defined]
        monitor.phase_start("Timing", None, 3)
        assert monitor.step_complete("Timing", 0) is True
        monitor.phase_finish("Timing")

    progress = lambda *step: told.append(step)  # noqa: E731
    make(tmp_path, FakeLibrary("10.3.0", on_build=work), progress=progress)
    assert told == [("Timing", 0, 3), ("Timing", 1, 3)]
    old = FakeLibrary("8.6.2")
    make(tmp_path, old, progress=progress)
    assert not hasattr(old.configs[0], "progress_monitor")
