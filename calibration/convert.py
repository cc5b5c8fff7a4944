"""From a model file and pictures to a smaller model file with its card: what `quantize` runs."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, helper

from calibration.equalise import equalise, turn_steep_slopes
from calibration.fp16 import to_fp16
from calibration.prepare import prepare
from calibration.quantize import Target, to_int8
from calibration.ranges import Range, channel_peaks, observe
from calibration.strata import CalibrationSet
from edge_fr.cards import read_card
from edge_fr.engine import CARD_KEY, ModelCard
from edge_fr.errors import CardError, ModelError
from edge_fr.image import letterbox

Smaller = Literal["fp16", "int8"]
_PEAK_PICTURES = 32  # of each stratum: channels' extremes need fewer pictures than a percentile of 99.99


def load(path: Path) -> tuple[ModelProto, ModelCard]:
    """A model file, prepared, and its card; ModelError for a file that is no FP32 model."""
    card = read_card(path)
    if card.precision != "fp32":
        raise CardError(f"{path} is {card.precision} already; give the fp32 file that it was made from")
    try:
        onnx.checker.check_model(str(path))  # from the file: it also refuses weights outside the folder
        model = onnx.load(path)
    except onnx.checker.ValidationError as error:
        raise ModelError(f"{path} is damaged or not an ONNX file ({error})") from error
    model = prepare(model)
    if len(model.graph.input) != 1:
        inputs = ", ".join(value.name for value in model.graph.input)
        raise ModelError(f"{path} has the inputs {inputs}, expected one: the picture")
    return model, card


def as_input(card: ModelCard) -> Callable[[NDArray[np.uint8]], NDArray[np.float32]]:
    """What makes the model's input of pictures (N, H, W, 3) uint8 BGR."""

    def of(pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
        size = (int(pictures.shape[1]), int(pictures.shape[2]))
        made = [
            letterbox(picture, size, colour=card.colour, input_range=card.input_range)[0]
            for picture in pictures
        ]
        return np.concatenate(made)

    return of


def fit_frames(frames: Collection[NDArray[np.uint8]], size: tuple[int, int]) -> list[NDArray[np.uint8]]:
    """Pictures of any size put into the top left of (height, width) `size`, the rest black, as the
    detector does it."""
    fitted = []
    for frame in frames:
        scale = min(1.0, size[0] / frame.shape[0], size[1] / frame.shape[1])
        height, width = max(1, round(frame.shape[0] * scale)), max(1, round(frame.shape[1] * scale))
        whole = np.zeros((*size, 3), np.uint8)
        whole[:height, :width] = cv2.resize(frame, (width, height), interpolation=cv2.INTER_LINEAR)
        fitted.append(whole)
    return fitted


def ready_for_int8(
    model: ModelProto, card: ModelCard, pictures: CalibrationSet
) -> tuple[ModelProto, dict[str, Range]]:
    """The prepared model with equalised channels, and its ranges: all that both flavours are made from."""
    level = levelled(model, card, pictures)
    return level, observe(level, pictures.batches(as_input(card)))


def levelled(model: ModelProto, card: ModelCard, pictures: CalibrationSet) -> ModelProto:
    """The same function with channels of one size each, so that 8 bits of one scale hold them all."""
    few = pictures.first(_PEAK_PICTURES).batches(as_input(card))
    return turn_steep_slopes(equalise(model, channel_peaks(model, few)))


def convert(
    model: ModelProto,
    card: ModelCard,
    pictures: CalibrationSet,
    *,
    precision: Smaller,
    target: Target,
    keep: Collection[str] = (),
) -> ModelProto:
    """The prepared model in a lower precision, with a card that names the calibration set.

    The card keeps `weights_digest`: it is the same training. Its name says what the file is for:
    `sface-fp16`, `sface-int8-tensorrt` or `sface-int8-cpu`.
    """
    if precision == "fp16":
        made = to_fp16(model, observe(model, pictures.batches(as_input(card))), keep)
    else:
        level, ranges = ready_for_int8(model, card, pictures)
        made = to_int8(level, ranges, target=target, keep=keep)
    return labelled(made, smaller_card(card, pictures, precision=precision, target=target))


def smaller_card(
    card: ModelCard, pictures: CalibrationSet, *, precision: Smaller, target: Target
) -> ModelCard:
    """The card of a model that was made from the card's, with nothing said of what it is worth."""
    suffix = precision if precision == "fp16" else f"{precision}-{target}"
    return replace(
        card,
        name=f"{card.name}-{suffix}",
        precision=precision,
        calibration_digest=pictures.digest,
        verdict=None,  # what was found of the original says nothing of this file
        report_digest=None,
        results={},
    )


def labelled(model: ModelProto, card: ModelCard) -> ModelProto:
    """The model, checked, with that card in it."""
    helper.set_model_props(model, {CARD_KEY: card.to_json()})
    onnx.checker.check_model(model, full_check=True)
    return model


def save(model: ModelProto, path: Path) -> None:
    """Writes the file, whole or not at all."""
    part = path.with_name(f".{path.name}.part")
    try:
        part.write_bytes(model.SerializeToString(deterministic=True))
        os.replace(part, path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise ModelError(f"{path} cannot be written ({error})") from error
