"""Does an exported file answer what the network answers that it came from? Output by output, batch by batch.

`python -m export verify face.onnx --against WEIGHTS` compares torch with onnxruntime and, with `--engine`,
with the TensorRT engine built from the file.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edge_fr.build import SIZES
from edge_fr.detect import Detector
from edge_fr.engine import Engine, ModelCard, open_engine
from edge_fr.errors import EngineError, InputError, ModelError
from edge_fr.image import align, read_image
from edge_fr.models import resolve
from edge_fr.passport import read_passport
from export.networks.published import LAYOUTS
from export.training.data import PICTURES
from export.weights import fitting, is_run, load_run, load_whole, read_checkpoint

Crops = NDArray[np.float32]  # N x 3 x 112 x 112, RGB, 0..255
Kind = Literal["onnxruntime", "tensorrt"]


class Bounds(NamedTuple):
    """How far an engine may be from the network.

    `share` is of the greatest absolute value that the network answers, or of 1 where all are smaller;
    `cosine` is the least of any face.
    """

    share: float
    cosine: float


# onnxruntime in single precision sums the same products in another order: differences are 2e-6 of the
# greatest value for MobileFaceNet, and iResNet-100's own rounding, against double precision, is 1.8e-6 of
# it. TensorRT may also compute a convolution by another formula (Winograd), which costs about two more
# digits; the builder leaves TF32 off. In half precision every layer rounds to 11 bits (5e-4), a hundred
# layers' roundings add up to ten times that, and four times as much is allowed, since faces differ. A
# change of a vector by a share e of its length makes a cosine of 1 - e*e/2.
BOUNDS: dict[tuple[Kind, str], Bounds] = {
    ("onnxruntime", "fp32"): Bounds(1e-5, 0.999999),
    ("tensorrt", "fp32"): Bounds(1e-3, 0.99999),
    ("onnxruntime", "fp16"): Bounds(2e-2, 0.9998),
    ("tensorrt", "fp16"): Bounds(2e-2, 0.9998),
}


@dataclass(frozen=True)
class Difference:
    """Of one output at one batch size: how far the engine's answers are from the network's.

    `greatest` is the greatest absolute difference, `cosine` the least of any face (None for an output of
    one number a face, whose direction says nothing).
    """

    engine: Kind
    output: str
    batch: int
    greatest: float
    greatest_allowed: float
    cosine: float | None
    cosine_allowed: float | None

    @property
    def passed(self) -> bool:
        return self.greatest <= self.greatest_allowed and (
            self.cosine is None or self.cosine_allowed is None or self.cosine >= self.cosine_allowed
        )


def differences(
    network: nn.Module,
    outputs: Sequence[str],
    engine: Engine,
    kind: Kind,
    crops: Crops,
    batches: Iterable[int],
) -> list[Difference]:
    """What `engine`, of the `kind` that BOUNDS names, makes of the first crops of each batch size.

    EngineError if the engine lacks one of `outputs`, or answers in another shape.
    """
    (spec,) = engine.inputs
    bounds = BOUNDS[kind, engine.card.precision]
    rows = []
    for batch in batches:
        some = np.ascontiguousarray(crops[:batch])
        with torch.inference_mode():
            answer = network(torch.from_numpy(some))
        wanted = (answer,) if isinstance(answer, Tensor) else tuple(t for t in answer if t is not None)
        found = engine.infer({spec.name: some})
        for name, value in zip(outputs, wanted, strict=True):
            rows.append(_difference(kind, name, bounds, found, value.numpy().astype(np.float64)))
    return rows


def _difference(
    kind: Kind,
    name: str,
    bounds: Bounds,
    found: Mapping[str, NDArray[np.float32]],
    wanted: NDArray[np.float64],
) -> Difference:
    if name not in found or found[name].shape != wanted.shape:
        shapes = ", ".join(f"{key} {value.shape}" for key, value in found.items())
        raise EngineError(f"{kind} answers {shapes}, expected {name} {wanted.shape}: another network's file?")
    given = found[name].astype(np.float64)
    cosine = None
    if wanted[0].size > 1:
        a, b = given.reshape(len(given), -1), wanted.reshape(len(wanted), -1)
        lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
        cosine = float(((a * b).sum(1) / np.maximum(lengths, 1e-30)).min())
    return Difference(
        engine=kind,
        output=name,
        batch=len(wanted),
        greatest=float(np.abs(given - wanted).max()),
        greatest_allowed=bounds.share * max(1.0, float(np.abs(wanted).max())),
        cosine=cosine,
        cosine_allowed=None if cosine is None else bounds.cosine,
    )


@dataclass(frozen=True)
class Report:
    """What `verify` found. `inputs` says in words which crops were compared."""

    model: str
    against: str
    inputs: str
    rows: list[Difference]

    @property
    def passed(self) -> bool:
        return all(row.passed for row in self.rows)

    def to_json(self) -> str:
        rows = [{**asdict(row), "passed": row.passed} for row in self.rows]
        return json.dumps({**asdict(self), "rows": rows, "passed": self.passed}, indent=1)

    def lines(self) -> list[str]:
        """A table for people."""
        lines = [
            f"{self.model} against {self.against}, on {self.inputs}",
            f"{'engine':12} {'output':12} {'batch':>5}  {'difference':>10} {'at most':>8}  "
            f"{'cosine':>9} {'at least':>8}",
        ]
        for row in self.rows:
            cosine = "" if row.cosine is None else f"{row.cosine:.7f} {row.cosine_allowed:>8}"
            lines.append(
                f"{row.engine:12} {row.output:12} {row.batch:5}  {row.greatest:10.2g} "
                f"{row.greatest_allowed:8.2g}  {cosine:18}{'' if row.passed else '  beyond the bound'}"
            )
        return lines


def verify(
    model: Path,
    against: Path,
    *,
    engine: Path | None = None,
    faces: Path | None = None,
    pixels: Mapping[str, Any] | None = None,
    opened: Callable[..., Engine] = open_engine,
) -> Report:
    """Compares the ONNX file `model`, and an `engine` built from it, with the weights that it came from.

    `against` is a run's folder or a checkpoint, which is recognised by its keys; `pixels` are fields of
    Layout, for weights that learned from others than their authors' did. Batches are 1, 5 and the largest
    that the engine was built for (without one, that `edge-fr build` builds for); `faces` is a folder of
    photographs or aligned crops; `opened` opens both files. InputError for an int8 file, which the court
    judges; EngineError for an engine that cannot run here or was built from another model.
    """
    session = _suited(opened(model, unproven=True), model)
    sides: list[tuple[Kind, Engine]] = [("onnxruntime", session)]
    if engine is not None:
        built = _suited(opened(engine, device="cuda", unproven=True), engine)
        if built.card.weights_digest != session.card.weights_digest:
            raise EngineError(
                f"{engine} was built from another model than {model}: edge-fr build {model} -o {engine}"
            )
        sides.append(("tensorrt", built))
    network, outputs = _network(against, session, pixels or {})
    sizes = batches(session.card, engine)
    crops, inputs = synthetic(sizes[-1]) if faces is None else photographs(faces, sizes[-1])
    rows = [row for kind, side in sides for row in differences(network, outputs, side, kind, crops, sizes)]
    return Report(str(model), str(against), inputs, rows)


def _network(against: Path, session: Engine, pixels: Mapping[str, Any]) -> tuple[nn.Module, list[str]]:
    """What is in the weights, and the names of its answers in their order."""
    checkpoint = read_checkpoint(against)
    names = [spec.name for spec in session.outputs]
    if is_run(checkpoint):
        if pixels:
            raise InputError(f"{against} is a run, which has its pixels in it; leave out {', '.join(pixels)}")
        recognizer, gate, _ = load_run(against, visibility="visibility" in names)
        if session.card.task == "gate":
            return gate, ["ri"]
        return recognizer, recognizer.outputs()
    fits = fitting(checkpoint)
    if not fits:
        raise ModelError(
            f"the weights in {against} are of no recognizer known here ({', '.join(LAYOUTS)}); "
            f"`python -m export onnx NAME --weights {against}` says what of them does not fit"
        )
    layout = replace(LAYOUTS[fits[0]], **pixels)
    return load_whole(fits[0], layout, checkpoint), ["embedding"]


def batches(card: ModelCard, engine: Path | None) -> list[int]:
    """The batch sizes to compare at: 1, 5 and the largest, within what the engine was built for."""
    least, greatest = 1, SIZES[card.task].batch[2]
    if engine is not None:
        ((shape, _, largest),) = read_passport(engine).profile.values()
        least, greatest = shape[0], largest[0]
    return sorted({min(max(size, least), greatest) for size in (1, 5, greatest)})


def _suited(engine: Engine, path: Path) -> Engine:
    card = engine.card
    if card.precision == "int8":
        raise InputError(
            f"{path} is an int8 model: how far it may be from its original is judged by kinds of faces, with "
            f"`python -m calibration court`; verify the fp32 file that it was made from"
        )
    if card.colour != "RGB" or card.input_range != (0.0, 255.0):
        raise InputError(
            f"{path} takes {card.colour} {card.input_range}, and files of `python -m export onnx` take RGB "
            f"(0, 255): it was not written by it"
        )
    return engine


def synthetic(count: int) -> tuple[Crops, str]:
    """Drawn crops: blotches of colour under noise, whole values of 0..255, always the same."""
    rng = np.random.default_rng(0)
    blotches = rng.uniform(0, 255, (count, 7, 7, 3)).astype(np.float32)
    large = np.stack([cv2.resize(small, (112, 112), interpolation=cv2.INTER_CUBIC) for small in blotches])
    noisy = np.clip(np.round(large + rng.normal(0, 12, large.shape)), 0, 255).astype(np.float32)
    return np.ascontiguousarray(noisy.transpose(0, 3, 1, 2)), f"{count} synthetic crops"


def photographs(folder: Path, count: int) -> tuple[Crops, str]:
    """`count` crops from the pictures under `folder`: whole at 112 x 112, else the largest face of each.

    Too few of them come again from the first on. InputError if there is none.
    """
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in PICTURES)
    crops: list[NDArray[np.uint8]] = []
    detector: Detector | None = None
    for path in paths:
        if len(crops) == count:
            break
        image = read_image(path)
        if image.shape[:2] == (112, 112):
            crops.append(image)
            continue
        detector = detector or Detector(open_engine(resolve("yunet")))
        found = detector.detect(image)
        if len(found):
            sides = (found.boxes[:, 2:] - found.boxes[:, :2]).min(axis=1)
            crops.append(align(image, found.landmarks[np.argmax(sides)][None])[0])
    if not crops:
        raise InputError(f"no face found in the {len(paths)} pictures under {folder}")
    repeated = np.stack([crops[index % len(crops)] for index in range(count)])
    rgb = repeated[..., ::-1].transpose(0, 3, 1, 2).astype(np.float32)
    return np.ascontiguousarray(rgb), f"{len(crops)} faces of {folder}"
