"""Checkpoints with random weights, under the names and in the shapes of published ones.

Written from the published layouts, apart from the networks that they are loaded into.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

Weights = dict[str, Tensor]
UNITS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 14, 3), 100: (3, 13, 30, 3)}
CHANNELS = (64, 128, 256, 512)


class Draw:
    """Collects weights by name; each layer keeps the size of what passes through it."""

    def __init__(self, *, shapes_only: bool) -> None:
        self.weights: Weights = {}
        self._shapes_only = shapes_only
        self._generator = torch.Generator().manual_seed(0)

    def _normal(self, *shape: int, std: float = 1.0) -> Tensor:
        if self._shapes_only:
            return torch.empty(shape, device="meta")
        return std * torch.randn(shape, generator=self._generator)

    def _uniform(self, count: int, low: float, high: float) -> Tensor:
        if self._shapes_only:
            return torch.empty(count, device="meta")
        return low + (high - low) * torch.rand(count, generator=self._generator)

    def conv(self, name: str, outputs: int, inputs: int, kernel: int, *, bias: bool = False) -> None:
        std = math.sqrt(1.5 / (inputs * kernel * kernel))
        self.weights[f"{name}.weight"] = self._normal(outputs, inputs, kernel, kernel, std=std)
        if bias:
            self.weights[f"{name}.bias"] = self._normal(outputs, std=0.1)

    def linear(self, name: str, outputs: int, inputs: int, *, bias: bool = True) -> None:
        self.weights[f"{name}.weight"] = self._normal(outputs, inputs, std=1 / math.sqrt(inputs))
        if bias:
            self.weights[f"{name}.bias"] = self._normal(outputs, std=0.1)

    def norm(self, name: str, channels: int, *, affine: bool = True) -> None:
        if affine:
            self.weights[f"{name}.weight"] = self._uniform(channels, 0.7, 1.2)
            self.weights[f"{name}.bias"] = self._normal(channels, std=0.1)
        self.weights[f"{name}.running_mean"] = self._normal(channels, std=0.1)
        self.weights[f"{name}.running_var"] = self._uniform(channels, 0.7, 1.5)
        self.weights[f"{name}.num_batches_tracked"] = torch.tensor(7)

    def slopes(self, name: str, channels: int) -> None:
        self.weights[f"{name}.weight"] = self._uniform(channels, 0.1, 0.4)


def iresnet(layers: int, size: int = 512, *, shapes_only: bool = False) -> Weights:
    """insightface, recognition/arcface_torch/backbones/iresnet.py."""
    draw = Draw(shapes_only=shapes_only)
    draw.conv("conv1", 64, 3, 3)
    draw.norm("bn1", 64)
    draw.slopes("prelu", 64)
    inputs = 64
    for stage, (count, outputs) in enumerate(zip(UNITS[layers], CHANNELS, strict=True), start=1):
        for unit in range(count):
            name = f"layer{stage}.{unit}"
            draw.norm(f"{name}.bn1", inputs)
            draw.conv(f"{name}.conv1", outputs, inputs, 3)
            draw.norm(f"{name}.bn2", outputs)
            draw.slopes(f"{name}.prelu", outputs)
            draw.conv(f"{name}.conv2", outputs, outputs, 3)
            draw.norm(f"{name}.bn3", outputs)
            if unit == 0:
                draw.conv(f"{name}.downsample.0", outputs, inputs, 1)
                draw.norm(f"{name}.downsample.1", outputs)
            inputs = outputs
    draw.norm("bn2", 512)
    draw.linear("fc", size, 512 * 7 * 7)
    draw.norm("features", size)
    return draw.weights


def adaface(layers: int, size: int = 512, *, shapes_only: bool = False) -> Weights:
    """AdaFace's net.py; its IR_101 has the units of 100 layers."""
    draw = Draw(shapes_only=shapes_only)
    draw.conv("input_layer.0", 64, 3, 3)
    draw.norm("input_layer.1", 64)
    draw.slopes("input_layer.2", 64)
    inputs, number = 64, 0
    for count, outputs in zip(UNITS[layers], CHANNELS, strict=True):
        for _ in range(count):
            name = f"body.{number}"
            if inputs != outputs:
                draw.conv(f"{name}.shortcut_layer.0", outputs, inputs, 1)
                draw.norm(f"{name}.shortcut_layer.1", outputs)
            draw.norm(f"{name}.res_layer.0", inputs)
            draw.conv(f"{name}.res_layer.1", outputs, inputs, 3)
            draw.norm(f"{name}.res_layer.2", outputs)
            draw.slopes(f"{name}.res_layer.3", outputs)
            draw.conv(f"{name}.res_layer.4", outputs, outputs, 3)
            draw.norm(f"{name}.res_layer.5", outputs)
            inputs, number = outputs, number + 1
    draw.norm("output_layer.0", 512)
    draw.linear("output_layer.3", size, 512 * 7 * 7)
    draw.norm("output_layer.4", size, affine=False)
    return draw.weights


