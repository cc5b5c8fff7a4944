"""Memory, streams and graphs: the real cuda-bindings on a driver compiled here, and pycuda's surface."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from edge_fr._cuda import Pycuda, open_cuda
from edge_fr.errors import EngineError

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a libcuda.so.1 whose GPU is the host's memory."""
    pytest.importorskip("cuda.bindings.driver", reason="cuda-bindings is not installed")
    compiler = shutil.which("gcc")
    if compiler is None:
        pytest.skip("no gcc to build a stand-in for the driver")
    folder = tmp_path_factory.mktemp("driver")
    source = Path(__file__).with_name("fake_driver.c")
    command = [compiler, "-shared", "-fPIC", "-o", str(folder / "libcuda.so.1"), str(source), "-ldl"]
    subprocess.run(command, check=True)
    return folder


def on(driver: Path, code: str, *, fail: str = "") -> tuple[list[str], list[str]]:
    """What the code prints, and what the driver was asked for, in a process with that driver."""
    code = "import numpy as np\nfrom edge_fr._cuda import open_cuda\n" + textwrap.dedent(code)
    environment = {**os.environ, "LD_LIBRARY_PATH": str(driver), "FAIL": fail, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines(), done.stderr.splitlines()


def test_the_gpu_is_named_as_the_driver_names_it(driver: Path) -> None:
    printed, _ = on(
        driver,
        """
        cuda = open_cuda()
        print(type(cuda).__name__, *cuda.gpu())
        with cuda.current():
            print(cuda.free_bytes())
        """,
    )
    assert printed == ["CudaBindings Orin 8.7 4 12.6", "1000"]


MOVE = """
    cuda = open_cuda()
    with cuda.current():
        host, back = cuda.pinned(8), cuda.pinned(8)
        memory, stream = cuda.device(8), cuda.stream()
        def move():
            cuda.upload(memory, host[:6], stream)
            cuda.download(back[:6], memory, stream)
        host[:] = range(8)
"""


def test_bytes_go_up_and_come_back_and_everything_is_freed_newest_first(driver: Path) -> None:
    printed, asked = on(
        driver,
        MOVE
        + """
        move()
        cuda.wait(stream)
        print(*back)
    cuda.close()
    """,
    )
    assert printed == ["0 1 2 3 4 5 0 0"]
    assert asked == [
        *["retain", "pinned 8", "pinned 8", "device 8", "stream 1"],  # 1: it waits for no other stream
        *["upload 6 on 0x22", "download 6 on 0x22", "wait 0x22"],
        *["free stream 0x22", "free device", "free pinned", "free pinned", "release"],
    ]


def test_a_graph_does_what_was_captured_with_what_lies_there_when_it_is_launched(driver: Path) -> None:
    printed, asked = on(
        driver,
        MOVE
        + """
        graph = cuda.capture(move, stream)
        print(*back)
        host[:] = 9
        cuda.launch(graph, stream)
        print(*back)
    cuda.close()
    """,
    )
    assert printed == ["0 0 0 0 0 0 0 0", "9 9 9 9 9 9 0 0"]
    assert asked[5:] == [
        # 1: allocations of other threads do not spoil it
        *["capture mode 1", "upload 6 on 0x22", "download 6 on 0x22", "end capture", "instantiate 0x33"],
        *["free graph 0x33", "launch 0x44 on 0x22", "free executable 0x44"],
        *["free stream 0x22", "free device", "free pinned", "free pinned", "release"],
    ]


def test_work_that_fails_while_it_is_captured_ends_the_capture(driver: Path) -> None:
    printed, asked = on(
        driver,
        MOVE
        + """
        def broken():
            move()
            raise KeyError("x")
        try:
            cuda.capture(broken, stream)
        except KeyError as error:
            print(repr(error))
        cuda.wait(stream)
        """,
    )
    assert printed == ["KeyError('x')"]
    assert asked[-2:] == ["end capture", "wait 0x22"]


@pytest.mark.parametrize(
    ("fail", "message"),
    [
        ("cuInit", "cuInit failed: no CUDA-capable device is detected; `edge-fr doctor`"),
        ("cuMemAlloc", "cuMemAlloc failed: out of memory"),
        ("cuStreamSynchronize", "cuStreamSynchronize failed: another error"),
        ("cuGraphInstantiate", "cuGraphInstantiate failed: out of memory"),
    ],
)
def test_what_the_driver_refuses_is_an_error_in_its_words(driver: Path, fail: str, message: str) -> None:
    printed, asked = on(
        driver,
        """
        from edge_fr.errors import EngineError
        try:
            cuda = open_cuda()
            with cuda.current():
                cuda.device(8)
                stream = cuda.stream()
                cuda.wait(stream)
                cuda.capture(lambda: None, stream)
        except EngineError as error:
            print(error)
        """,
        fail=fail,
    )
    assert len(printed) == 1
    assert printed[0].startswith(message)
    assert fail != "cuGraphInstantiate" or asked[-1] == "free graph 0x33"


def test_a_driver_that_lacks_a_function_is_an_error_and_not_a_crash(tmp_path: Path, driver: Path) -> None:
    """As a binding finds it that is newer than the driver."""
    compiler = shutil.which("gcc")
    assert compiler is not None
    source = tmp_path / "old.c"
    source.write_text(
        Path(__file__).with_name("fake_driver.c").read_text().replace("fake_cuMemGetInfo", "fake_gone")
    )
    command = [compiler, "-shared", "-fPIC", "-o", str(tmp_path / "libcuda.so.1"), str(source), "-ldl"]
    subprocess.run(command, check=True)
    printed, _ = on(
        tmp_path,
        """
        from edge_fr.errors import EngineError
        cuda = open_cuda()
        try:
            with cuda.current():
                cuda.free_bytes()
        except EngineError as error:
            print(error)
        """,
    )
    assert "cuMemGetInfo" in printed[0]
    assert "whether the binding fits it" in printed[0]


def test_without_a_driver_there_is_an_error_that_says_so() -> None:
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        with pytest.raises(EngineError, match="need an NVIDIA GPU and its driver, and there is none here"):
            open_cuda()
    else:
        pytest.skip("this machine has an NVIDIA driver")


class FakePycuda:
    """The names that pycuda.driver gives, with what they take; device memory is the host's."""

    class Error(Exception):
        pass

    device_attribute = SimpleNamespace(MULTIPROCESSOR_COUNT="count")

    def __init__(self) -> None:
        self.log: list[str] = []
        self.memory: dict[int, bytearray] = {}
        self.full = False

    def init(self) -> None:
        self.log.append("init")

    def Device(self, ordinal: int) -> Any:
        assert ordinal == 0
        context = SimpleNamespace(push=lambda: self.log.append("push"), pop=lambda: self.log.append("pop"))
        return SimpleNamespace(
            retain_primary_context=lambda: context,
            compute_capability=lambda: (8, 7),
            get_attribute={"count": 8}.get,
            name=lambda: "Orin",
        )

    def get_driver_version(self) -> int:
        return 11040

    def mem_get_info(self) -> tuple[int, int]:
        return 1000, 2000

    def pagelocked_empty(self, shape: int, dtype: Any) -> np.ndarray:
        return np.asarray(Pagelocked(shape, self.log)).astype(dtype, copy=False)

    def mem_alloc(self, size: int) -> Any:
        if self.full:
            raise self.Error("cuMemAlloc failed: out of memory")
        memory = Allocation(self.log)
        self.memory[int(memory)] = bytearray(size)
        return memory

    def Stream(self) -> Any:
        return SimpleNamespace(handle=7, synchronize=lambda: self.log.append("wait"))

    def memcpy_htod_async(self, target: int, source: np.ndarray, stream: Any) -> None:
        assert stream.handle == 7
        self.memory[target][: source.nbytes] = source.tobytes()

    def memcpy_dtoh_async(self, target: np.ndarray, source: int, stream: Any) -> None:
        assert stream.handle == 7
        target[:] = np.frombuffer(self.memory[source], np.uint8)[: target.nbytes]


class Pagelocked:
    """What an array of page-locked memory has as its base."""

    def __init__(self, size: int, log: list[str]) -> None:
        self.kept = np.zeros(size, np.uint8)
        self.log = log

    @property
    def __array_interface__(self) -> dict[str, Any]:
        return self.kept.__array_interface__

    def free(self) -> None:
        self.log.append("free pinned")


class Allocation(int):
    log: list[str]

    def __new__(cls, log: list[str]) -> Allocation:
        made = super().__new__(cls, 0x5000)
        made.log = log
        return made

    def free(self) -> None:
        self.log.append("free device")


def test_pycuda_moves_the_same_bytes_and_frees_inside_its_context() -> None:
    fake = FakePycuda()
    cuda = Pycuda(fake)
    assert tuple(cuda.gpu()) == ("Orin", "8.7", 8, "11.4")
    with cuda.current():
        host, back = cuda.pinned(8), cuda.pinned(8)
        memory, stream = cuda.device(8), cuda.stream()
        assert cuda.free_bytes() == 1000
        host[:] = range(8)
        cuda.upload(memory, host[:6], stream)
        cuda.download(back[:6], memory, stream)
        cuda.wait(stream)
    assert back.tolist() == [0, 1, 2, 3, 4, 5, 0, 0]
    cuda.close()
    assert fake.log == [
        *["init", "push", "wait", "pop"],
        *["push", "free device", "free pinned", "free pinned", "pop"],
    ]


def test_pycuda_s_refusals_are_errors_of_ours_and_it_has_no_graphs() -> None:
    fake = FakePycuda()
    cuda = Pycuda(fake)
    assert not cuda.has_graphs
    with pytest.raises(EngineError, match="pycuda records no CUDA graphs"):
        cuda.capture(lambda: None, 7)
    fake.full = True
    with (
        pytest.raises(EngineError, match="cuMemAlloc failed: out of memory; `edge-fr doctor`"),
        cuda.current(),
    ):
        cuda.device(8)
    assert fake.log[-1] == "pop"
