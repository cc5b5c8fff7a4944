"""What a model is to the rest of the package: named tensors in, named tensors out, and a card.

A backend is one module with one class that satisfies `Engine`; `open_engine` picks it by the file's
suffix. Nothing here imports a backend until an engine is opened.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

import numpy as np
from numpy.typing import NDArray

from edge_fr.errors import CardError, EngineError, ModelNotFoundError

CARD_KEY = "edge_fr.card"  # the ONNX metadata key

Task = Literal["detect", "embed", "gate"]
Head = Literal["yunet", "scrfd", "retinaface"]
Precision = Literal["fp32", "fp16", "int8"]
Device = Literal["cpu", "cuda"]


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """A named tensor of an engine; a dimension that may vary is None."""

    name: str
    shape: tuple[int | None, ...]
    dtype: np.dtype[Any]


@dataclass(frozen=True)
class ModelCard:
    """What a model is, what it takes, where it comes from; travels in the ONNX metadata.

    `colour` is the channel order of the NCHW float32 input, whose values span `input_range`
    (normalisation beyond that lives in the graph). `impostor_scores` maps a false-match rate
    ("1e-4") to the cosine score that so many pairs of different people reach, on the data named by
    `impostor_data`: thresholds are read from it. `weights_digest` is "sha256:..." of what was
    learned, so that FP32 and INT8 files of one training differ only in `precision`. A gate `guards` the
    recognizer of that weights digest: its index is about that one. `results` are measured figures by
    "<dataset>/<condition>/<figure>"; `known_failures` says where not to trust the model.
    """

    name: str
    task: Task
    colour: Literal["BGR", "RGB"]
    input_range: tuple[float, float]
    weights_digest: str
    licence: str
    training_data: str
    precision: Precision = "fp32"
    head: Head | None = None
    template: Literal["arcface-112"] | None = None
    embedding_size: int | None = None
    calibration_digest: str | None = None
    impostor_scores: dict[str, float] = field(default_factory=dict)
    impostor_data: str = ""
    guards: str | None = None
    architecture: str = ""
    base: str = ""
    results: dict[str, float] = field(default_factory=dict)
    known_failures: str = ""
    notes: str = ""

    def __post_init__(self) -> None:
        def refuse(what: str) -> None:
            raise CardError(f"model card of {self.name!r}: {what}")

        for name, allowed in (("task", Task), ("precision", Precision)):
            if getattr(self, name) not in get_args(allowed):
                refuse(f"{name} is {getattr(self, name)!r}, expected one of {', '.join(get_args(allowed))}")
        if self.colour not in ("BGR", "RGB"):
            refuse(f"colour is {self.colour!r}, expected BGR or RGB")
        if len(self.input_range) != 2 or not self.input_range[0] < self.input_range[1]:
            refuse(f"input_range is {self.input_range}, expected (low, high) such as (0, 255)")
        if self.task == "detect" and self.head not in get_args(Head):
            refuse(f"a detector needs head, one of {', '.join(get_args(Head))}, got {self.head!r}")
        if self.task == "embed" and not self.embedding_size:
            refuse("an embedder needs embedding_size, for example 128")
        if self.task == "gate" and not self.guards:
            refuse("a gate needs guards, the weights_digest of its recognizer")

    def to_json(self) -> str:
        """The card as one line of JSON with sorted keys."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str, *, where: str = "model card") -> ModelCard:
        """Reads `to_json`'s text; unknown or missing fields are a CardError that names them."""
        try:
            values = json.loads(text)
        except json.JSONDecodeError as error:
            raise CardError(f"{where}: not JSON ({error})") from error
        if not isinstance(values, dict):
            raise CardError(f"{where}: expected a JSON object, got {type(values).__name__}")
        unknown = set(values) - {f.name for f in fields(cls)}
        if unknown:
            raise CardError(f"{where}: unknown fields {', '.join(sorted(unknown))}")
        try:
            return cls(**{**values, "input_range": tuple(values.get("input_range", ()))})
        except TypeError as error:
            raise CardError(f"{where}: {error}") from error


class Engine(Protocol):
    """A model that can be run: the whole contract of a backend."""

    @property
    def card(self) -> ModelCard: ...
    @property
    def inputs(self) -> tuple[TensorSpec, ...]: ...
    @property
    def outputs(self) -> tuple[TensorSpec, ...]: ...

    def infer(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Runs one batch. Returned arrays belong to the caller. Raises EngineError, on NaN too."""
        ...


def card_path(model: Path) -> Path:
    """Where the card of a model without metadata lies: `face.onnx` -> `face.card.json`."""
    return model.with_suffix(".card.json")


def require_task(card: ModelCard, task: Task, model: str) -> None:
    """CardError unless the card is of that task."""
    if card.task != task:
        raise CardError(
            f"{model} is a model for {card.task!r}, expected one for {task!r}; "
            f"`edge-fr models list` shows which is which"
        )


def open_engine(
    path: str | Path,
    *,
    device: Device = "cpu",
    threads: int | None = None,
) -> Engine:
    """Opens a model file on the named device, and on no other.

    `threads` bounds the CPU threads of one call (None: all cores). A device that is not there is an
    EngineError, never a quiet fall to the CPU.
    """
    path = Path(path)
    if not path.is_file():
        raise ModelNotFoundError(
            f"no model file at {path}; `edge-fr models pull` fetches the named models, "
            f"`edge-fr models list` shows where they lie"
        )
    if path.suffix == ".onnx":
        from edge_fr._onnxruntime import OnnxRuntimeEngine

        return OnnxRuntimeEngine(path, device=device, threads=threads)
    raise EngineError(f"{path}: cannot open a {path.suffix or 'suffixless'} file, expected .onnx")
