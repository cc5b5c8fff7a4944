"""Stand-ins for a GPU: a `Cuda` whose device memory is the host's, and the library on top of it.

Both keep to what the real ones demand (memory that was given out and is large enough, shapes set before
addresses are used, no work after a thing was freed) and fail the test where it is broken. The network
that the library runs is `y = 2 * x`, and `sum` over all but the first axis.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_fr.passport import Gpu

ORIN = Gpu("Orin", "8.7", 8, "12.6")


class FakeCuda:
    """Queues work on its stream and does it when waited for, or at once while nothing is captured."""

    def __init__(self, *, gpu: Gpu = ORIN, has_graphs: bool = True, free: int = 4 << 30) -> None:
        self.has_graphs = has_graphs
        self.allocations: list[tuple[str, int]] = []
        self.log: list[str] = []
        self.memory: dict[int, NDArray[np.uint8]] = {}
        self.depth = 0
        self.closed = False
        self.queue: list[Callable[[], None]] = []
        self.capture_fails = False
        self._gpu, self._free = gpu, free
        self._next = 0x1000
        self._host: list[NDArray[np.uint8]] = []

    @contextmanager
    def current(self) -> Iterator[None]:
        self.depth += 1
        try:
            yield
        finally:
            self.depth -= 1

    def gpu(self) -> Gpu:
        return self._gpu

    def free_bytes(self) -> int:
        self._ready()
        return self._free

    def pinned(self, size: int) -> NDArray[np.uint8]:
        self._ready()
        self.allocations.append(("pinned", size))
        self._host.append(np.zeros(size, np.uint8))
        return self._host[-1]

    def device(self, size: int) -> int:
        self._ready()
        self.allocations.append(("device", size))
        address, self._next = self._next, self._next + (size // 256 + 2) * 256
        self.memory[address] = np.zeros(size, np.uint8)
        return address

    def stream(self) -> int:
        self._ready()
        self.allocations.append(("stream", 0))
        return 7

    def upload(self, target: int, source: NDArray[np.uint8], stream: int) -> None:
        self._ready()
        assert stream == 7
        assert any(np.shares_memory(source, host) for host in self._host), "not page-locked"
        self.do("upload", lambda: self._copy(self.memory[target][: source.nbytes], source))

    def download(self, target: NDArray[np.uint8], source: int, stream: int) -> None:
        self._ready()
        assert stream == 7
        assert any(np.shares_memory(target, host) for host in self._host), "not page-locked"
        self.do("download", lambda: self._copy(target, self.memory[source][: target.nbytes]))

    @staticmethod
    def _copy(target: NDArray[np.uint8], source: NDArray[np.uint8]) -> None:
        assert len(target) == len(source), "the memory is too small for the copy"
        target[:] = source

    def wait(self, stream: int) -> None:
        self._ready()
        self.log.append("wait")
        for work in self.queue:
            work()
        self.queue.clear()

    def capture(self, work: Callable[[], None], stream: int) -> list[Callable[[], None]]:
        from edge_fr.errors import EngineError

        self._ready()
        assert not self.queue, "captured while other work is on the stream"
        self.log.append("capture")
        work()
        graph, self.queue = self.queue, []
        if self.capture_fails:
            raise EngineError("cuStreamEndCapture failed: operation not permitted")
        return graph

    def launch(self, graph: list[Callable[[], None]], stream: int) -> None:
        self._ready()
        self.log.append("launch")
        self.queue += graph

    def do(self, name: str, work: Callable[[], None]) -> None:
        self.log.append(name)
        self.queue.append(work)

    def close(self) -> None:
        assert not self.closed, "closed twice"
        self.closed = True
        self.memory.clear()

    def _ready(self) -> None:
        assert not self.closed, "used after it was closed"
        assert self.depth, "used outside of current()"


class FakeContext:
    def __init__(self, engine: FakeEngine, *, needs_memory: bool) -> None:
        self.engine = engine
        self.addresses: dict[str, int] = {}
        self.needs_memory = needs_memory
        self.capturable = engine.trt.capturable
        self.shape: tuple[int, ...] | None = engine.shape if -1 not in engine.shape else None

    def set_device_memory(self, address: int, size: int) -> None:
        assert len(self.engine.trt.cuda.memory[address]) >= size >= self.engine.device_memory_size_v2
        self.needs_memory = False

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        assert name == "x"
        assert -1 in self.engine.shape
        self.shape = shape
        return bool(np.all(np.array(shape) <= self.engine.greatest))

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        assert self.shape is not None
        return {"x": self.shape, "y": self.shape, "sum": self.shape[:1]}[name]

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.addresses[name] = address
        return address in self.engine.trt.cuda.memory

    def execute_async_v3(self, stream: int) -> bool:
        cuda = self.engine.trt.cuda
        assert not self.needs_memory
        assert self.shape is not None
        assert self.addresses.keys() == {"x", "y", "sum"}
        if self.engine.trt.refuses_launch:
            self.engine.trt.complain("Error Code 1: Cuda Runtime (an illegal memory access)")
            return False
        shape, addresses = self.shape, dict(self.addresses)

        def run() -> None:
            count = int(np.prod(shape))
            memory = {name: cuda.memory[address].view(np.float32) for name, address in addresses.items()}
            x = memory["x"][:count].reshape(shape)
            memory["y"][:count] = 2 * x.reshape(-1)
            memory["sum"][: shape[0]] = x.reshape(shape[0], -1).sum(axis=1)

        cuda.do("execute", run)
        return True


class CapturableContext(FakeContext):
    """As RTX has them: kernels for a shape are compiled while other work goes on."""

    def is_stream_capturable(self, stream: int) -> bool:
        self.capturable -= 1
        return self.capturable < 0


class FakeEngine:
    device_memory_size_v2 = 1000
    num_io_tensors = 3

    def __init__(self, trt: FakeTensorRT, shape: tuple[int, ...], greatest: tuple[int, ...]) -> None:
        self.trt, self.shape, self.greatest = trt, shape, greatest
        self.contexts: list[FakeContext] = []

    def create_execution_context(self, strategy: str = "STATIC") -> FakeContext | None:
        if self.trt.refuses_context:
            return None
        kind = CapturableContext if self.trt.capturable else FakeContext
        self.contexts.append(kind(self, needs_memory=strategy == "USER_MANAGED"))
        return self.contexts[-1]

    def get_tensor_name(self, index: int) -> str:
        return ("x", "y", "sum")[index]

    def get_tensor_mode(self, name: str) -> str:
        return "INPUT" if name == "x" else "OUTPUT"

    def get_tensor_dtype(self, name: str) -> SimpleNamespace:
        return SimpleNamespace(name=self.trt.dtype)

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return self.shape[:1] if name == "sum" else self.shape


class FakeTensorRT:
    """A library's module; its plan is any bytes but b"damaged"."""

    __version__ = "10.3.0"
    TensorIOMode = SimpleNamespace(INPUT="INPUT", OUTPUT="OUTPUT")
    ExecutionContextAllocationStrategy = SimpleNamespace(USER_MANAGED="USER_MANAGED")

    class ILogger:
        INTERNAL_ERROR, ERROR, WARNING = "INTERNAL_ERROR", "ERROR", "WARNING"

    def __init__(
        self,
        cuda: FakeCuda,
        *,
        shape: tuple[int, ...] = (-1, 3, 4),
        greatest: tuple[int, ...] = (32, 3, 4),
    ) -> None:
        self.cuda = cuda
        self.engine = FakeEngine(self, shape, greatest)
        self.dtype = "FLOAT"
        self.refuses_launch = self.refuses_context = False
        self.capturable = 0  # how often a context says that it is not capturable yet
        self.loggers: list[Any] = []

    def complain(self, text: str) -> None:
        self.loggers[-1].log(self.ILogger.WARNING, "not of interest")
        self.loggers[-1].log(self.ILogger.ERROR, text)

    def Runtime(self, logger: Any) -> SimpleNamespace:
        assert self.cuda.depth, "a Runtime outside of a CUDA context"
        self.loggers.append(logger)

        def deserialize(plan: bytes) -> FakeEngine | None:
            if plan == b"damaged":
                self.complain("IRuntime::deserializeCudaEngine: Error Code 1:\n Serialization")
                return None
            return self.engine

        return SimpleNamespace(deserialize_cuda_engine=deserialize)
