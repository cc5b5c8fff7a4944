"""Cross-layer equalisation: the same function, with channels of like size between its layers.

One scale has to serve all channels of a tensor in 8 bits, so that a channel with a tenth of the greatest
one's values has a tenth of its steps. Where a layer's result goes through Relu or PRelu into one other
layer, a channel can be divided by any positive number before it and multiplied by it behind (Nagel et
al., "Data-Free Quantization through Weight Equalization and Bias Correction", 2019); PRelu allows it
because it is positively homogeneous.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto

from calibration.prepare import constants, consumers, layers, number, put

_WIDEST = 64.0  # no channel is scaled by more: a channel that is nearly dead stays so


@dataclass(frozen=True)
class Couple:
    """Two Conv layers with nothing but an activation, if that, between them."""

    first: NodeProto
    activation: NodeProto | None  # Relu or PRelu
    second: NodeProto

    @property
    def tensor(self) -> str:
        """What the second layer reads."""
        return str(self.second.input[0])


def couples(model: ModelProto) -> list[Couple]:
    """All places where channels can be scaled, in the graph's order."""
    used, outputs = consumers(model), {output.name for output in model.graph.output}
    known = constants(model)
    convs = {node.name for node in layers(model) if node.op_type == "Conv"}

    def follower(tensor: str) -> NodeProto | None:
        return used[tensor][0] if len(used[tensor]) == 1 and tensor not in outputs else None

    found = []
    for first in layers(model):
        if first.name not in convs:
            continue
        after = follower(first.output[0])
        activation = None
        if after is not None and (
            after.op_type == "Relu" or (after.op_type == "PRelu" and after.input[1] in known)
        ):
            activation, after = after, follower(after.output[0])
        if after is None or after.name not in convs:
            continue
        groups = int(number(after, "group", 1))
        if groups == 1 or len(known[after.input[1]]) == groups:  # each channel read by all, or by its own
            found.append(Couple(first, activation, after))
    return found


def equalise(model: ModelProto, peaks: Mapping[str, NDArray[np.float32]]) -> ModelProto:
    """A copy of the prepared model, equal but for rounding, whose channels reach as far as each other.

    `peaks` holds the greatest absolute value of every channel of the tensors between layers. Before a
    depthwise layer, whose weights have a scale for each channel anyway, channels become equal; before
    another, the spread is shared evenly between the channels and the weights that read them.
    """
    copy = ModelProto()
    copy.CopyFrom(model)
    for couple in couples(copy):
        # before the activation too: on onnxruntime both of its sides are in 8 bits, at one scale
        reach = np.maximum(peaks[couple.first.output[0]], peaks[couple.tensor]).astype(np.float64)
        reach = np.maximum(reach, 1e-9)
        factors = reach / reach.max()
        weights = constants(copy)[couple.second.input[1]]
        if weights.shape[1] > 1:
            columns = np.maximum(np.abs(weights).max(axis=(0, 2, 3)).astype(np.float64), 1e-9)
            factors = np.sqrt(factors / (columns / columns.max()))
            factors = factors / factors.max()
        _scale(copy, couple, np.maximum(factors, 1 / _WIDEST))
    return copy


def turn_steep_slopes(model: ModelProto) -> ModelProto:
    """A copy whose PRelus have no slope above 1, wherever that takes nothing but other weights.

    PRelu with slope a, fed x, is -a times PRelu with slope 1/a, fed -x: the channel is turned over.
    """
    copy = ModelProto()
    copy.CopyFrom(model)
    for couple in couples(copy):
        if couple.activation is None or couple.activation.op_type != "PRelu":
            continue
        slopes = constants(copy)[couple.activation.input[1]]
        steep = slopes.reshape(-1) > 1
        if slopes.size != len(constants(copy)[couple.first.input[1]]) or not steep.any():
            continue
        name = f"{couple.activation.output[0]}.slopes"
        couple.activation.input[1] = put(
            copy, name, np.where(slopes > 1, 1 / slopes, slopes).astype(np.float32)
        )
        gains = np.where(steep, -slopes.reshape(-1), 1.0)
        _scale(copy, couple, np.where(steep, -1.0, 1.0), gains)
    return copy


def _scale(
    model: ModelProto,
    couple: Couple,
    divide: NDArray[np.float64],
    multiply: NDArray[np.float64] | None = None,
) -> None:
    """Divides the first layer's channels, and multiplies them again in the second's weights."""
    known = constants(model)
    multiply = divide if multiply is None else multiply
    across = (-1, 1, 1, 1)
    first = known[couple.first.input[1]] / divide.reshape(across)
    second = known[couple.second.input[1]]
    depthwise = second.shape[1] == 1
    repeated = np.repeat(multiply, len(second) // len(multiply)) if depthwise else multiply
    second = second * repeated.reshape(across if depthwise else (1, -1, 1, 1))
    for node, weights in ((couple.first, first), (couple.second, second)):
        node.input[1] = put(model, f"{node.output[0]}.weight", weights.astype(np.float32))
    if len(couple.first.input) > 2:
        bias = known[couple.first.input[2]] / divide
        couple.first.input[2] = put(model, f"{couple.first.output[0]}.bias", bias.astype(np.float32))
