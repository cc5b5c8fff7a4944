"""Small ONNX networks for tests of what reads, folds and runs ONNX files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import fakes
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from edge_fr.engine import CARD_KEY, ModelCard

FLOAT = TensorProto.FLOAT
ROWS, BLOCK = 2, 4


def tensor(name: str, *shape: int | str, kind: int = FLOAT) -> ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def save(
    path: Path,
    nodes: Sequence[NodeProto],
    inputs: Sequence[ValueInfoProto],
    outputs: Sequence[ValueInfoProto],
    *,
    constants: dict[str, NDArray[np.generic]] | None = None,
    card: ModelCard | None = None,
) -> Path:
    initializers = [numpy_helper.from_array(value, name) for name, value in (constants or {}).items()]
    graph = helper.make_graph(list(nodes), "test", list(inputs), list(outputs), initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    if card is not None:
        model.metadata_props.add(key=CARD_KEY, value=card.to_json())
    onnx.save(model, path)
    return path


def small_recognizer(path: Path) -> Path:
    """One convolution and one linear layer, with a card."""
    rng = np.random.default_rng(0)
    stored = {
        "w": rng.normal(0, 0.1, (4, 3, 16, 16)).astype(np.float32),
        "b": np.zeros(4, np.float32),
        "v": rng.normal(0, 0.1, (8, 4 * 14 * 14)).astype(np.float32),
        "c": np.zeros(8, np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["y"], name="conv", strides=[8, 8], pads=[4] * 4),
        helper.make_node("Flatten", ["y"], ["flat"]),
        helper.make_node("Gemm", ["flat", "v", "c"], ["embedding"], name="fc", transB=1),
    ]
    return save(
        path,
        nodes,
        [tensor("x", "batch", 3, 112, 112)],
        [tensor("embedding", "batch", 8)],
        constants=stored,
        card=fakes.card(name="face", embedding_size=8, results={"lfw/clean/auc": 0.99}),
    )


def doubling(path: Path, card: ModelCard | None) -> Path:
    """y = 2x for x of shape (batch, 3, 4)."""
    return save(
        path,
        [helper.make_node("Add", ["x", "x"], ["y"])],
        [tensor("x", "batch", 3, 4)],
        [tensor("y", "batch", 3, 4)],
        card=card,
    )


def block_quantised(seed: int = 0) -> bytes:
    """A convolution of two channels with block-quantised weights, in the form of the public files.

    x (1, 2, 4, 4) -> y (1, 16, 2). Weights are int8 blocks with a scale and a zero point each, padded
    to whole blocks, cut and reshaped in the graph; the bias is whole; initialisers are graph inputs too.
    """
    random = np.random.default_rng(seed)
    constants = {
        "w_quantized": random.integers(-128, 128, (ROWS, 3 * BLOCK)).astype(np.int8),
        "w_scales": random.uniform(0.01, 0.1, (ROWS, 3)).astype(np.float32),
        "w_zero_point": random.integers(-9, 9, (ROWS, 3)).astype(np.int8),
        "starts": np.array([0]),
        "ends": np.array([2]),
        "axes": np.array([1]),
        "w_shape": np.array([2, 2, 1, 1]),
        "bias": random.normal(size=2).astype(np.float32),
        "y_shape": np.array([1, -1, 2]),
        "ratio": np.array(0.4, np.float32),
    }
    nodes = [
        helper.make_node(
            "DequantizeLinear",
            ["w_quantized", "w_scales", "w_zero_point"],
            ["w_whole"],
            axis=1,
            block_size=BLOCK,
        ),
        helper.make_node("Slice", ["w_whole", "starts", "ends", "axes"], ["w_cut"]),
        helper.make_node("Reshape", ["w_cut", "w_shape"], ["w"]),
        helper.make_node("Conv", ["x", "w", "bias"], ["c"], kernel_shape=[1, 1]),
        helper.make_node("Dropout", ["c", "ratio"], ["d"]),
        helper.make_node("Transpose", ["d"], ["t"], perm=[0, 2, 3, 1]),
        helper.make_node("Reshape", ["t", "y_shape"], ["y"]),
    ]
    initializers = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    inputs = [tensor("x", 1, 2, 4, 4), *(tensor(t.name, *t.dims, kind=t.data_type) for t in initializers)]
    graph = helper.make_graph(nodes, "test", inputs, [tensor("y", 1, 16, 2)], initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    content: bytes = model.SerializeToString()
    return content


BLOCK_QUANTISED_SHAPES: dict[str, tuple[int | str, ...]] = {
    "x": ("batch", 2, "height", "width"),
    "y": ("batch", "cells", 2),
}
