"""A finished run becomes the two ONNX files of the runtime, each with its model card inside."""

from __future__ import annotations

from pathlib import Path

import onnx
import onnxruntime
import torch
from onnx import helper
from torch import Tensor, nn

from edge_fr.cards import read_card
from edge_fr.engine import CARD_KEY, ModelCard
from edge_fr.errors import ModelError
from edge_fr.fold import weights_digest
from edge_fr.models import resolve
from export.training.trainer import load_trained

# Operators that TensorRT since 8 and onnxruntime run without dynamic shapes.
ALLOWED = frozenset(
    {
        *(
            "Add",
            "AveragePool",
            "BatchNormalization",
            "Clip",
            "Concat",
            "Constant",
            "Conv",
            "Div",
            "Flatten",
            "Gemm",
        ),
        *("Identity", "MatMul", "Mul", "PRelu", "ReduceMax", "ReduceMean", "ReduceSum", "Relu", "Sigmoid"),
        *("Slice", "Sqrt", "Sub"),
    }
)
# Outputs lie within 1 of zero; torch and onnxruntime sum in another order, in single precision.
TOLERANCE = 1e-5
KNOWN_FAILURES = (
    "faces of 8 px and less are seldom told apart; two poor pictures of different people look more alike "
    "than two good ones, so enrol from good ones; the masks it learned from were drawn, not worn; accuracy "
    "by age, sex and origin was not measured"
)


def export(network: nn.Module, outputs: list[str], path: Path, card: ModelCard) -> Path:
    """Writes `network` (crops N x 3 x 112 x 112 -> `outputs`) with its card, and proves the file.

    Raises ModelError if the graph holds an operator beyond ALLOWED, or if onnxruntime's answers differ
    from torch's; nothing is left at `path` then. The card's `weights_digest` is filled in.
    """
    network.eval()
    part = path.with_suffix(".part")
    torch.onnx.export(
        network,
        (torch.zeros(1, 3, 112, 112),),
        part,
        input_names=["crops"],
        output_names=outputs,
        dynamic_axes={name: {0: "batch"} for name in ["crops", *outputs]},
        opset_version=17,
        dynamo=False,
    )
    try:
        model = onnx.load(part)
        foreign = {node.op_type for node in model.graph.node} - ALLOWED
        if foreign:
            raise ModelError(
                f"{card.name}: operators {', '.join(sorted(foreign))} are not in to_onnx.ALLOWED"
            )
        filled = ModelCard(**{**vars(card), "weights_digest": weights_digest(model)})
        helper.set_model_props(model, {CARD_KEY: filled.to_json()})
        onnx.save(model, part)
        worst = difference(network, part, outputs)
        if worst > TOLERANCE:
            raise ModelError(f"{card.name}: onnxruntime and torch differ by {worst:.2g}, at most {TOLERANCE}")
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return path


def difference(network: nn.Module, path: Path, outputs: list[str]) -> float:
    """The largest difference between the file's answers and the network's, at batch 1 and 5."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    worst = 0.0
    for count in (1, 5):
        crops = torch.rand(count, 3, 112, 112, generator=torch.Generator().manual_seed(count)) * 255
        with torch.inference_mode():
            answer = network(crops)
        expected = (answer,) if isinstance(answer, Tensor) else answer
        for found, wanted in zip(session.run(outputs, {"crops": crops.numpy()}), expected, strict=False):
            worst = max(worst, float(abs(torch.from_numpy(found) - wanted).max()))
    return worst


def write(run: Path, folder: Path, *, visibility: bool = False) -> tuple[Path, Path]:
    """The recognizer and the gate of the run in folder `run`, as ONNX files in `folder`."""
    recognizer, gate, config = load_trained(run / "recognizer.pt", visibility=visibility)
    parts = ", ".join(name.replace("_", " ") for name, there in config.parts if there)
    folder.mkdir(parents=True, exist_ok=True)
    base = read_card(resolve(config.base))
    sources = ", ".join(source.name for source in config.sources)
    training_data = f"{sources}: photographs for non-commercial research; their terms are yours to check"
    common = {
        "colour": "RGB",
        "input_range": (0.0, 255.0),
        "weights_digest": "",
        "licence": "Apache-2.0",
        "training_data": training_data,
        "base": f"{base.name} ({base.licence}), which is also the teacher",
        "template": "arcface-112",
    }
    names = ["embedding", "ri", "mask_prob", *(["visibility"] if visibility else [])]
    embedder = ModelCard(
        name=config.name,
        task="embed",
        embedding_size=128,
        architecture=f"MobileNetV1 body, factorised tail; {parts}; recognizability index",
        known_failures=KNOWN_FAILURES,
        **common,  # type: ignore[arg-type]
    )
    face = export(recognizer, names, folder / f"{config.name}.onnx", embedder)
    guards = read_card(face).weights_digest
    watchman = ModelCard(
        name=f"{config.name}-gate",
        task="gate",
        guards=guards,
        architecture="seven depthwise separable convolutions; distilled from the recognizer's index",
        known_failures="judges the crop alone: it does not know whether it shows a face",
        **common,  # type: ignore[arg-type]
    )
    return face, export(gate, ["ri"], folder / f"{config.name}-gate.onnx", watchman)
