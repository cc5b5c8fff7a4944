"""An engine on the GPU: its memory, its copies, its launches.

Handed the library's module and a `Cuda`, and imports neither: fakes of both drive every line of it.
"""

from __future__ import annotations

import math
import warnings
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_fr._cuda import Bytes, Cuda
from edge_fr.engine import TensorSpec
from edge_fr.errors import EngineError
from edge_fr.passport import Range

Shapes = tuple[tuple[int, ...], ...]

_DTYPES = {
    "FLOAT": np.float32,
    "HALF": np.float16,
    "INT8": np.int8,
    "INT32": np.int32,
    "INT64": np.int64,
    "UINT8": np.uint8,
    "BOOL": np.bool_,
}
_MAX_GRAPHS = 8  # of one engine: a detector's two looks at each of four cameras, or eight sizes of batch
_LINES_KEPT = 8  # of the library's complaints, newest last: the first cause is near the end


def make_logger(trt: Any) -> Any:
    """A logger of the library that keeps its complaints; `complaints()` tells the newest of them."""

    class Logger(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.lines: deque[str] = deque(maxlen=_LINES_KEPT)

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.INTERNAL_ERROR, trt.ILogger.ERROR):
                self.lines.append(" ".join(message.split()))

        def complaints(self) -> str:
            return "; ".join(self.lines) or "the library gave no reason"

    return Logger()


@dataclass
class _Prepared:
    """One set of input shapes: views of the page-locked memory of that shape, and how to launch it."""

    shapes: Shapes
    inputs: dict[str, NDArray[Any]]
    outputs: dict[str, NDArray[Any]]
    calls: int = 0
    context: Any = None  # of its own, once it has come twice
    graph: Any = None


