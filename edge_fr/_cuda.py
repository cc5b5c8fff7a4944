"""Device memory, page-locked memory, streams and graphs, through cuda-bindings or pycuda.

The only module that imports either. A `Cuda` owns all that it hands out and frees it in `close`; it is
for one thread at a time, inside `with cuda.current():`.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edge_fr.errors import EngineError, MissingDependencyError
from edge_fr.passport import Gpu

Bytes = NDArray[np.uint8]
_ASK = "`edge-fr doctor` asks the driver for its GPUs, and says whether the binding fits it"
_ORDINAL = 0  # a device has one GPU; elsewhere CUDA_VISIBLE_DEVICES says which comes first


class Cuda(Protocol):
    """What an engine needs of a CUDA binding. Addresses, streams and graphs are plain integers or opaque."""

    has_graphs: bool

    def current(self) -> Any:
        """A context manager: inside, the GPU is the one that this thread talks to."""
        ...

    def gpu(self) -> Gpu: ...
    def free_bytes(self) -> int: ...
    def pinned(self, size: int) -> Bytes:
        """Page-locked memory of the host, which the GPU copies from and to without the CPU."""
        ...

    def device(self, size: int) -> int:
        """The address of memory on the GPU."""
        ...

    def stream(self) -> int:
        """A queue of work, done in order; its handle."""
        ...

    def upload(self, target: int, source: Bytes, stream: int) -> None: ...
    def download(self, target: Bytes, source: int, stream: int) -> None: ...
    def wait(self, stream: int) -> None:
        """Returns when the stream's work is done. EngineError if some of it failed."""
        ...

    def capture(self, work: Callable[[], None], stream: int) -> Any:
        """Records what `work` puts on the stream as a graph, without running it."""
        ...

    def launch(self, graph: Any, stream: int) -> None: ...
    def close(self) -> None: ...


def require_driver() -> None:
    """EngineError where no NVIDIA driver is installed; TensorRT's own answer to that may be a crash."""
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        raise EngineError(
            f"engines need an NVIDIA GPU and its driver, and there is none here ({error}); "
            f"`edge-fr doctor` shows what this machine has, and an .onnx file runs on the CPU"
        ) from error


def open_cuda() -> Cuda:
    """The first GPU, through whichever binding is installed.

    EngineError without a driver or a GPU, MissingDependencyError without a binding.
    """
    require_driver()
    try:
        from cuda.bindings import driver
    except ModuleNotFoundError:
        pass
    else:
        return CudaBindings(driver)
    try:
        import pycuda.driver
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            "running an engine needs cuda-bindings or pycuda, and neither is installed; install one with: "
            'pip install "cuda-bindings==12.*" (12 stands for the CUDA version of the driver)'
        ) from error
    return Pycuda(pycuda.driver)


class CudaBindings:
    """The package cuda-bindings: the driver's C functions, each returning its status first."""

    has_graphs = True

    def __init__(self, driver: Any) -> None:
        self._driver = driver
        self._owned = ExitStack()
        self._call("cuInit", 0)
        (self._device,) = self._call("cuDeviceGet", _ORDINAL)
        (self._context,) = self._call("cuDevicePrimaryCtxRetain", self._device)

    def _call(self, name: str, *arguments: Any) -> tuple[Any, ...]:
        try:
            status, *results = getattr(self._driver, name)(*arguments)
        except RuntimeError as error:  # a driver older than the binding lacks the function
            raise EngineError(f"{name} failed: {error}; {_ASK}") from error
        if int(status) != 0:
            _, text = self._driver.cuGetErrorString(status)
            reason = text.decode() if text else f"error {int(status)}"
            raise EngineError(f"{name} failed: {reason}; {_ASK}")
        return tuple(results)

    @contextmanager
    def current(self) -> Iterator[None]:
        self._call("cuCtxPushCurrent", self._context)
        try:
            yield
        finally:
            self._call("cuCtxPopCurrent")

    def gpu(self) -> Gpu:
        def attribute(name: str) -> int:
            key = getattr(self._driver.CUdevice_attribute, f"CU_DEVICE_ATTRIBUTE_{name}")
            return int(self._call("cuDeviceGetAttribute", key, self._device)[0])

        (name,) = self._call("cuDeviceGetName", 256, self._device)
        (version,) = self._call("cuDriverGetVersion")
        return Gpu(
            name.split(b"\0")[0].decode(errors="replace"),
            f"{attribute('COMPUTE_CAPABILITY_MAJOR')}.{attribute('COMPUTE_CAPABILITY_MINOR')}",
            attribute("MULTIPROCESSOR_COUNT"),
            _cuda_version(version),
        )

    def free_bytes(self) -> int:
        return int(self._call("cuMemGetInfo")[0])

    def pinned(self, size: int) -> Bytes:
        (address,) = self._call("cuMemHostAlloc", size, 0)
        self._owned.callback(self._call, "cuMemFreeHost", address)
        return np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(int(address)))

    def device(self, size: int) -> int:
        (address,) = self._call("cuMemAlloc", size)
        self._owned.callback(self._call, "cuMemFree", address)
        return int(address)

    def stream(self) -> int:
        # Non-blocking: it does not wait for other libraries' work on the default stream.
        (stream,) = self._call("cuStreamCreate", self._driver.CUstream_flags.CU_STREAM_NON_BLOCKING.value)
        self._owned.callback(self._call, "cuStreamDestroy", stream)
        return int(stream)

    def upload(self, target: int, source: Bytes, stream: int) -> None:
        self._call("cuMemcpyHtoDAsync", target, source.ctypes.data, source.nbytes, stream)

    def download(self, target: Bytes, source: int, stream: int) -> None:
        self._call("cuMemcpyDtoHAsync", target.ctypes.data, source, target.nbytes, stream)

    def wait(self, stream: int) -> None:
        self._call("cuStreamSynchronize", stream)

    def capture(self, work: Callable[[], None], stream: int) -> Any:
        # Thread-local: other threads may allocate meanwhile.
        mode = self._driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
        self._call("cuStreamBeginCapture", stream, mode)
        try:
            work()
        except BaseException:
            self._driver.cuStreamEndCapture(stream)  # its status repeats that the capture is broken
            raise
        (graph,) = self._call("cuStreamEndCapture", stream)
        try:
            (executable,) = self._call("cuGraphInstantiate", graph, 0)
        finally:
            self._call("cuGraphDestroy", graph)
        self._owned.callback(self._call, "cuGraphExecDestroy", executable)
        return executable

    def launch(self, graph: Any, stream: int) -> None:
        self._call("cuGraphLaunch", graph, stream)

    def close(self) -> None:
        """Frees everything, newest first; nothing that was handed out may be used after."""
        with self.current():
            self._owned.close()
        self._call("cuDevicePrimaryCtxRelease", self._device)