class Names(NamedTuple):
    """What a published MobileFaceNet calls its layers."""

    block: tuple[str, str, str]  # convolution, BatchNorm, PReLU
    bottleneck: tuple[str, str, str]  # widening, depthwise, narrowing
    group: str  # of bottlenecks
    whole: tuple[str, ...]


# insightface, recognition/arcface_torch/backbones/mobilefacenet.py with blocks (1, 4, 6, 2).
ARCFACE = Names(
    ("layers.0", "layers.1", "layers.2"),
    ("layers.0", "layers.1", "layers.2"),
    "layers",
    (
        *(f"layers.{number}" for number in range(8)),
        *("conv_sep", "features.layers.0", "features.layers.2", "features.layers.3"),
    ),
)
# TreB1eN/InsightFace_Pytorch's model.py, from which face.evoLVe and others took it.
TREB1EN = Names(
    ("conv", "bn", "prelu"),
    ("conv", "conv_dw", "project"),
    "model",
    (
        *("conv1", "conv2_dw", "conv_23", "conv_3", "conv_34", "conv_4", "conv_45", "conv_5"),
        *("conv_6_sep", "conv_6_dw", "linear", "bn"),
    ),
)


def mobilefacenet(
    scale: int = 2, size: int = 512, *, names: Names = ARCFACE, shapes_only: bool = False
) -> Weights:
    """insightface's has scale 2, TreB1eN's 1."""
    draw = Draw(shapes_only=shapes_only)

    def block(
        name: str, inputs: int, outputs: int, kernel: int, groups: int = 1, slopes: bool = True
    ) -> None:
        draw.conv(f"{name}.{names.block[0]}", outputs, inputs // groups, kernel)
        draw.norm(f"{name}.{names.block[1]}", outputs)
        if slopes:
            draw.slopes(f"{name}.{names.block[2]}", outputs)

    def bottleneck(name: str, inputs: int, outputs: int, width: int) -> None:
        block(f"{name}.{names.bottleneck[0]}", inputs, width, 1)
        block(f"{name}.{names.bottleneck[1]}", width, width, 3, width)
        block(f"{name}.{names.bottleneck[2]}", width, outputs, 1, slopes=False)

    thin, wide, whole = 64 * scale, 128 * scale, names.whole
    block(whole[0], 3, thin, 3)
    block(whole[1], thin, thin, 3, 64)
    bottleneck(whole[2], thin, thin, 128)
    for unit in range(4):
        bottleneck(f"{whole[3]}.{names.group}.{unit}", thin, thin, 128)
    bottleneck(whole[4], thin, wide, 256)
    for unit in range(6):
        bottleneck(f"{whole[5]}.{names.group}.{unit}", wide, wide, 256)
    bottleneck(whole[6], wide, wide, 512)
    for unit in range(2):
        bottleneck(f"{whole[7]}.{names.group}.{unit}", wide, wide, 256)
    block(whole[8], wide, 512, 1)
    block(whole[9], 512, 512, 7, 512, slopes=False)
    draw.linear(whole[10], size, 512, bias=False)
    draw.norm(whole[11], size)
    return draw.weights


def foamliu(size: int = 128, *, shapes_only: bool = False) -> Weights:
    """foamliu/MobileFaceNet's mobilefacenet.py."""
    draw = Draw(shapes_only=shapes_only)

    def block(name: str, inputs: int, outputs: int, kernel: int) -> None:
        draw.conv(f"{name}.0", outputs, inputs, kernel)
        draw.norm(f"{name}.1", outputs)

    block("conv1", 3, 64, 3)
    draw.conv("dw_conv.depthwise", 64, 1, 3)
    draw.conv("dw_conv.pointwise", 64, 64, 1)
    draw.norm("dw_conv.bn1", 64)
    draw.norm("dw_conv.bn2", 64)
    inputs, number = 64, 0
    for widening, outputs, count in ((2, 64, 5), (4, 128, 1), (2, 128, 6), (4, 128, 1), (2, 128, 2)):
        for _ in range(count):
            name, width = f"features.{number}.conv", widening * inputs
            block(f"{name}.0", inputs, width, 1)
            block(f"{name}.1", 1, width, 3)
            draw.conv(f"{name}.2", outputs, width, 1)
            draw.norm(f"{name}.3", outputs)
            inputs, number = outputs, number + 1
    block("conv2", 128, 512, 1)
    draw.conv("gdconv.depthwise", 512, 1, 7)
    draw.norm("gdconv.bn", 512)
    draw.conv("conv3", size, 512, 1, bias=True)
    draw.norm("bn", size)
    return draw.weights