class Session:
    """An engine on the GPU with all the memory it will ever use, allocated here.

    Inputs are copied to page-locked memory, from there to the GPU, and outputs back, on one stream.
    Shapes that come again are recorded as a CUDA graph, which launches copies and kernels at once;
    each graph needs a context whose shapes never change, and the contexts share one working memory.
    Libraries that cannot share it (8.6) and pycuda run without graphs.
    """

    def __init__(
        self, trt: Any, cuda: Cuda, plan: bytes, profile: Mapping[str, Range], *, where: str
    ) -> None:
        self._trt, self._cuda, self._where = trt, cuda, where
        self._logger = make_logger(trt)
        self._runtime: Any = None
        self._engine: Any = None
        self._shared: Any = None  # the context of all shapes that have no graph
        self._stream = 0
        self.inputs: tuple[TensorSpec, ...] = ()
        self.outputs: tuple[TensorSpec, ...] = ()
        self._scratch: tuple[int, int] | None = None  # address and size of the contexts' working memory
        self._host: dict[str, Bytes] = {}
        self._device: dict[str, int] = {}
        self._prepared: dict[Shapes, _Prepared] = {}
        self._graphs = 0
        try:
            with cuda.current():
                self._open(plan, profile)
        except BaseException:
            self.close()
            raise
        self._can_capture = cuda.has_graphs and self._scratch is not None

    def _open(self, plan: bytes, profile: Mapping[str, Range]) -> None:
        try:
            self._runtime = self._trt.Runtime(self._logger)
        except TypeError as error:  # how the binding tells that the library gave nothing
            raise self._failed("cannot be opened", "`edge-fr doctor` shows the GPU's state") from error
        self._engine = self._runtime.deserialize_cuda_engine(plan)
        if self._engine is None:
            raise self._failed("cannot be loaded", "build it again with edge-fr build")
        self.inputs, self.outputs = self._specs()
        if {name: len(least) for name, (least, _, _) in profile.items()} != {
            spec.name: len(spec.shape) for spec in self.inputs
        }:
            raise EngineError(f"{self._where}: its passport's profile is of other inputs; build it again")
        self._stream = self._cuda.stream()
        self._shared = self._new_context()
        self._set_shapes(self._shared, tuple(profile[spec.name][2] for spec in self.inputs))
        for spec in (*self.inputs, *self.outputs):
            shape = tuple(self._shared.get_tensor_shape(spec.name))
            if any(side < 0 for side in shape):
                raise EngineError(
                    f"{self._where}: the size of {spec.name!r} depends on what the network computes, which "
                    f"is not supported; export the model without NonZero or NMS"
                )
            size = max(1, math.prod(shape) * spec.dtype.itemsize)
            self._host[spec.name], self._device[spec.name] = self._cuda.pinned(size), self._cuda.device(size)
        self._set_addresses(self._shared)

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Runs one batch of shapes within the profile; the outputs are copies."""
        with self._cuda.current():
            prepared = self._prepare(tuple(feeds[spec.name].shape for spec in self.inputs))
            for name, target in prepared.inputs.items():
                np.copyto(target, feeds[name])
            if prepared.graph is not None:
                self._cuda.launch(prepared.graph, self._stream)
            else:
                self._enqueue(prepared)
            self._cuda.wait(self._stream)
            outputs = {name: view.copy() for name, view in prepared.outputs.items()}
            if prepared.context is not None and prepared.graph is None and self._can_capture:
                self._capture(prepared)
        return outputs

    def close(self) -> None:
        """Gives the GPU's memory back: what uses it first, then the memory."""
        self._prepared.clear()
        self._host.clear()
        self._shared = self._engine = self._runtime = None
        self._cuda.close()

    def _prepare(self, shapes: Shapes) -> _Prepared:
        prepared = self._prepared.get(shapes)
        if prepared is None:
            self._set_shapes(self._shared, shapes)
            prepared = _Prepared(
                shapes,
                {spec.name: self._view(spec) for spec in self.inputs},
                {spec.name: self._view(spec) for spec in self.outputs},
            )
            self._prepared[shapes] = prepared
        prepared.calls += 1
        if prepared.calls == 2 and self._can_capture and self._graphs < _MAX_GRAPHS:
            self._graphs += 1
            prepared.context = self._new_context()
            self._set_shapes(prepared.context, shapes)
            self._set_addresses(prepared.context)
        return prepared

    def _enqueue(self, prepared: _Prepared) -> None:
        """Puts the copies and the network on the stream."""
        context = prepared.context
        if context is None:
            context = self._shared
            self._set_shapes(context, prepared.shapes)
        for name, view in prepared.inputs.items():
            self._cuda.upload(self._device[name], self._host[name][: view.nbytes], self._stream)
        if not context.execute_async_v3(self._stream):
            raise self._failed("could not be launched", "`edge-fr doctor` shows the GPU's state")
        for name, view in prepared.outputs.items():
            self._cuda.download(self._host[name][: view.nbytes], self._device[name], self._stream)

    def _capture(self, prepared: _Prepared) -> None:
        """Records the work for the calls to come; the library must have run these shapes once before."""
        ready = getattr(prepared.context, "is_stream_capturable", None)
        if ready is not None and not ready(self._stream):
            return  # its kernels are still being compiled: the next call asks again
        try:
            prepared.graph = self._cuda.capture(lambda: self._enqueue(prepared), self._stream)
        except EngineError as error:
            self._can_capture = False
            warnings.warn(
                f"{self._where} runs without CUDA graphs, which costs some tenths of a millisecond a call: "
                f"{error}",
                RuntimeWarning,
                stacklevel=2,
            )

    def _new_context(self) -> Any:
        strategy = getattr(self._trt, "ExecutionContextAllocationStrategy", None)
        if strategy is None or not hasattr(self._engine, "device_memory_size_v2"):
            return self._made(self._engine.create_execution_context())
        if self._scratch is None:
            size = max(1, self._engine.device_memory_size_v2)
            self._scratch = (self._cuda.device(size), size)
        context = self._made(self._engine.create_execution_context(strategy.USER_MANAGED))
        context.set_device_memory(*self._scratch)
        return context

    def _made(self, context: Any) -> Any:
        if context is None:
            raise self._failed("gave no context", "free memory on the GPU: close other programs")
        return context

    def _set_shapes(self, context: Any, shapes: Shapes) -> None:
        for spec, shape in zip(self.inputs, shapes, strict=True):
            if None in spec.shape and not context.set_input_shape(spec.name, shape):
                raise self._failed(f"refused the shape {shape} of {spec.name!r}", "build it for that shape")

    def _set_addresses(self, context: Any) -> None:
        for name, address in self._device.items():
            if not context.set_tensor_address(name, address):
                raise self._failed(f"refused the memory of {name!r}", "please report this")

    def _view(self, spec: TensorSpec) -> NDArray[Any]:
        """The page-locked memory of a tensor in the shape that it has now."""
        shape = tuple(self._shared.get_tensor_shape(spec.name))
        size = math.prod(shape) * spec.dtype.itemsize
        return self._host[spec.name][:size].view(spec.dtype).reshape(shape)

    def _specs(self) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
        engine = self._engine
        inputs: list[TensorSpec] = []
        outputs: list[TensorSpec] = []
        for name in (engine.get_tensor_name(i) for i in range(engine.num_io_tensors)):
            kind = engine.get_tensor_dtype(name).name
            if kind not in _DTYPES:
                raise EngineError(f"{self._where}: {name!r} is {kind}, expected one of {', '.join(_DTYPES)}")
            shape = tuple(None if side < 0 else int(side) for side in engine.get_tensor_shape(name))
            is_input = engine.get_tensor_mode(name) == self._trt.TensorIOMode.INPUT
            (inputs if is_input else outputs).append(TensorSpec(name, shape, np.dtype(_DTYPES[kind])))
        return tuple(inputs), tuple(outputs)

    def _failed(self, what: str, remedy: str) -> EngineError:
        return EngineError(f"{self._where} {what}: {self._logger.complaints()}; {remedy}")
