"""Bodies that turn a crop into two feature maps, F3 (14x14) and F4 (7x7); everything else hangs on these.

`MobileNetV1` is the body of SFace (OpenCV zoo, Apache-2.0) and starts from its weights; the trainer takes
this one alone. Those in iresnet.py and mobilefacenet.py have the same input and the same two outputs, and
the key names of published checkpoints.

A body takes crops N x 3 x 112 x 112, float, RGB, 0..255, and has `f3_channels` and `f4_channels`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from torch import Tensor, nn
from torch.nn import functional

from edge_fr.errors import ModelError
from export.networks.adapters import Adapter, DetailRouter

# SFace's blocks 2..14: input channels, output channels, stride. 112 -> 56 -> 28 -> 14 -> 7.
SFACE_BLOCKS = (
    (32, 64, 1),
    (64, 128, 2),
    (128, 128, 1),
    (128, 256, 2),
    (256, 256, 1),
    (256, 512, 2),
    *[(512, 512, 1)] * 5,
    (512, 1024, 2),
    (1024, 1024, 1),
)


# Ranks of their adapters: low where maps are large. The first block has none, it is not trained either.
ADAPTER_RANKS = (8, 8, 10, 10, *[16] * 6, 32, 32)


class _FixedSlopeGradient(torch.autograd.Function):
    """PReLU whose slopes get no gradient: 1.8 times faster on a CPU than the built-in one."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, slope: Tensor) -> Tensor:
        ctx.save_for_backward(x, slope)
        return torch.lerp(torch.relu(x), x, slope)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        x, slope = ctx.saved_tensors
        passed = torch.ops.aten.threshold_backward(grads[0], x, 0)
        return torch.lerp(passed, grads[0], slope), None


class FixedPReLU(nn.Module):
    """PReLU with slopes that are loaded, not trained."""

    weight: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("weight", torch.full((channels,), 0.25))

    def forward(self, x: Tensor) -> Tensor:
        if torch.onnx.is_in_onnx_export() or not x.requires_grad:
            return functional.prelu(x, self.weight.to(x.dtype))
        slope = self.weight.to(x.dtype)[None, :, None, None]  # 1 x C x 1 x 1
        return cast(Tensor, _FixedSlopeGradient.apply(x, slope))  # type: ignore[no-untyped-call]


