"""The onnxruntime backend: the only module that imports onnxruntime."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_fr.cards import read_card
from edge_fr.cores import core_limit
from edge_fr.engine import Device, ModelCard, TensorSpec, check_feeds, check_finite
from edge_fr.errors import EngineError, MissingDependencyError, install_command

try:
    import onnxruntime as onnxruntime  # for calibration, too
    from onnxruntime.capi import onnxruntime_pybind11_state as ort
except ModuleNotFoundError as error:
    raise MissingDependencyError(
        f"running an .onnx file needs onnxruntime ({error}); install it with: {install_command('cpu')}"
    ) from error

# onnxruntime's exceptions share no base below Exception.
_FAILURES = (
    RuntimeError,
    ort.EPFail,
    ort.Fail,
    ort.InvalidArgument,
    ort.InvalidGraph,
    ort.InvalidProtobuf,
    ort.NoModel,
    ort.NoSuchFile,
    ort.NotImplemented,
    ort.RuntimeException,
)
_PROVIDERS: dict[Device, str] = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
_DTYPES = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
    "tensor(uint8)": np.uint8,
    "tensor(int8)": np.int8,
    "tensor(int32)": np.int32,
    "tensor(int64)": np.int64,
    "tensor(bool)": np.bool_,
}
_LOG_ERRORS_ONLY = 3


class OnnxRuntimeEngine:
    """An ONNX file run by onnxruntime on one device, and on no other.

    `threads` bounds the CPU threads of one call (None: all cores that this process may use). Raises
    EngineError for a file that is damaged or has parts missing and for a device that is not there,
    CardError for one without card.
    """

    def __init__(self, path: Path, *, device: Device = "cpu", threads: int | None = None) -> None:
        if device not in _PROVIDERS:
            raise EngineError(f"device is {device!r}, expected one of {', '.join(_PROVIDERS)}")
        if threads is not None and threads < 1:
            raise EngineError(f"threads is {threads}, expected at least 1, or None for all cores")
        provider = _PROVIDERS[device]
        available = onnxruntime.get_available_providers()
        if provider not in available:
            raise EngineError(_no_device(path, device, f"this onnxruntime has {', '.join(available)}"))
        if device == "cuda" and hasattr(onnxruntime, "preload_dlls"):
            onnxruntime.preload_dlls()  # CUDA and cuDNN that pip installed are not found otherwise
        options = onnxruntime.SessionOptions()
        options.log_severity_level = _LOG_ERRORS_ONLY
        options.intra_op_num_threads = threads or core_limit() or 0
        # Threads that spin while they wait take the cores from the other sessions of the process.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        if saturates(platform.machine(), _cpuinfo()):
            options.add_session_config_entry("session.x64quantprecision", "1")
        try:
            self._session = onnxruntime.InferenceSession(
                path, options, providers=[provider], enable_fallback=0
            )
        except _FAILURES as error:
            raise EngineError(
                f"{path} cannot be opened: damaged, cut off, parts missing, or not ONNX "
                f"({str(error).strip()}); "
                f"`edge-fr models verify` checks the named models"
            ) from error
        used = self._session.get_providers()[0]
        if used != provider:
            raise EngineError(
                _no_device(path, device, f"it would run on {used}: libraries or a driver are missing")
            )
        self._card = read_card(path)
        self._path = path
        self._inputs = tuple(_spec(arg) for arg in self._session.get_inputs())
        self._outputs = tuple(_spec(arg) for arg in self._session.get_outputs())
        self._output_names = [spec.name for spec in self._outputs]

    @property
    def card(self) -> ModelCard:
        """The card of the file."""
        return self._card

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """What `infer` must be fed."""
        return self._inputs

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """What `infer` gives."""
        return self._outputs

    def infer(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Runs one batch; all inputs by name.

        Returned arrays belong to the caller. EngineError for feeds that do not fit, for a failure
        inside the network, and for NaN or infinity in an output.
        """
        check_feeds(feeds, self._inputs, str(self._path))
        try:
            values = self._session.run(self._output_names, dict(feeds))
        except _FAILURES as error:
            shapes = {name: value.shape for name, value in feeds.items()}
            raise EngineError(
                f"{self._path} failed on inputs of shape {shapes}: {str(error).strip()}"
            ) from error
        outputs = dict(zip(self._output_names, values, strict=True))
        check_finite(outputs, self._card, str(self._path))
        return outputs


def saturates(machine: str, cpuinfo: str) -> bool:
    """Whether onnxruntime's int8 kernels of this processor lose large sums: on x86 before VNNI they add
    two products in 16 bits, and answers drift without a word.

    Exact kernels can be had for the asking. They take 1.8 times as long, so that one asks only here;
    where /proc/cpuinfo is not there to tell (`cpuinfo` is empty), exactness comes first.
    """
    x86 = machine.lower() in ("x86_64", "amd64", "i686")
    return x86 and not {"avx512_vnni", "avx_vnni"} & set(cpuinfo.split())


def _cpuinfo() -> str:
    path = Path("/proc/cpuinfo")
    return path.read_text(errors="replace") if path.is_file() else ""


def _spec(arg: Any) -> TensorSpec:
    if arg.type not in _DTYPES:
        raise EngineError(f"tensor {arg.name!r} is {arg.type}, expected one of {', '.join(_DTYPES)}")
    shape = tuple(size if isinstance(size, int) else None for size in arg.shape)
    return TensorSpec(arg.name, shape, np.dtype(_DTYPES[arg.type]))


def _no_device(path: Path, device: Device, found: str) -> str:
    other = "pip install 'onnxruntime-gpu[cuda,cudnn]'" if device == "cuda" else install_command("cpu")
    return (
        f"{path} was to run on {device}, but {found}; ask for another device, or install what {device} "
        f"needs: pip uninstall onnxruntime onnxruntime-gpu, then {other}"
    )
