"""INT8 written into the graph: QuantizeLinear and DequantizeLinear pairs, in two flavours.

`tensorrt` follows TensorRT's rules for explicit quantisation: symmetric int8 activations and weights with
zero point 0, weights by output channel, biases in float, pairs on what layers read and on the shortcut of
a residual sum. `cpu` follows the patterns that onnxruntime turns into its integer kernels: uint8
activations with a zero point on what layers read and make, int8 weights by output channel, int32 biases.
TensorRT's parser refuses the second, onnxruntime gains nothing from the first. Both take one set of
ranges.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, helper

from calibration.prepare import (
    constants,
    consumers,
    drop_unused,
    layers,
    out_axis,
    put,
    replace_nodes,
)
from calibration.ranges import Range
from edge_fr.errors import InputError

Target = Literal["tensorrt", "cpu"]

_GATES = {"Sigmoid", "HardSigmoid", "Tanh", "Softmax"}
_REDUCTIONS = {"ReduceMean", "ReduceMax", "ReduceSum", "ReduceL2", "GlobalAveragePool", "GlobalMaxPool"}
# What moves or picks values without making new ones: the range is that of what comes in.
_CARRIERS = {"MaxPool", "Resize"}
_SMALLEST_SCALE = 1e-8  # of a tensor or channel that is zero throughout


def kept_by_rule(model: ModelProto) -> dict[str, str]:
    """The layers that stay in floating point whatever the ranges say, each with the reason.

    They are cheap, and an error in one of them reaches every value at once: what decides a gate or an
    attention, and what works on features pooled over the picture (the recognizability head, channel
    attention, the joint of several branches). Norms, divisions, sums and gates are no layers: only
    layers are quantised.
    """
    kept: dict[str, str] = {}
    known = constants(model)
    pooled: set[str] = set()
    quantisable = {node.name for node in layers(model)}
    for node in model.graph.node:
        fed = [name for name in node.input if name and name not in known]
        if node.name in quantisable and fed[0] in pooled:
            kept[node.name] = "works on pooled features"
        many = any if node.op_type == "Concat" else all
        if node.op_type in _REDUCTIONS or (fed and many(name in pooled for name in fed)):
            pooled.update(node.output)
    deciding: set[str] = set()  # tensors from which a gate is reached without another layer between
    for node in reversed(model.graph.node):
        decides = node.op_type in _GATES or bool(deciding & set(node.output))
        if decides and node.name in quantisable:
            kept.setdefault(node.name, "decides a gate")
        elif decides and (node.op_type in _GATES or node.op_type in _NEAR_GATES):
            deciding.update(name for name in node.input if name not in known)
    return kept


_NEAR_GATES = {"Add", "Sub", "Mul", "Div", "Clip", "Flatten", "Reshape", "Transpose", "Squeeze", "Unsqueeze"}


def to_int8(
    model: ModelProto, ranges: Mapping[str, Range], *, target: Target, keep: Collection[str] = ()
) -> ModelProto:
    """A copy of the prepared model whose layers compute in 8 bits, but for those `kept_by_rule` and
    those named in `keep`.

    InputError when `keep` names no layer of the model, or a tensor has no range.
    """
    if target not in get_args(Target):
        raise InputError(f"target is {target!r}, expected one of {', '.join(get_args(Target))}")
    names = [node.name for node in layers(model)]
    unknown = sorted(set(keep) - set(names))
    if unknown:
        raise InputError(f"{', '.join(unknown)} are no layers of the model, which are {', '.join(names)}")
    left = {*keep, *kept_by_rule(model)}
    writer = _Writer(model, ranges, target)
    return writer.write({name for name in names if name not in left})


@dataclass(frozen=True)
class _Pair:
    """A tensor in 8 bits: the integers, what comes out again as floats, scale and zero point."""

    stored: str
    result: str
    scale: float
    zero: int
    inputs: list[str]  # the names of scale and zero point


class _Writer:
    """Puts the pairs into a copy of the model, node by node."""

    def __init__(self, model: ModelProto, ranges: Mapping[str, Range], target: Target) -> None:
        self._model = ModelProto()
        self._model.CopyFrom(model)
        self._ranges = ranges
        self._cpu = target == "cpu"
        self._known = constants(model)
        self._used = consumers(model)
        self._outputs = {output.name for output in model.graph.output}
        self._nodes: list[NodeProto] = []
        self._pairs: dict[str, _Pair] = {}  # tensor -> its pair, for the layers that read it
        self._closed: set[str] = set()  # tensors of which everybody reads what comes out of the pair

    def write(self, quantised: Collection[str]) -> ModelProto:
        shortcuts = {} if self._cpu else self._shortcuts(quantised)
        for original in self._model.graph.node:
            node = NodeProto.FromString(original.SerializeToString())
            source = node.input[0]
            if self._cpu and node.op_type == "PRelu" and source in self._closed and self._bends(node):
                self._bend(node)
                continue
            node.input[:] = [
                self._pairs[name].result if name in self._closed else name for name in node.input
            ]
            if node.name in quantised:
                node.input[0] = self._pair(source).result
                self._quantise_weights(node, self._pairs[source])
            elif node.name in shortcuts:
                name = original.input[shortcuts[node.name]]
                node.input[shortcuts[node.name]] = self._pair(name).result
            self._nodes.append(node)
            if self._cpu and node.output[0] not in self._outputs:
                self._close(original, quantised)
        replace_nodes(self._model, self._nodes)
        drop_unused(self._model)
        return self._model

    def _shortcuts(self, quantised: Collection[str]) -> dict[str, int]:
        """Residual sums of a quantised layer's result and something else, and which input is the latter:
        with that in 8 bits too, TensorRT adds within the layer's own kernel."""
        direct = {
            node.output[0]
            for node in layers(self._model)
            if node.name in quantised and len(self._used[node.output[0]]) == 1
        }
        found = {}
        for node in self._model.graph.node:
            if node.op_type == "Add" and not any(name in self._known for name in node.input):
                fresh = [name in direct for name in node.input]
                if any(fresh):
                    found[node.name] = 1 - fresh.index(True)
        return found

    def _close(self, node: NodeProto, quantised: Collection[str]) -> None:
        """For onnxruntime: gives what an integer kernel can make a pair that all its readers go through."""
        result = node.output[0]
        readers = self._used[result]
        alone = readers[0] if len(readers) == 1 else None
        if node.op_type == "Conv" and node.name in quantised:
            if alone is not None and alone.op_type == "Relu":
                return  # the pair comes behind it: the kernel's clamp at zero is the Relu
            limits = self._range(result)
            if alone is not None and alone.op_type == "PRelu" and self._bends(alone):
                limits = _union(limits, self._range(alone.output[0]))  # both sides share one scale
            self._pair(result, limits)
        elif node.op_type == "Relu" and self._is_layer(node.input[0], quantised):
            self._pair(result)
        elif node.op_type in _CARRIERS and node.input[0] in self._closed:
            self._pair(result, like=self._pairs[node.input[0]])
        elif node.op_type == "Add" and all(name in self._closed for name in node.input):
            self._pair(result)
        else:
            return
        self._closed.add(result)

    def _is_layer(self, tensor: str, quantised: Collection[str]) -> bool:
        made = next((n for n in self._model.graph.node if tensor in n.output), None)
        return made is not None and made.op_type == "Conv" and made.name in quantised and self._only(tensor)

    def _only(self, tensor: str) -> bool:
        return len(self._used[tensor]) == 1 and tensor not in self._outputs

    def _bends(self, prelu: NodeProto) -> bool:
        """Whether PRelu(x) = max(x, slope * x): no slope is above 1."""
        slopes = self._known.get(prelu.input[1])
        return slopes is not None and float(slopes.max()) <= 1 and prelu.output[0] not in self._outputs

    def _bend(self, prelu: NodeProto) -> None:
        """PRelu for onnxruntime, which has no integer kernel for it, as what is above 0 and a product of what
        is below it, in integers of one scale. One of the two is 0, so their sum is exact. Max, which would be
        simpler, has no kernel for 8 bits in onnxruntime 1.23 and before."""
        source, result = self._pairs[prelu.input[0]], prelu.output[0]
        slopes = self._known[prelu.input[1]]
        slope = self._parameters(f"{result}.slope", float(min(slopes.min(), 0)), float(max(slopes.max(), 0)))
        stored = np.clip(np.rint(slopes / slope.scale) + slope.zero, 0, 255).astype(np.uint8)
        put(self._model, f"{result}.slope", stored)
        q, dq = "QuantizeLinear", "DequantizeLinear"
        self._add(dq, [f"{result}.slope", *slope.inputs], f"{result}.slope_dq")
        zero = source.inputs[1]
        self._add("Clip", [source.stored, "", zero], f"{result}.below_q")
        self._add("Clip", [source.stored, zero], f"{result}.above_q")
        self._add(dq, [f"{result}.below_q", *source.inputs], f"{result}.below")
        self._add(dq, [f"{result}.above_q", *source.inputs], f"{result}.above")
        self._add("Mul", [f"{result}.below", f"{result}.slope_dq"], f"{result}.product")
        self._add(q, [f"{result}.product", *source.inputs], f"{result}.product_q")
        self._add(dq, [f"{result}.product_q", *source.inputs], f"{result}.product_dq")
        self._add("Add", [f"{result}.above", f"{result}.product_dq"], f"{result}.sum")
        self._add(q, [f"{result}.sum", *source.inputs], f"{result}.q")
        self._add(dq, [f"{result}.q", *source.inputs], f"{result}.dq")
        self._pairs[result] = _Pair(f"{result}.q", f"{result}.dq", source.scale, source.zero, source.inputs)
        self._closed.add(result)

    def _pair(self, tensor: str, limits: Range | None = None, *, like: _Pair | None = None) -> _Pair:
        """The pair of a tensor, made if there is none yet."""
        if tensor not in self._pairs:
            if like is None:
                limits = limits or self._range(tensor)
                like = self._parameters(tensor, limits.low, limits.high)
            pair = replace(like, stored=f"{tensor}.q", result=f"{tensor}.dq")
            self._add("QuantizeLinear", [tensor, *pair.inputs], pair.stored)
            self._add("DequantizeLinear", [pair.stored, *pair.inputs], pair.result)
            self._pairs[tensor] = pair
        return self._pairs[tensor]

    def _parameters(self, name: str, low: float, high: float) -> _Pair:
        """Stores the scale and zero point for a span."""
        if self._cpu:
            scale = max((high - low) / 255, _SMALLEST_SCALE)
            zero: np.generic = np.uint8(np.clip(np.rint(-low / scale), 0, 255))
        else:
            scale, zero = max(-low, high, _SMALLEST_SCALE * 127) / 127, np.int8(0)
        inputs = [f"{name}.scale", f"{name}.zero"]
        put(self._model, inputs[0], np.float32(scale))
        put(self._model, inputs[1], zero)
        return _Pair("", "", float(np.float32(scale)), int(zero.item()), inputs)

    def _quantise_weights(self, node: NodeProto, source: _Pair) -> None:
        weights = self._known[node.input[1]].astype(np.float64)
        bias = self._known[node.input[2]].astype(np.float64) if len(node.input) > 2 else None
        axis = out_axis(node)
        scales = np.abs(weights).max(axis=tuple(i for i in range(weights.ndim) if i != axis)) / 127
        scales = np.maximum(scales, _SMALLEST_SCALE)
        if self._cpu and bias is not None:
            # A channel of tiny weights would need a bias beyond 32 bits.
            scales = np.maximum(scales, np.abs(bias) / (source.scale * 2**30))
        scales = scales.astype(np.float32)
        across = [-1 if i == axis else 1 for i in range(weights.ndim)]
        stored = np.clip(np.rint(weights / scales.reshape(across)), -127, 127).astype(np.int8)
        node.input[1] = self._constant(f"{node.name}.weight", stored, scales, axis)
        if self._cpu and bias is not None:
            steps = (scales.astype(np.float64) * source.scale).astype(np.float32)
            node.input[2] = self._constant(
                f"{node.name}.bias", np.rint(bias / steps).astype(np.int32), steps, 0
            )

    def _constant(self, name: str, stored: NDArray[Any], scales: NDArray[np.float32], axis: int) -> str:
        """Stores integers by channel, and what makes floats of them."""
        inputs = [f"{name}.q", f"{name}.scale", f"{name}.zero"]
        for key, value in zip(inputs, (stored, scales, np.zeros(len(scales), stored.dtype)), strict=True):
            put(self._model, key, value)
        self._add("DequantizeLinear", inputs, f"{name}.dq", axis=axis)
        return f"{name}.dq"

    def _range(self, tensor: str) -> Range:
        if tensor not in self._ranges:
            raise InputError(f"tensor {tensor!r} has no range; observe the model that is to be quantised")
        return self._ranges[tensor]

    def _add(self, kind: str, inputs: list[str], output: str, *, axis: int | None = None) -> None:
        attributes: dict[str, Any] = {} if axis is None else {"axis": axis}
        self._nodes.append(helper.make_node(kind, inputs, [output], name=f"{kind}:{output}", **attributes))


def _union(a: Range, b: Range) -> Range:
    return Range(min(a.low, b.low), max(a.high, b.high), max(a.peak, b.peak))
