"""The TensorRT backend: the only module that imports tensorrt or tensorrt_rtx.

What differs between the library's versions (8.6, 10, 11, RTX) is asked of the library, never read from a
version number.
"""

from __future__ import annotations

import hashlib
import threading
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from edge_fr._cuda import open_cuda, require_driver
from edge_fr._session import Session
from edge_fr.engine import Device, ModelCard, TensorSpec, check_feeds, check_finite
from edge_fr.errors import EngineError, MissingDependencyError
from edge_fr.passport import Library, Passport, read_passport, require_home

_INSTALL: dict[Library, str] = {
    "tensorrt": "on a Jetson: sudo apt install python3-libnvinfer, in an environment made with "
    "--system-site-packages; elsewhere: pip install tensorrt, from the vendor's index",
    "tensorrt_rtx": "pip install tensorrt-rtx-cu13",
}


def load(library: Library) -> Any:
    """The library's module. MissingDependencyError with the command that installs it."""
    try:
        if library == "tensorrt_rtx":
            import tensorrt_rtx

            return tensorrt_rtx
        import tensorrt
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            f"engines of {library} need the library ({error}); {_INSTALL[library]}"
        ) from error
    return tensorrt


class TensorRTEngine:
    """A built engine, run on the GPU that it was built for; the session closes with it.

    Calls may come from several threads, and run one after the other.
    """

    def __init__(self, session: Session, passport: Passport, path: Path) -> None:
        self._path = path
        self._card = passport.card
        self._profile = passport.profile
        self._session = session
        self._lock = threading.Lock()
        # The GPU's memory is given back when the engine is dropped, or at the end of the process while
        # the libraries are still there.
        weakref.finalize(self, session.close)

    @classmethod
    def open(cls, path: Path, *, device: Device = "cuda") -> TensorRTEngine:
        """The engine of a file that `edge-fr build` wrote, with its passport beside it.

        EngineError without a driver, for an engine that was built elsewhere or by another version, and
        for one that is damaged; MissingDependencyError without the library or a CUDA binding.
        """
        if device != "cuda":
            raise EngineError(
                f"{path} is an engine for the GPU, and was to run on {device}; say --device cuda "
                f'(device="cuda"), or open the .onnx file it was built from'
            )
        passport = read_passport(path)
        plan = path.read_bytes()
        digest = f"sha256:{hashlib.sha256(plan).hexdigest()}"
        if digest != passport.engine_digest:
            raise EngineError(
                f"{path} is {digest}, and its passport was written for {passport.engine_digest}: damaged, "
                f"or not of one build; build it again: edge-fr build {passport.source} -o {path}"
            )
        require_driver()  # before the library is touched: without one its Runtime may crash
        trt = load(passport.library)
        cuda = open_cuda()
        try:
            require_home(passport, version=trt.__version__, gpu=cuda.gpu(), engine=path)
        except EngineError:
            cuda.close()
            raise
        return cls(Session(trt, cuda, plan, passport.profile, where=str(path)), passport, path)

    @property
    def card(self) -> ModelCard:
        """The card of the model it was built from."""
        return self._card

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """What `infer` must be fed."""
        return self._session.inputs

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """What `infer` gives."""
        return self._session.outputs

    def infer(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Runs one batch; all inputs by name, of shapes within the engine's profile.

        Returned arrays belong to the caller. EngineError for feeds that do not fit, for a failure on
        the GPU, and for NaN or infinity in an output.
        """
        check_feeds(feeds, self.inputs, str(self._path))
        for name, (least, _, greatest) in self._profile.items():
            shape = feeds[name].shape
            if any(not low <= n <= high for low, n, high in zip(least, shape, greatest, strict=True)):
                raise EngineError(
                    f"{self._path}: input {name!r} has shape {shape}, and the engine was built for "
                    f"{least} to {greatest}; build it again with a wider --batch, --height or --width"
                )
        with self._lock:
            outputs = self._session.run(feeds)
        check_finite(outputs, self._card, str(self._path))
        return outputs
