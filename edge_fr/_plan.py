"""An ONNX file through TensorRT's parser and builder, to the bytes of an engine.

Handed the library's module (8.6, 10, 11 or RTX); what a version lacks is asked with hasattr. Precision
is the file's: the network is strongly typed wherever the library can, and only version 8.6 has to be
told with a flag that the file's FP16 or INT8 is meant.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_fr._cuda import Cuda
from edge_fr._session import make_logger
from edge_fr.engine import Precision
from edge_fr.errors import EngineError
from edge_fr.passport import Range

Progress = Callable[[str, int, int], None]  # a phase's name, its step, its steps
_PATIENCE_S = 60  # for the builder to end after Ctrl-C; it asks between two of its steps
_BATCH = 8  # of the calibrator


@dataclass(frozen=True)
class Sizes:
    """Least, best and greatest of each dimension that an input leaves open."""

    batch: tuple[int, int, int]
    height: tuple[int, int, int] = (32, 1088, 1920)
    width: tuple[int, int, int] = (32, 1920, 1920)

    def __post_init__(self) -> None:
        for name in ("batch", "height", "width"):
            low, best, high = getattr(self, name)
            if not 1 <= low <= best <= high:
                raise EngineError(
                    f"{name} is {low} {best} {high}, expected least, best and greatest, each at least 1"
                )


@dataclass(frozen=True)
class Calibration:
    """Faces for a library that finds INT8 ranges itself: 8.6 and 10, and the DLA, which takes no Q/DQ.

    `inputs` (N, 3, H, W) float32 are what the network is fed; the ranges found are kept in `cache`.
    """

    inputs: NDArray[np.float32]
    cache: Path
    cuda: Cuda

    @cached_property
    def digest(self) -> str:
        """sha256 over the faces."""
        return f"sha256:{hashlib.sha256(np.ascontiguousarray(self.inputs).data).hexdigest()}"


class Network:
    """A parsed ONNX file. EngineError if the library cannot parse it."""

    def __init__(self, trt: Any, content: bytes, path: Path, *, typed: bool) -> None:
        self._trt = trt
        self._logger = make_logger(trt)
        try:
            self._builder = trt.Builder(self._logger)
        except TypeError as error:  # how the binding tells that the library gave nothing
            raise EngineError(f"{trt.__name__} cannot build here: {self._logger.complaints()}") from error
        flags = trt.NetworkDefinitionCreationFlag
        name = "STRONGLY_TYPED" if typed and hasattr(flags, "STRONGLY_TYPED") else "EXPLICIT_BATCH"
        self._flags = (name,) if hasattr(flags, name) else ()
        bits = 1 << int(getattr(flags, name)) if self._flags else 0
        self._network = self._builder.create_network(bits)
        parser = trt.OnnxParser(self._network, self._logger)
        if not parser.parse(content, str(path)):
            errors = [_told(parser.get_error(i)) for i in range(parser.num_errors)]
            why = "; ".join(errors) or self._logger.complaints()
            raise EngineError(f"{trt.__name__} {trt.__version__} does not take {path}: {why}")
        self._parser = parser  # it owns the weights until the engine is built

    def profile(self, sizes: Sizes) -> dict[str, Range]:
        """The shapes to build for, of every input."""
        return {name: _range(name, shape, sizes) for name, shape in self._shapes().items()}

    def _shapes(self) -> dict[str, tuple[int, ...]]:
        """The inputs' shapes; -1 for a dimension that is open."""
        inputs = [self._network.get_input(i) for i in range(self._network.num_inputs)]
        return {tensor.name: tuple(tensor.shape) for tensor in inputs}

    def flags_for(
        self, precision: Precision, dla_core: int | None, calibration: Calibration | None
    ) -> tuple[str, ...]:
        """What the builder will be told, by name."""
        flags = self._trt.BuilderFlag
        told = ["INT8", "FP16"] if calibration else {"fp16": ["FP16"], "int8": ["INT8"]}.get(precision, [])
        names = [] if "STRONGLY_TYPED" in self._flags else [name for name in told if hasattr(flags, name)]
        if dla_core is not None:
            names += [f"DLA:{dla_core}", "GPU_FALLBACK"]
        return (*self._flags, *names, *(["no TF32"] if hasattr(flags, "TF32") else []))

    def build(
        self,
        profile: dict[str, Range],
        precision: Precision,
        *,
        workspace_bytes: int | None,
        timings: bytes | None,
        dla_core: int | None,
        calibration: Calibration | None,
        progress: Progress,
    ) -> tuple[bytes, bytes]:
        """The engine, and what was learned about timings (None: nothing is to be; RTX measures none).

        Runs in a thread of its own, so that Ctrl-C ends it between two steps and not inside of them.
        """
        trt, stop = self._trt, threading.Event()
        config = self._builder.create_builder_config()
        for name in self.flags_for(precision, dla_core, calibration):
            if name == "no TF32":
                # On by default: fp32 files would be computed with ten bits of mantissa, unasked.
                config.clear_flag(trt.BuilderFlag.TF32)
            elif hasattr(trt.BuilderFlag, name):
                config.set_flag(getattr(trt.BuilderFlag, name))
        if dla_core is not None:
            config.default_device_type, config.DLA_core = trt.DeviceType.DLA, dla_core
        if workspace_bytes is not None:
            config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, workspace_bytes)
        if any(-1 in shape for shape in self._shapes().values()):
            shapes = self._builder.create_optimization_profile()
            for name, ranges in profile.items():
                shapes.set_shape(name, *ranges)
            config.add_optimization_profile(shapes)
            if calibration is not None:
                config.set_calibration_profile(shapes)
        if calibration is not None:
            config.int8_calibrator = _calibrator(trt, calibration)
        if hasattr(trt, "IProgressMonitor"):
            config.progress_monitor = _monitor(trt, progress, stop)
        if timings is not None:
            cache = config.create_timing_cache(timings) or config.create_timing_cache(b"")
            config.set_timing_cache(cache, False)
        plan = _interruptible(lambda: self._builder.build_serialized_network(self._network, config), stop)
        if plan is None:
            raise EngineError(
                f"{trt.__name__} {trt.__version__} could not build it: {self._logger.complaints()}; "
                f"if it ran out of memory, close other programs or build for smaller sizes"
            )
        learned = b"" if timings is None else bytes(config.get_timing_cache().serialize())
        return bytes(plan), learned