class ConvAct(nn.Module):
    """Convolution with bias (a BatchNorm folded into it) and PReLU."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups)
        self.act = FixedPReLU(outputs)

    def forward(self, x: Tensor, more: Tensor | None = None) -> Tensor:
        """`more` is added to what the convolution answers."""
        if self.conv.stride[0] == 2 and x.device.type == "cpu" and self.training:
            # The bf16 gradient of a strided depthwise convolution falls to a slow path on CPUs.
            with torch.autocast("cpu", enabled=False):
                y = self.conv(x.float()).to(x.dtype)
        else:
            y = self.conv(x)
        return cast(Tensor, self.act(y if more is None else y + more))


class MobileNetV1(nn.Module):
    """SFace's body: a stem and thirteen depthwise-separable blocks, BatchNorm folded into the convolutions.

    Folded rather than kept: SFace's statistics stay exactly as learned (few identities would spoil
    them), and the passes over memory that BatchNorm costs are saved. With `adapters` it corrects itself for
    faces with little detail: see adapters.py.
    """

    f3_channels = 512
    f4_channels = 1024

    def __init__(self, *, adapters: bool = False) -> None:
        super().__init__()
        self.stem = ConvAct(3, 32, 3)
        blocks = [
            nn.Sequential(ConvAct(i, i, 3, stride, groups=i), ConvAct(i, o, 1))
            for i, o, stride in SFACE_BLOCKS
        ]
        self.to_f3 = nn.Sequential(*blocks[:-2])
        self.to_f4 = nn.Sequential(*blocks[-2:])
        self.router = DetailRouter() if adapters else None
        shapes = zip(SFACE_BLOCKS[1:], ADAPTER_RANKS, strict=True)
        self.adapters = nn.ModuleList(Adapter(i, o, rank) for (i, o, _), rank in shapes if adapters)

    def freeze(self, blocks: int) -> None:
        """Lets the stem and the first `blocks` blocks learn no more, none for a negative number.

        Their adapters go on learning. The router does not in any case: it is taught beforehand.
        Stem and first block hold a thousandth of the weights and, at 112 x 112, cost a third of a step.
        """
        if blocks >= 0:
            self.stem.requires_grad_(False)
            for block in [*self.to_f3, *self.to_f4][:blocks]:
                block.requires_grad_(False)
        if self.router is not None:
            self.router.requires_grad_(False)

    def forward(self, crops: Tensor) -> tuple[Tensor, Tensor]:
        """Crops N x 3 x 112 x 112 -> F3 N x 512 x 14 x 14, F4 N x 1024 x 7 x 7."""
        x = self.stem((crops - 127.5) * 0.0078125)
        if self.router is None:
            f3 = self.to_f3(x)
            return f3, self.to_f4(f3)
        s = torch.sigmoid(self.router(crops))  # N x 1 x 1 x 1
        adapters = iter(self.adapters)

        def adapted(x: Tensor, blocks: nn.Module) -> Tensor:
            for block in cast(nn.Sequential, blocks):
                depthwise, pointwise = cast(nn.Sequential, block)
                x = depthwise(x)
                x = pointwise(x, next(adapters)(x, s))
            return x

        f3 = adapted(self.to_f3[0](x), self.to_f3[1:])
        return f3, adapted(f3, self.to_f4)


def _weights(model: Path) -> dict[str, NDArray[np.float32]]:
    graph = onnx.load(model).graph
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}


def _batchnorm(weights: Mapping[str, NDArray[np.float32]], name: str, eps: float) -> tuple[Tensor, Tensor]:
    """The scale and shift that a BatchNorm in eval mode applies to each channel."""
    gamma, beta, mean, var = (
        torch.from_numpy(weights[f"{name}_{part}"].astype(np.float64))
        for part in ("gamma", "beta", "moving_mean", "moving_var")
    )
    scale = gamma / torch.sqrt(var + eps)
    return scale, beta - mean * scale


def load_sface(model: Path, *, adapters: bool = False) -> tuple[MobileNetV1, nn.Linear]:
    """SFace's body and its tail, from the fp32 ONNX file that `edge-fr models pull sface` publishes.

    The tail is BatchNorm, Flatten, a fully connected layer and BatchNorm, folded into one linear map
    of the flattened F4 (N x 50176, channel-major) to the embedding (N x 128, not normalised).
    Raises ModelError if the file is not SFace.
    """
    weights = _weights(model)
    if "pre_fc1_weight" not in weights or "conv_14_conv2d_weight" not in weights:
        names = {name.removesuffix("_dequantized").removesuffix("_reshaped"): name for name in weights}
        weights = {short: weights[name] for short, name in names.items()}
    try:
        body, tail = MobileNetV1(adapters=adapters), nn.Linear(50176, 128)
        layers = [(body.stem, "conv_1")]
        for number, block in enumerate([*body.to_f3, *body.to_f4], start=2):
            depthwise, pointwise = cast(nn.Sequential, block)
            layers += [
                (cast(ConvAct, depthwise), f"conv_{number}_dw"),
                (cast(ConvAct, pointwise), f"conv_{number}"),
            ]
        for layer, name in layers:
            scale, shift = _batchnorm(weights, f"{name}_batchnorm", 1e-3)
            kernel = torch.from_numpy(weights[f"{name}_conv2d_weight"].astype(np.float64))
            layer.conv.weight.data = (kernel * scale[:, None, None, None]).float()
            assert layer.conv.bias is not None
            layer.conv.bias.data = shift.float()
            layer.act.weight = torch.from_numpy(weights[f"{name}_relu_gamma"].reshape(-1).copy())
        before, before_shift = (v.repeat_interleave(49) for v in _batchnorm(weights, "bn1", 2e-5))
        after, after_shift = _batchnorm(weights, "fc1", 2e-5)
        matrix = torch.from_numpy(weights["pre_fc1_weight"].astype(np.float64))  # 128 x 50176
        bias = torch.from_numpy(weights["pre_fc1_bias"].astype(np.float64))
        tail.weight.data = (after[:, None] * matrix * before).float()
        tail.bias.data = (after * (matrix @ before_shift + bias) + after_shift).float()
    except KeyError as error:
        raise ModelError(
            f"{model} is not SFace in fp32: no weight named {error}; `edge-fr models pull sface` fetches it"
        ) from error
    return body, tail
