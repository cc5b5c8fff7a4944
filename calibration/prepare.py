"""A model's graph in the form that quantisation starts from: constants stored, BatchNorm folded in.

What is computed stays what it was; only its bookkeeping goes. Every node has a name of its own
afterwards, so that layers can be spoken of: a list of layers to keep, a court's verdict on one.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, helper, numpy_helper, shape_inference

from edge_fr.errors import ModelError

OPSET = 17  # what TensorRT 8.6 and onnxruntime 1.20 read; per-channel DequantizeLinear came with 13
LAYERS = ("Conv", "Gemm", "MatMul")  # what has weights, and nearly all of the arithmetic

Array = NDArray[Any]  # of whatever type the tensor has


def prepare(model: ModelProto) -> ModelProto:
    """A copy without Constant, Identity and (where they can be folded) BatchNormalization nodes.

    ModelError for a file that is older than opset 13 or has no names for its tensors' types.
    """
    (version,) = (o.version for o in model.opset_import if o.domain in ("", "ai.onnx"))
    if version < 13:
        raise ModelError(
            f"the model has opset {version}, expected at least 13; export it again with opset {OPSET}, or "
            f"use onnx.version_converter.convert_version(model, {OPSET})"
        )
    copy = ModelProto()
    copy.CopyFrom(model)
    _store_constants(copy)
    _fold_batchnorms(copy)
    drop_unused(copy)
    _name_nodes(copy)
    del copy.graph.value_info[:]
    return copy


def constants(model: ModelProto) -> dict[str, Array]:
    """The initialisers of the graph by name."""
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def producers(model: ModelProto) -> dict[str, NodeProto]:
    """The node behind each tensor that a node makes."""
    return {name: node for node in model.graph.node for name in node.output}


def consumers(model: ModelProto) -> dict[str, list[NodeProto]]:
    """The nodes that read each tensor; a node that reads it twice is listed twice."""
    found: dict[str, list[NodeProto]] = defaultdict(list)
    for node in model.graph.node:
        for name in node.input:
            found[name].append(node)
    return found


def layers(model: ModelProto) -> list[NodeProto]:
    """The Conv, Gemm and MatMul nodes with constant weights, in the graph's order."""
    known = {tensor.name for tensor in model.graph.initializer}
    return [
        node
        for node in model.graph.node
        if node.op_type in LAYERS and node.input[1] in known and node.input[0] not in known
    ]


def number(node: NodeProto, name: str, default: float) -> float:
    """The value of a node's numeric attribute."""
    return next((float(helper.get_attribute_value(a)) for a in node.attribute if a.name == name), default)


def out_axis(node: NodeProto) -> int:
    """The axis of a layer's weights that counts its output channels."""
    return 0 if node.op_type == "Conv" or number(node, "transB", 0) else 1


def put(model: ModelProto, name: str, value: Array | np.generic) -> str:
    """Stores an initialiser, in place of one of that name."""
    tensor = numpy_helper.from_array(np.asarray(value, order="C"), name)  # a scalar stays one
    for old in model.graph.initializer:
        if old.name == name:
            old.CopyFrom(tensor)
            return name
    model.graph.initializer.append(tensor)
    return name


def with_shapes(model: ModelProto, sizes: Mapping[str, Collection[int]]) -> dict[str, tuple[int, ...]]:
    """Shape of every tensor whose shape follows from the given shapes of the inputs."""
    fixed = ModelProto()
    fixed.CopyFrom(model)
    for value in fixed.graph.input:
        kind = value.type.tensor_type.elem_type
        value.CopyFrom(helper.make_tensor_value_info(value.name, kind, list(sizes[value.name])))
    for value in fixed.graph.output:
        value.type.tensor_type.ClearField("shape")
    inferred = shape_inference.infer_shapes(fixed, data_prop=True)
    return {
        value.name: tuple(d.dim_value for d in value.type.tensor_type.shape.dim)
        for value in [*inferred.graph.value_info, *inferred.graph.input, *inferred.graph.output]
    }


