"""Recognizers whose weights a user may bring: whole networks, under the key names of their checkpoints.

What the pixels were that a network learned from is not in a checkpoint: the table says what the authors
trained with, and whoever trained otherwise says so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, cast

from torch import Tensor, nn

from export.networks.iresnet import UNITS, AdaFaceIR, AdaFaceTail, IResNet, IResNetTail
from export.networks.mobilefacenet import FoamliuMobileFaceNet, FoamliuTail, MobileFaceNet, MobileFaceNetTail

Weights = Mapping[str, Tensor]
Colour = Literal["RGB", "BGR"]


class Whole(nn.Module):
    """Body and tail: crops N x 3 x 112 x 112 float RGB 0..255 -> embedding N x D, not normalised.

    Its length is kept because some networks say a face's quality by it; the runtime normalises.
    """

    def __init__(self, body: nn.Module, tail: nn.Module) -> None:
        super().__init__()
        self.body = body
        self.tail = tail

    def forward(self, crops: Tensor) -> Tensor:
        return cast(Tensor, self.tail(self.body(crops)[1]))


@dataclass(frozen=True)
class Layout:
    """A set of key names, the network they belong to, and the pixels that it learned from.

    `mean` and `std` are in units of 0..255 and in the order of `colour`. The embedding's size is the first
    dimension of the weight `size_key`.
    """

    origin: str
    build: Callable[[Weights, int], Whole]
    size_key: str
    colour: Colour = "RGB"
    mean: Sequence[float] = (127.5, 127.5, 127.5)
    std: Sequence[float] = (127.5, 127.5, 127.5)

    def pixels(self) -> str:
        """For the model's card and the console."""
        return f"{self.colour}, mean {', '.join(map(str, self.mean))}, std {', '.join(map(str, self.std))}"


def _mobilefacenet(weights: Weights, size: int) -> Whole:
    found = weights.get("conv_sep.layers.0.weight")
    scale = 2 if found is None or found.ndim != 4 else max(1, found.shape[1] // 128)
    return Whole(MobileFaceNet(scale), MobileFaceNetTail(size))


def _iresnet(layers: int) -> Callable[[Weights, int], Whole]:
    return lambda _, size: Whole(IResNet(UNITS[layers]), IResNetTail(size))


def _adaface(layers: int) -> Callable[[Weights, int], Whole]:
    return lambda _, size: Whole(AdaFaceIR(UNITS[layers]), AdaFaceTail(size))


LAYOUTS: dict[str, Layout] = {
    **{
        f"iresnet{layers}": Layout("insightface arcface_torch", _iresnet(layers), "fc.weight")
        for layers in UNITS
    },
    **{
        f"adaface-ir{layers + layers // 100}": Layout(
            "AdaFace", _adaface(layers), "output_layer.3.weight", colour="BGR"
        )
        for layers in UNITS
    },
    "mobilefacenet": Layout("insightface arcface_torch", _mobilefacenet, "features.layers.2.weight"),
    "mobilefacenet-foamliu": Layout(
        "foamliu/MobileFaceNet",
        lambda _, size: Whole(FoamliuMobileFaceNet(), FoamliuTail(size)),
        "conv3.weight",
        mean=(123.675, 116.28, 103.53),
        std=(58.395, 57.12, 57.375),
    ),
}