class Pycuda:
    """The package pycuda, which JetPack users have: objects that free themselves, and no graphs."""

    has_graphs = False

    def __init__(self, driver: Any) -> None:
        self._driver = driver
        self._streams: dict[int, Any] = {}
        self._pinned: list[Bytes] = []
        self._memory: list[Any] = []
        self._call(driver.init)
        self._device = self._call(driver.Device, _ORDINAL)
        self._context = self._call(self._device.retain_primary_context)

    def _call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return function(*arguments)
        except self._driver.Error as error:
            raise EngineError(f"{error}; {_ASK}") from error

    @contextmanager
    def current(self) -> Iterator[None]:
        self._call(self._context.push)
        try:
            yield
        finally:
            self._call(self._context.pop)

    def gpu(self) -> Gpu:
        major, minor = self._call(self._device.compute_capability)
        count = self._call(self._device.get_attribute, self._driver.device_attribute.MULTIPROCESSOR_COUNT)
        version = self._call(self._driver.get_driver_version)
        return Gpu(self._device.name(), f"{major}.{minor}", int(count), _cuda_version(version))

    def free_bytes(self) -> int:
        return int(self._call(self._driver.mem_get_info)[0])

    def pinned(self, size: int) -> Bytes:
        array: Bytes = self._call(self._driver.pagelocked_empty, size, np.uint8)
        self._pinned.append(array)
        return array

    def device(self, size: int) -> int:
        memory = self._call(self._driver.mem_alloc, size)
        self._memory.append(memory)
        return int(memory)

    def stream(self) -> int:
        stream = self._call(self._driver.Stream)
        self._streams[int(stream.handle)] = stream
        return int(stream.handle)

    def upload(self, target: int, source: Bytes, stream: int) -> None:
        self._call(self._driver.memcpy_htod_async, target, source, self._streams[stream])

    def download(self, target: Bytes, source: int, stream: int) -> None:
        self._call(self._driver.memcpy_dtoh_async, target, source, self._streams[stream])

    def wait(self, stream: int) -> None:
        self._call(self._streams[stream].synchronize)

    def capture(self, work: Callable[[], None], stream: int) -> Any:
        raise EngineError("pycuda records no CUDA graphs; cuda-bindings does: pip install cuda-bindings")

    def launch(self, graph: Any, stream: int) -> None:
        raise EngineError("pycuda launches no CUDA graphs; cuda-bindings does: pip install cuda-bindings")

    def close(self) -> None:
        """Frees everything; nothing that was handed out may be used after."""
        with self.current():
            for memory in self._memory:
                self._call(memory.free)
            for array in self._pinned:
                allocation: Any = array.base
                self._call(allocation.free)
            self._memory.clear()
            self._pinned.clear()
            self._streams.clear()
        self._context = None


def _cuda_version(number: int) -> str:
    return f"{number // 1000}.{number % 1000 // 10}"
