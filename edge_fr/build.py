"""`edge-fr build`: an ONNX file to an engine, on the device that will run it, with a passport beside it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edge_fr._cuda import Cuda, open_cuda, require_driver
from edge_fr._files import cache_folder, locked, publish
from edge_fr._plan import Calibration, Network, Progress, Sizes
from edge_fr._tensorrt import load
from edge_fr.cards import read_card
from edge_fr.engine import ModelCard, Precision, require_proof
from edge_fr.errors import EngineError
from edge_fr.onnx_check import OnnxFile, check_onnx
from edge_fr.passport import Gpu, Library, Passport, passport_path, read_passport

# A frame has one picture and several faces; Embedder never asks for more than 32 at once.
SIZES = {"detect": Sizes(batch=(1, 1, 1)), "embed": Sizes(batch=(1, 8, 32)), "gate": Sizes(batch=(1, 8, 32))}


class Built(NamedTuple):
    """An engine and its passport; `reused` if it was there already."""

    path: Path
    passport: Passport
    reused: bool


def build(
    source: str | Path,
    output: str | Path,
    *,
    library: Library = "tensorrt",
    sizes: Sizes | None = None,
    unproven: bool = False,
    force: bool = False,
    dla_core: int | None = None,
    calibration: NDArray[np.float32] | None = None,
    report: Callable[[str], None] = lambda line: None,
    progress: Progress = lambda phase, step, steps: None,
    trt: Any = None,
    cuda: Cuda | None = None,
) -> Built:
    """Builds the ONNX file `source` to the engine `output` (`*.engine`) and its passport.

    An engine that is there and was built from the same file, by the same library, for the same GPU and
    sizes is kept, unless `force`. Half of the GPU's free memory at most is used for trying kernels.
    `sizes` are those of what the card's task is fed (None: one picture of up to 1920 pixels a side, or
    1 to 32 faces). `dla_core` and `calibration` ((N, 3, 112, 112) in the card's colour and range, at
    least 300) are for libraries up to TensorRT 10, which then choose precisions themselves; what comes
    out is unproven. `report` is told what happens and `progress` how far it is. `trt` and `cuda` take
    the place of the installed library and binding.

    ModelError for a file that is damaged or hostile, CardError for an INT8 model without a passing
    verdict unless `unproven`, EngineError for what the library cannot build, or without a driver where
    the library needs one: all but tensorrt_rtx, whose engines run on any card it knows.
    """
    source, output = Path(source), Path(output)
    if output.suffix != ".engine":
        raise EngineError(f"the output is {output}, expected a name that ends with .engine")
    onnx = check_onnx(source)
    card = read_card(source)
    require_proof(card, source, unproven=unproven)
    mixed = dla_core is not None or calibration is not None
    gpu: Gpu | None = None
    workspace_bytes: int | None = None
    if library != "tensorrt_rtx":
        if cuda is None:
            require_driver()  # before the library is touched: without one its Builder may crash
            cuda = open_cuda()
        with cuda.current():
            gpu, workspace_bytes = cuda.gpu(), cuda.free_bytes() // 2
    trt = load(library) if trt is None else trt
    if mixed and (cuda is None or not hasattr(trt, "IInt8EntropyCalibrator2")):
        raise EngineError(
            f"{library} {trt.__version__} has no calibrators and no engines of mixed precision; write the "
            f"precision into the model: python -m calibration quantize {source} --target tensorrt"
        )
    faces = _calibration(calibration, card, trt, onnx, cuda) if calibration is not None and cuda else None
    if mixed:
        # What the library chooses is no longer what the card promises.
        digest = faces.digest if faces else None
        precision: Precision = "int8" if faces else "fp16"
        card = replace(card, precision=precision, calibration_digest=digest, verdict=None, report_digest=None)

    network = Network(trt, onnx.content, source, typed=not mixed)
    passport = Passport(
        source=source.name,
        source_digest=onnx.digest,
        engine_digest="",
        card=card,
        library=library,
        library_version=trt.__version__,
        gpu=gpu,
        flags=network.flags_for(card.precision, dla_core, faces),
        profile=network.profile(sizes or SIZES[card.task]),
    )
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with locked(output, waiting=lambda: report(f"another process builds {output}: waiting")):
            if not force and (there := _there(output, passport)):
                return Built(output, there, reused=True)
            report(f"building {source} with {library} {trt.__version__} for {gpu.name if gpu else 'any GPU'}")
            timings = _Timings(passport) if gpu else None  # RTX tries no kernels while it builds
            plan, learned = network.build(
                passport.profile,
                card.precision,
                workspace_bytes=workspace_bytes,
                timings=timings.read() if timings else None,
                dla_core=dla_core,
                calibration=faces,
                progress=progress,
            )
            if timings:
                timings.write(learned)
            digest = f"sha256:{hashlib.sha256(plan).hexdigest()}"
            passport = replace(passport, engine_digest=digest)
            # The passport first: broken off between the two, the engine reads as damaged and is built again.
            publish(passport.to_json().encode() + b"\n", passport_path(output))
            publish(plan, output)
    except OSError as error:
        raise EngineError(f"{output} cannot be written ({error}); name another place with -o") from error
    return Built(output, passport, reused=False)


def read_faces(path: str | Path) -> NDArray[np.float32]:
    """The faces of a .npy file, for `build`'s `calibration`."""
    try:
        faces: NDArray[np.float32] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise EngineError(f"{path} holds no calibration faces ({error}), expected a .npy file") from error
    return faces


