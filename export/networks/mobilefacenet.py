"""MobileFaceNet (arXiv 1804.07573), under the names and in the shapes of two published sets of weights.

`MobileFaceNet` and `MobileFaceNetTail` are insightface's arcface_torch (`mbf`: twice the paper's channels;
`scale` 1 has the paper's), `FoamliuMobileFaceNet` and `FoamliuTail` those of foamliu/MobileFaceNet, which
has ReLU6 in place of PReLU. Written from the published layouts; no weights come with it.
"""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn

from export.networks.pixels import Pixels


class _Layers(nn.Module):
    """Its layers, one after the other, under the name `layers`; plus the input if `residual`."""

    def __init__(self, *layers: nn.Module, residual: bool = False) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)
        self.residual = residual

    def forward(self, x: Tensor) -> Tensor:
        y = cast(Tensor, self.layers(x))
        return x + y if self.residual else y


def _linear(inputs: int, outputs: int, kernel: int, padding: int = 0, groups: int = 1) -> _Layers:
    """Convolution and BatchNorm."""
    conv = nn.Conv2d(inputs, outputs, kernel, 1, padding, groups=groups, bias=False)
    return _Layers(conv, nn.BatchNorm2d(outputs))


def _conv(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> _Layers:
    """Convolution, BatchNorm and PReLU."""
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return _Layers(conv, nn.BatchNorm2d(outputs), nn.PReLU(outputs))


def _bottleneck(inputs: int, outputs: int, stride: int, width: int) -> _Layers:
    """Inverted residual: widen, depthwise, narrow."""
    return _Layers(
        _conv(inputs, width, 1),
        _conv(width, width, 3, stride, groups=width),
        _linear(width, outputs, 1),
        residual=stride == 1,
    )


class MobileFaceNet(nn.Module):
    """The body: crops -> F3 N x (128 `scale`) x 14 x 14, F4 N x 512 x 7 x 7."""

    f4_channels = 512

    def __init__(self, scale: int = 2) -> None:
        super().__init__()
        thin, wide = 64 * scale, 128 * scale
        self.f3_channels = wide
        self.pixels = Pixels()
        self.layers = nn.Sequential(
            _conv(3, thin, 3, 2),  # 56 x 56
            _conv(thin, thin, 3, groups=64),
            _bottleneck(thin, thin, 2, 128),  # 28 x 28
            _Layers(*[_bottleneck(thin, thin, 1, 128) for _ in range(4)]),
            _bottleneck(thin, wide, 2, 256),  # 14 x 14
            _Layers(*[_bottleneck(wide, wide, 1, 256) for _ in range(6)]),
            _bottleneck(wide, wide, 2, 512),  # 7 x 7
            _Layers(*[_bottleneck(wide, wide, 1, 256) for _ in range(2)]),
        )
        self.conv_sep = _conv(wide, 512, 1)

    def forward(self, crops: Tensor) -> tuple[Tensor, Tensor]:
        f3 = self.layers[:6](self.pixels(crops))
        return f3, self.conv_sep(self.layers[6:](f3))


class MobileFaceNetTail(nn.Module):
    """F4 N x 512 x 7 x 7 -> embedding N x D, not normalised: one 7 x 7 filter a channel, then linear."""

    def __init__(self, size: int = 512) -> None:
        super().__init__()
        self.features = _Layers(
            _linear(512, 512, 7, groups=512),
            nn.Flatten(),
            nn.Linear(512, size, bias=False),
            nn.BatchNorm1d(size),
        )

    def forward(self, f4: Tensor) -> Tensor:
        return cast(Tensor, self.features(f4))


def _conv_relu6(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU6())


class _FoamliuUnit(nn.Module):
    """Inverted residual: widen, depthwise, narrow."""

    def __init__(self, inputs: int, outputs: int, stride: int, widening: int) -> None:
        super().__init__()
        width = widening * inputs
        self.residual = stride == 1 and inputs == outputs
        self.conv = nn.Sequential(
            _conv_relu6(inputs, width, 1),
            _conv_relu6(width, width, 3, stride, groups=width),
            nn.Conv2d(width, outputs, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )

    def forward(self, x: Tensor) -> Tensor:
        y = cast(Tensor, self.conv(x))
        return x + y if self.residual else y


class _FoamliuSecond(nn.Module):
    """Depthwise, then pointwise convolution, each with BatchNorm and ReLU."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, 3, 1, 1, groups=channels, bias=False)
        self.pointwise = nn.Conv2d(channels, channels, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.bn2 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.bn1(self.depthwise(x)))
        return cast(Tensor, self.relu(self.bn2(self.pointwise(x))))


class FoamliuMobileFaceNet(nn.Module):
    """The body: crops -> F3 N x 128 x 14 x 14, F4 N x 512 x 7 x 7."""

    f3_channels = 128
    f4_channels = 512

    def __init__(self) -> None:
        super().__init__()
        self.pixels = Pixels()
        self.conv1 = _conv_relu6(3, 64, 3, 2)  # 56 x 56
        self.dw_conv = _FoamliuSecond(64)
        self.features = nn.Sequential(
            _FoamliuUnit(64, 64, 2, 2),  # 28 x 28
            *[_FoamliuUnit(64, 64, 1, 2) for _ in range(4)],
            _FoamliuUnit(64, 128, 2, 4),  # 14 x 14
            *[_FoamliuUnit(128, 128, 1, 2) for _ in range(6)],
            _FoamliuUnit(128, 128, 2, 4),  # 7 x 7
            *[_FoamliuUnit(128, 128, 1, 2) for _ in range(2)],
        )
        self.conv2 = _conv_relu6(128, 512, 1)

    def forward(self, crops: Tensor) -> tuple[Tensor, Tensor]:
        f3 = self.features[:12](self.dw_conv(self.conv1(self.pixels(crops))))
        return f3, self.conv2(self.features[12:](f3))


class _FoamliuPool(nn.Module):
    """One 7 x 7 filter a channel, and BatchNorm."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, 7, groups=channels, bias=False)
        self.bn = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.bn(self.depthwise(x)))


class FoamliuTail(nn.Module):
    """F4 N x 512 x 7 x 7 -> embedding N x D, not normalised."""

    def __init__(self, size: int = 128) -> None:
        super().__init__()
        self.gdconv = _FoamliuPool(512)
        self.conv3 = nn.Conv2d(512, size, 1)
        self.bn = nn.BatchNorm2d(size)

    def forward(self, f4: Tensor) -> Tensor:
        return cast(Tensor, self.bn(self.conv3(self.gdconv(f4))).flatten(1))