def replace_nodes(model: ModelProto, nodes: Collection[NodeProto]) -> None:
    """Gives the graph these nodes instead of its own."""
    kept = [NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del model.graph.node[:]
    model.graph.node.extend(kept)


def drop_unused(model: ModelProto) -> None:
    """Takes out nodes and initialisers that lead to no output, and initialisers listed as inputs."""
    needed = {output.name for output in model.graph.output}
    kept = []
    for node in reversed(model.graph.node):
        if needed & set(node.output):
            needed |= set(node.input)
            kept.append(node)
    replace_nodes(model, kept[::-1])
    stored = {t.name for t in model.graph.initializer}
    initializers = [t for t in model.graph.initializer if t.name in needed]
    inputs = [i for i in model.graph.input if i.name not in stored]
    del model.graph.initializer[:], model.graph.input[:]
    model.graph.initializer.extend(initializers)
    model.graph.input.extend(inputs)


def _store_constants(model: ModelProto) -> None:
    """Constant nodes become initialisers; Identity nodes go, those at an output stay."""
    outputs = {output.name for output in model.graph.output}
    renamed: dict[str, str] = {}
    kept = []
    for node in model.graph.node:
        node.input[:] = [renamed.get(name, name) for name in node.input]
        if node.op_type == "Constant":
            (value,) = node.attribute
            stored = helper.get_attribute_value(value)
            array = (
                numpy_helper.to_array(stored)
                if isinstance(stored, onnx.TensorProto)
                else np.asarray(stored, np.float32 if "float" in value.name else np.int64)
            )
            model.graph.initializer.append(numpy_helper.from_array(array, node.output[0]))
        elif node.op_type in ("Identity", "Dropout") and node.output[0] not in outputs:
            renamed[node.output[0]] = node.input[0]
        else:
            kept.append(node)
    replace_nodes(model, kept)


def _fold_batchnorms(model: ModelProto) -> None:
    """BatchNorm behind a layer goes into it; so does one before a Gemm, which no padding separates."""
    known, made, used = constants(model), producers(model), consumers(model)
    outputs = {output.name for output in model.graph.output}
    kept = []
    for node in model.graph.node:
        if node.op_type != "BatchNormalization" or not all(name in known for name in node.input[1:]):
            kept.append(node)
            continue
        gamma, beta, mean, variance = (known[name].astype(np.float64) for name in node.input[1:])
        scale = gamma / np.sqrt(variance + number(node, "epsilon", 1e-5))
        shift = beta - mean * scale
        source, result = node.input[0], node.output[0]
        layer = made.get(source)
        if layer is not None and len(used[source]) == 1 and source not in outputs and _foldable(layer, known):
            _scale_output(model, layer, known, scale, shift)
            layer.output[0] = result  # which may be an output of the graph
            made[result] = layer
            continue
        flat = used[result][0] if len(used[result]) == 1 and used[result][0].op_type == "Flatten" else None
        end = flat.output[0] if flat is not None else result
        reader = used[end][0] if len(used[end]) == 1 else None
        if (
            reader is None
            or not _foldable(reader, known)
            or {result, end} & outputs
            or reader.op_type != "Gemm"
        ):
            kept.append(node)
            continue
        _scale_input(model, reader, known, scale, shift)
        (reader if flat is None else flat).input[0] = source
    replace_nodes(model, kept)


def _foldable(layer: NodeProto, known: Mapping[str, Array]) -> bool:
    plain = layer.op_type == "Conv" or (
        layer.op_type == "Gemm"
        and number(layer, "alpha", 1) == number(layer, "beta", 1) == 1
        and not number(layer, "transA", 0)
    )
    return plain and all(name in known for name in layer.input[1:])


def _scale_output(
    model: ModelProto, layer: NodeProto, known: dict[str, Array], scale: Array, shift: Array
) -> None:
    """layer(x) becomes layer(x) * scale + shift, by channel."""
    weights = known[layer.input[1]].astype(np.float64)
    across = [1] * weights.ndim
    across[out_axis(layer)] = -1
    bias = known[layer.input[2]].astype(np.float64) if len(layer.input) > 2 else np.zeros(len(scale))
    _replace_weights(model, layer, known, weights * scale.reshape(across), bias * scale + shift)


def _scale_input(
    model: ModelProto, gemm: NodeProto, known: dict[str, Array], scale: Array, shift: Array
) -> None:
    """gemm(x) becomes gemm(x * scale + shift), by channel; each channel may cover several values."""
    weights = known[gemm.input[1]].astype(np.float64)
    rows = weights if out_axis(gemm) == 0 else weights.T  # (outputs, inputs)
    repeated = rows.shape[1] // len(scale)
    scale, shift = np.repeat(scale, repeated), np.repeat(shift, repeated)
    bias = known[gemm.input[2]].astype(np.float64) if len(gemm.input) > 2 else np.zeros(len(rows))
    scaled = rows * scale
    _replace_weights(model, gemm, known, scaled if out_axis(gemm) == 0 else scaled.T, bias + rows @ shift)


def _replace_weights(
    model: ModelProto, layer: NodeProto, known: dict[str, Array], weights: Array, bias: Array
) -> None:
    """Gives the layer new weights under names of its own: others may share the old ones."""
    names = [f"{layer.output[0]}.weight", f"{layer.output[0]}.bias"]
    layer.input[:] = [layer.input[0], *names]
    for name, value in zip(names, (weights, bias), strict=True):
        known[name] = value.astype(np.float32)
        put(model, name, known[name])


def _name_nodes(model: ModelProto) -> None:
    """Nodes without a name, or with another's, are called after what they make."""
    taken: set[str] = set()
    for node in model.graph.node:
        if not node.name or node.name in taken:
            node.name = f"{node.op_type}:{node.output[0]}"
        taken.add(node.name)