def _told(error: Any) -> str:
    """A parser's error, with the node it is about where the library knows that (8.6 does not)."""
    if not hasattr(error, "node_operator"):
        return str(error.desc())
    return f"{error.node_operator()} {error.node_name()!r}: {error.desc()}"


def _range(name: str, shape: tuple[int, ...], sizes: Sizes) -> Range:
    """Least, best and greatest shape of an input, whose open dimensions are -1."""
    open_sizes = {0: sizes.batch} | ({2: sizes.height, 3: sizes.width} if len(shape) == 4 else {})
    columns = []
    for axis, side in enumerate(shape):
        if side < 0 and axis not in open_sizes:
            raise EngineError(
                f"input {name!r} of shape {shape} leaves dimension {axis} open, expected only the batch, "
                f"and height and width of a picture; export it with fixed sizes"
            )
        columns.append(open_sizes[axis] if side < 0 else (side, side, side))
    least, best, greatest = zip(*columns, strict=True)
    return least, best, greatest


def _monitor(trt: Any, progress: Progress, stop: threading.Event) -> Any:
    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.steps: dict[str, int] = {}

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            self.steps[phase_name] = num_steps
            progress(phase_name, 0, num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            progress(phase_name, step + 1, self.steps.get(phase_name, step + 1))
            return not stop.is_set()

        def phase_finish(self, phase_name: str) -> None:
            self.steps.pop(phase_name, None)

    return Monitor()


def _calibrator(trt: Any, calibration: Calibration) -> Any:
    """The library's own calibrator, reading our faces. Tried against 8.6's API only, not its library."""

    class Calibrator(trt.IInt8EntropyCalibrator2):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IInt8EntropyCalibrator2.__init__(self)
            self.batches = iter(
                calibration.inputs[i : i + _BATCH]
                for i in range(0, len(calibration.inputs) - _BATCH + 1, _BATCH)
            )
            cuda, size = calibration.cuda, _BATCH * calibration.inputs[0].nbytes
            with cuda.current():
                self.host, self.device, self.stream = cuda.pinned(size), cuda.device(size), cuda.stream()

        def get_batch_size(self) -> int:
            return _BATCH

        def get_batch(self, names: list[str]) -> list[int] | None:
            batch = next(self.batches, None)
            if batch is None:
                return None
            with calibration.cuda.current():
                self.host[:] = np.ascontiguousarray(batch).view(np.uint8).reshape(-1)
                calibration.cuda.upload(self.device, self.host, self.stream)
                calibration.cuda.wait(self.stream)
            return [self.device]

        def read_calibration_cache(self) -> bytes | None:
            return calibration.cache.read_bytes() if calibration.cache.is_file() else None

        def write_calibration_cache(self, cache: Any) -> None:
            calibration.cache.parent.mkdir(parents=True, exist_ok=True)
            calibration.cache.write_bytes(bytes(cache))

    return Calibrator()


def _interruptible(work: Callable[[], Any], stop: threading.Event) -> Any:
    """The result of `work`, done in a thread; Ctrl-C sets `stop` and waits for it to end.

    The library calls Python back while it works, and an exception there would end the process.
    """
    future: Future[Any] = Future()

    def call() -> None:
        try:
            future.set_result(work())
        except BaseException as error:
            future.set_exception(error)

    thread = threading.Thread(target=call, name="edge-fr build", daemon=True)
    try:
        thread.start()
        return future.result()
    except KeyboardInterrupt:
        stop.set()
        if thread.ident is not None:
            thread.join(_PATIENCE_S)
        raise
