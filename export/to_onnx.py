"""A network becomes an ONNX file of the runtime: normalisation in the graph, a model card in the metadata."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import onnx
import onnxsim
import torch
from onnx import ModelProto, helper
from torch import Tensor, nn

from edge_fr.cards import read_card
from edge_fr.engine import CARD_KEY, ModelCard, open_engine
from edge_fr.errors import ModelError
from edge_fr.fold import weights_digest
from edge_fr.models import resolve
from export.networks.published import Layout
from export.verify import BOUNDS, differences, synthetic
from export.weights import Checkpoint, load_run, load_whole

# Operators that TensorRT since 8 and onnxruntime run without dynamic shapes.
ALLOWED = frozenset(
    {
        *("Add", "AveragePool", "BatchNormalization", "Clip", "Concat", "Constant", "Conv", "Div", "Flatten"),
        *("Gemm", "Identity", "MatMul", "MaxPool", "Mul", "PRelu", "ReduceMax", "ReduceMean", "ReduceSum"),
        *("Relu", "Sigmoid", "Slice", "Sqrt", "Sub"),
    }
)


@dataclass(frozen=True)
class Origin:
    """What a card says and no checkpoint tells: asked for, never guessed."""

    name: str
    licence: str
    training_data: str
    known_failures: str = ""


Simplify = Callable[..., tuple[ModelProto, bool]]


def export(network: nn.Module, outputs: Sequence[str], path: Path, card: ModelCard) -> Path:
    """Writes `network` (crops N x 3 x 112 x 112 -> `outputs`) with its card, and proves the file.

    Only the batch varies. Raises ModelError if the graph holds an operator beyond ALLOWED, or if the
    simplified graph's or onnxruntime's answers differ from torch's; nothing is left at `path` then. The
    card's `weights_digest` is filled in.
    """
    network.eval()
    part = path.with_name(f".{path.stem}.part.onnx")
    try:
        torch.onnx.export(
            network,
            (torch.zeros(1, 3, 112, 112),),
            part,
            input_names=["crops"],
            output_names=list(outputs),
            dynamic_axes={name: {0: "batch"} for name in ["crops", *outputs]},
            opset_version=17,
            dynamo=False,
        )
        model = simplified(onnx.load(part), network, card.name)
        foreign = {node.op_type for node in model.graph.node} - ALLOWED
        if foreign:
            raise ModelError(
                f"{card.name}: operators {', '.join(sorted(foreign))} are not in to_onnx.ALLOWED"
            )
        filled = replace(card, weights_digest=weights_digest(model))
        del model.metadata_props[:]  # what the simplifier notes of its work
        helper.set_model_props(model, {CARD_KEY: filled.to_json()})
        onnx.save(model, part)
        crops, _ = synthetic(5)
        for row in differences(network, outputs, open_engine(part), "onnxruntime", crops, (1, 5)):
            if not row.passed:
                raise ModelError(
                    f"{card.name}: onnxruntime and torch differ by {row.greatest:.2g} in {row.output!r} at "
                    f"batch {row.batch}, at most {row.greatest_allowed:.2g}"
                )
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return path


def simplified(
    model: ModelProto, network: nn.Module, name: str, simplify: Simplify = onnxsim.simplify
) -> ModelProto:
    """The model without what does nothing, constants folded; ModelError if it then answers otherwise.

    "Otherwise" is by more than single precision explains, given how large the answers of `network` are.
    """
    crops, _ = synthetic(2)
    with torch.inference_mode():
        answer = network(torch.from_numpy(crops))
    answers = (answer,) if isinstance(answer, Tensor) else answer
    largest = max(1.0, *(float(value.abs().max()) for value in answers if value is not None))
    atol = BOUNDS["onnxruntime", "fp32"].share * largest
    with contextlib.redirect_stdout(io.StringIO()) as told:
        smaller, same = simplify(model, check_n=1, input_data={"crops": crops}, check_atol=atol)
    if not same:
        reason = told.getvalue().partition("After optimization")[0].strip() or "it gave no reason"
        raise ModelError(f"{name}: simplified by onnxsim the graph answers otherwise ({reason})")
    return smaller


def write_published(
    recognizer: str, layout: Layout, checkpoint: Checkpoint, path: Path, origin: Origin
) -> Path:
    """The recognizer called `recognizer` in LAYOUTS, with a user's weights, as the ONNX file `path`.

    `layout` is that of LAYOUTS or one with other pixels. ModelError for weights that do not fit it.
    """
    whole = load_whole(recognizer, layout, checkpoint)
    with torch.inference_mode():
        size = whole(torch.zeros(1, 3, 112, 112)).shape[1]
    card = replace(
        _card(origin, f"{recognizer}, as {layout.origin} publishes it", size),
        notes=f"the graph turns its pixels into those that the network learned from: {layout.pixels()}",
    )
    return export(whole, ["embedding"], path, card)


def _card(origin: Origin, architecture: str, embedding_size: int) -> ModelCard:
    """What all recognizers written here have in common; `export` fills in the digest."""
    return ModelCard(
        task="embed",
        colour="RGB",
        input_range=(0.0, 255.0),
        weights_digest="",
        template="arcface-112",
        embedding_size=embedding_size,
        architecture=architecture,
        **vars(origin),
    )


def write_run(run: Path, path: Path, origin: Origin, *, visibility: bool = False) -> tuple[Path, Path]:
    """The recognizer of a finished run as the ONNX file `path`, and its gate beside it (`face-gate.onnx`)."""
    recognizer, gate, config = load_run(run, visibility=visibility)
    parts = ", ".join(name.replace("_", " ") for name, there in config.parts if there)
    base = read_card(resolve(config.base))
    card = replace(
        _card(origin, f"MobileNetV1 body, factorised tail; {parts}; recognizability index", 128),
        base=f"{base.name} ({base.licence}), which is also the teacher",
    )
    face = export(recognizer, recognizer.outputs(), path, card)
    watchman = replace(
        card,
        name=f"{origin.name}-gate",
        task="gate",
        embedding_size=None,
        guards=read_card(face).weights_digest,
        architecture="a convolution and six depthwise separable ones; distilled from the recognizer's index",
        known_failures="judges the crop alone: it does not know whether it shows a face",
    )
    return face, export(gate, ["ri"], path.with_name(f"{path.stem}-gate.onnx"), watchman)
