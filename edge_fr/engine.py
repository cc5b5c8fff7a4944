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
Verdict = Literal["passed", "refused"]


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
    recognizer of that weights digest: its index is about that one. `impostor_bands` has such tables for
    "alike" (pairs of people who look alike), and for a "look" or a whole "track" of at least some
    recognizability ("track ri>=0.5"). `continuity_scores` maps a recognizability ("ri>=0.5") to the score
    with the looks before it that one in 1,000 of one person's looks in a track falls below, `genuine_scores`
    to the one that one in 20 looks at a person falls below, compared with another picture of the person.
    `results` are measured figures by "<dataset>/<condition>/<figure>"; `known_failures` says where not to
    trust the model. `verdict` is what comparing an INT8 model with its FP32 original came to, in the report
    whose sha256 is `report_digest`.
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
    verdict: Verdict | None = None
    report_digest: str | None = None
    impostor_scores: dict[str, float] = field(default_factory=dict)
    impostor_data: str = ""
    impostor_bands: dict[str, dict[str, float]] = field(default_factory=dict)
    continuity_scores: dict[str, float] = field(default_factory=dict)
    genuine_scores: dict[str, float] = field(default_factory=dict)
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
        if self.verdict not in (None, *get_args(Verdict)):
            refuse(f"verdict is {self.verdict!r}, expected one of {', '.join(get_args(Verdict))}, or none")
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
        """Runs one batch. Returned arrays belong to the caller. Raises EngineError, on NaN too.

        May be called from several threads: an engine with memory of its own has them wait for each other.
        """
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


def require_proof(card: ModelCard, model: str | Path, *, unproven: bool = False) -> None:
    """CardError for an INT8 model that was not shown to be as good as its original, unless `unproven`."""
    if card.precision != "int8" or card.verdict == "passed" or unproven:
        return
    found = "was refused when it was" if card.verdict == "refused" else "has not been"
    compare = "compare it with `python -m calibration court`, " if card.task == "embed" else ""
    raise CardError(
        f"{model} is an int8 model and {found} compared with its original; {compare}use the fp32 file, or "
        f"say --unproven (unproven=True)"
    )


def check_feeds(feeds: Mapping[str, NDArray[Any]], inputs: tuple[TensorSpec, ...], model: str) -> None:
    """EngineError unless the feeds have the names, shapes and dtypes of the inputs."""
    expected = [spec.name for spec in inputs]
    if feeds.keys() != set(expected):
        raise EngineError(f"{model} takes the inputs {expected}, got {list(feeds)}")
    for spec in inputs:
        value = feeds[spec.name]
        fits = value.dtype == spec.dtype and value.ndim == len(spec.shape)
        if not fits or any(s not in (None, v) for s, v in zip(spec.shape, value.shape, strict=True)):
            shape = ", ".join("any" if size is None else str(size) for size in spec.shape)
            raise EngineError(
                f"{model}: input {spec.name!r} needs shape ({shape}) and dtype {spec.dtype}, "
                f"got {value.shape} and {value.dtype}"
            )


def check_finite(outputs: Mapping[str, NDArray[Any]], card: ModelCard, model: str) -> None:
    """EngineError that names an output which holds NaN or infinity."""
    for name, value in outputs.items():
        if not np.isfinite(value).all():
            raise EngineError(
                f"{model}: output {name!r} holds NaN or infinity; check that the inputs lie in "
                f"{card.input_range}, and if {card.precision} is not fp32, try the fp32 file"
            )


def open_engine(
    path: str | Path,
    *,
    device: Device = "cpu",
    threads: int | None = None,
    unproven: bool = False,
) -> Engine:
    """Opens a model file (.onnx, or .engine from `edge-fr build`) on the named device, and on no other.

    `threads` bounds the CPU threads of one call (None: all cores). A device that is not there is an
    EngineError, never a quiet fall to the CPU. An INT8 model whose card has no passing verdict is a
    CardError unless `unproven`.
    """
    path = Path(path)
    if not path.is_file():
        raise ModelNotFoundError(
            f"no model file at {path}; `edge-fr models pull` fetches the named models, "
            f"`edge-fr models list` shows where they lie"
        )
    engine: Engine
    if path.suffix == ".onnx":
        from edge_fr._onnxruntime import OnnxRuntimeEngine

        engine = OnnxRuntimeEngine(path, device=device, threads=threads)
    elif path.suffix == ".engine":
        from edge_fr._tensorrt import TensorRTEngine

        engine = TensorRTEngine.open(path, device=device)
    else:
        raise EngineError(
            f"{path}: cannot open a {path.suffix or 'suffixless'} file, expected .onnx or .engine"
        )
    require_proof(engine.card, path, unproven=unproven)
    return engine