def _there(output: Path, wanted: Passport) -> Passport | None:
    """The passport of an engine that is there, whole, and the one that would be built; else None."""
    if not output.is_file() or not passport_path(output).is_file():
        return None
    try:
        there = read_passport(output)
    except EngineError:
        return None  # damaged: it is built again, which says so
    digest = f"sha256:{hashlib.sha256(output.read_bytes()).hexdigest()}"
    return there if there.key == wanted.key and there.engine_digest == digest else None


class _Timings:
    """What builds on this machine learned about the speed of kernels, for the next build.

    The file begins with a sha256 of the rest: the library is not handed a damaged one.
    """

    def __init__(self, passport: Passport) -> None:
        gpu = passport.gpu._replace(driver="") if passport.gpu else None
        machine = f"{passport.library} {passport.library_version} {gpu}"
        name = hashlib.sha256(machine.encode()).hexdigest()[:16]
        self._path = cache_folder() / "timings" / name

    def read(self) -> bytes:
        content = self._path.read_bytes() if self._path.is_file() else b""
        digest, timings = content[:32], content[32:]
        return timings if hashlib.sha256(timings).digest() == digest else b""

    def write(self, timings: bytes) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        publish(hashlib.sha256(timings).digest() + timings, self._path)


def _calibration(
    inputs: NDArray[np.float32], card: ModelCard, trt: Any, onnx: OnnxFile, cuda: Cuda
) -> Calibration:
    """The faces for the library's calibrator, and where the ranges it finds for them are kept."""
    low, high = card.input_range
    if inputs.dtype != np.float32 or inputs.ndim != 4 or inputs.shape[1] != 3 or len(inputs) < 300:
        raise EngineError(
            f"the calibration faces are {inputs.dtype} of shape {inputs.shape}, expected float32 of "
            f"(300 or more, 3, height, width) with values in {low} to {high}"
        )
    if not (np.isfinite(inputs).all() and low <= inputs.min() and inputs.max() <= high):
        raise EngineError(f"the calibration faces leave the card's range of {low} to {high}")
    faces = Calibration(inputs, Path(), cuda)
    made_of = f"{onnx.digest} {faces.digest} {trt.__version__}"
    name = hashlib.sha256(made_of.encode()).hexdigest()[:16]
    return replace(faces, cache=cache_folder() / "calibrations" / name)
