"""iResNet, under the two sets of names that its checkpoints come with.

`IResNet` and `IResNetTail` have the names of insightface's arcface_torch, `AdaFaceIR` and `AdaFaceTail` those
of AdaFace (and of CVLface and TFace, which share them). The arithmetic is the same but for the first unit's
shortcut: a strided convolution in the one, every second place in the other. Written from the published
layouts; no weights come with it.
"""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn

from export.networks.pixels import Pixels

Units = tuple[int, int, int, int]  # a stage each
# Named by their layers, as their authors do: AdaFace's 101 has the units of iResNet-100.
UNITS: dict[int, Units] = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 14, 3), 100: (3, 13, 30, 3)}
CHANNELS = (64, 128, 256, 512)


class _Unit(nn.Module):
    """BatchNorm, convolution, BatchNorm, PReLU, strided convolution, BatchNorm, plus the input."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.prelu = nn.PReLU(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, stride, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.downsample: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1(self.bn1(x))
        y = self.conv2(self.prelu(self.bn2(y)))
        return cast(Tensor, self.bn3(y) + self.downsample(x))


class IResNet(nn.Module):
    """The body: crops -> F3 N x 256 x 14 x 14, F4 N x 512 x 7 x 7. `units` per stage: see UNITS."""

    f3_channels = 256
    f4_channels = 512

    def __init__(self, units: Units = UNITS[18]) -> None:
        super().__init__()
        self.pixels = Pixels()
        self.conv1 = nn.Conv2d(3, 64, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.prelu = nn.PReLU(64)
        stages, inputs = [], 64
        for count, outputs in zip(units, CHANNELS, strict=True):
            rest = [_Unit(outputs, outputs, 1) for _ in range(count - 1)]
            stages.append(nn.Sequential(_Unit(inputs, outputs, 2), *rest))
            inputs = outputs
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        self.bn2 = nn.BatchNorm2d(512)

    def forward(self, crops: Tensor) -> tuple[Tensor, Tensor]:
        x = self.prelu(self.bn1(self.conv1(self.pixels(crops))))  # 112 x 112
        f3 = self.layer3(self.layer2(self.layer1(x)))
        return f3, self.bn2(self.layer4(f3))


class IResNetTail(nn.Module):
    """F4 N x 512 x 7 x 7 -> embedding N x D, not normalised."""

    def __init__(self, size: int = 512) -> None:
        super().__init__()
        self.fc = nn.Linear(512 * 49, size)
        self.features = nn.BatchNorm1d(size)

    def forward(self, f4: Tensor) -> Tensor:
        return cast(Tensor, self.features(self.fc(f4.flatten(1))))


class _AdaFaceUnit(nn.Module):
    """The same unit; where the channels stay, its shortcut takes every `stride`-th place as it is."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.shortcut_layer: nn.Module = nn.MaxPool2d(1, stride) if stride != 1 else nn.Identity()
        if inputs != outputs:
            self.shortcut_layer = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )
        self.res_layer = nn.Sequential(
            nn.BatchNorm2d(inputs),
            nn.Conv2d(inputs, outputs, 3, 1, 1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.PReLU(outputs),
            nn.Conv2d(outputs, outputs, 3, stride, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.res_layer(x) + self.shortcut_layer(x))


class AdaFaceIR(nn.Module):
    """The body: crops -> F3 N x 256 x 14 x 14, F4 N x 512 x 7 x 7. `units` per stage: see UNITS."""

    f3_channels = 256
    f4_channels = 512

    def __init__(self, units: Units = UNITS[18]) -> None:
        super().__init__()
        self.pixels = Pixels()
        self.input_layer = nn.Sequential(
            nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.BatchNorm2d(64), nn.PReLU(64)
        )
        stages, inputs = [], 64
        for count, outputs in zip(units, CHANNELS, strict=True):
            stages += [_AdaFaceUnit(inputs, outputs, 2)]
            stages += [_AdaFaceUnit(outputs, outputs, 1) for _ in range(count - 1)]
            inputs = outputs
        self.body = nn.Sequential(*stages)
        self._f4_from = sum(units[:3])

    def forward(self, crops: Tensor) -> tuple[Tensor, Tensor]:
        f3 = self.body[: self._f4_from](self.input_layer(self.pixels(crops)))
        return f3, self.body[self._f4_from :](f3)


class AdaFaceTail(nn.Module):
    """F4 N x 512 x 7 x 7 -> embedding N x D, not normalised: AdaFace reads quality off its length."""

    def __init__(self, size: int = 512) -> None:
        super().__init__()
        self.output_layer = nn.Sequential(
            nn.BatchNorm2d(512),
            nn.Dropout(0.4),
            nn.Flatten(),
            nn.Linear(512 * 49, size),
            nn.BatchNorm1d(size, affine=False),
        )

    def forward(self, f4: Tensor) -> Tensor:
        return cast(Tensor, self.output_layer(f4))
