"""FP16 written into the graph: half the size, with the places that would overflow left in FP32.

Inputs and outputs stay float32, so that the runtime feeds every precision alike. TensorRT takes the types
as they stand (strongly typed); onnxruntime on a CPU, which has few half-precision kernels, computes in
float32 between casts of its own, so that there the file is smaller and no faster.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper

from calibration.prepare import constants, drop_unused, put, replace_nodes
from calibration.ranges import Range
from edge_fr.errors import InputError

LARGEST = 65504.0
HEADROOM = 8.0  # how much farther than on the calibration set a value may reach before it overflows
_SMALLEST_NORMAL = 6.2e-5
# Sums over many values, and what divides by them: an error there reaches every value of an embedding.
_NORMS = {"Div", "Sqrt", "Pow", "Exp", "Log", "ReduceSum", "ReduceSumSquare", "ReduceL2", "LpNormalization"}
_FLOAT_INPUTS = {"Resize": (0,), "Upsample": (0,)}  # where only some inputs may be half precision


def kept_in_fp32(model: ModelProto, ranges: Mapping[str, Range]) -> dict[str, str]:
    """The nodes that stay in FP32, each with the reason."""
    known = constants(model)
    kept = {}
    for node in model.graph.node:
        tensors = [name for name in (*node.input, *node.output) if name in ranges]
        peak = max((ranges[name].peak for name in tensors), default=0.0)
        stored = [
            np.abs(known[name]) for name in _halved(node) if name in known and known[name].dtype == np.float32
        ]
        scalars = [value for value in stored if value.size == 1]
        if peak * HEADROOM > LARGEST:
            kept[node.name] = f"reaches {peak:.0f}"
        elif any(value.max(initial=0.0) > LARGEST for value in stored):
            kept[node.name] = "has a constant beyond 65504"
        elif any(0 < float(value.reshape(-1)[0]) < _SMALLEST_NORMAL for value in scalars):
            kept[node.name] = "has a constant that FP16 cannot hold"
        elif node.op_type in _NORMS or (node.op_type == "Mul" and len(set(node.input)) == 1):
            kept[node.name] = "is part of a norm"
    return kept


def to_fp16(model: ModelProto, ranges: Mapping[str, Range], keep: Collection[str] = ()) -> ModelProto:
    """A copy of the prepared model in half precision, but for `kept_in_fp32` and the nodes in `keep`.

    `ranges` are those of this model: which values each tensor takes. InputError when `keep` names no node.
    """
    unknown = sorted(set(keep) - {node.name for node in model.graph.node})
    if unknown:
        raise InputError(f"{', '.join(unknown)} are no nodes of the model")
    copy = ModelProto()
    copy.CopyFrom(model)
    whole = {*keep, *kept_in_fp32(model, ranges)}
    known = constants(model)
    half = dict.fromkeys(ranges, False)  # by tensor of floats: whether it is in half precision by now
    outputs = {output.name for output in model.graph.output}
    nodes: list[NodeProto] = []
    cast: dict[tuple[str, bool], str] = {}

    def at(name: str, wanted: bool) -> str:
        """The tensor in the wanted precision."""
        if name not in half or half[name] == wanted:
            return name
        if (name, wanted) not in cast:
            kind = TensorProto.FLOAT16 if wanted else TensorProto.FLOAT
            cast[name, wanted] = f"{name}.{'fp16' if wanted else 'fp32'}"
            made = cast[name, wanted]
            nodes.append(helper.make_node("Cast", [name], [made], name=f"Cast:{made}", to=kind))
        return cast[name, wanted]

    for original in model.graph.node:
        node = NodeProto.FromString(original.SerializeToString())
        to_half = node.name not in whole
        for i, name in enumerate(node.input):
            if name in known:
                if to_half and name in _halved(node) and known[name].dtype == np.float32:
                    node.input[i] = put(copy, f"{name}.fp16", _rounded(known[name]))
            elif name:
                node.input[i] = at(name, to_half and name in _halved(node))
        nodes.append(node)
        for i, name in enumerate(node.output):
            if name not in half:
                continue
            half[name] = to_half
            if name in outputs and to_half:
                half[name] = False
                node.output[i] = f"{name}.half"
                nodes.append(
                    helper.make_node(
                        "Cast", [node.output[i]], [name], name=f"Cast:{name}", to=TensorProto.FLOAT
                    )
                )
    replace_nodes(copy, nodes)
    drop_unused(copy)
    return copy


def _halved(node: NodeProto) -> list[str]:
    """The inputs of a node that take its precision."""
    return [node.input[i] for i in _FLOAT_INPUTS.get(node.op_type, range(len(node.input)))]


def _rounded(value: NDArray[Any]) -> NDArray[np.float16]:
    return np.asarray(np.clip(value, -LARGEST, LARGEST), np.float16)
