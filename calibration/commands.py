"""The commands that make a model smaller and compare two: their arguments and what they print."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from calibration.strata import FACES, FEWEST_FACES, FRAMES, CalibrationSet, Stratum, stratify, with_shares
from edge_fr.engine import ModelCard
from edge_fr.errors import InputError

if TYPE_CHECKING:
    from calibration.faces import Forbidden
    from edge_fr.detect import Detector

DEFAULT_COUNT = 1024
DEFAULT_DETECTOR = "yunet"
_FRAME_SIZE = (640, 640)


def add_quantize(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """python -m calibration quantize"""
    parser = commands.add_parser("quantize", help="write a model in fp16 or int8, calibrated on your faces")
    parser.add_argument("model", help="a model's name or an fp32 ONNX file with its card")
    parser.add_argument("--precision", choices=("fp16", "int8"), required=True)
    parser.add_argument(
        "--target",
        choices=("tensorrt", "cpu"),
        required=True,
        help="what will run it: TensorRT, or onnxruntime on a CPU (fp16 is the same for both)",
    )
    parser.add_argument("-o", "--out", type=Path, required=True, metavar="OUT.onnx")
    parser.add_argument(
        "--keep", metavar="LAYERS", help="names of layers to leave in floating point, with commas"
    )
    parser.add_argument(
        "--strata",
        metavar="NAME=SHARE,...",
        help="such as clean=0.7,masked=0.3, instead of the usual ones, if cameras see nothing else",
    )
    _add_pictures(parser)
    parser.set_defaults(command=_quantize)


def add_compare(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """python -m calibration compare"""
    parser = commands.add_parser("compare", help="how far a smaller recognizer's answers have moved")
    parser.add_argument("model", help="a recognizer's name or ONNX file")
    parser.add_argument("smaller", help="the one made from it")
    _add_pictures(parser)
    parser.set_defaults(command=_compare)


def add_court(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """python -m calibration court"""
    parser = commands.add_parser("court", help="write a recognizer in int8 with a verdict on it")
    parser.add_argument("model", help="a recognizer's name or an fp32 ONNX file with its card")
    parser.add_argument(
        "--target", choices=("tensorrt", "cpu"), required=True, help="what will run it, as in quantize"
    )
    parser.add_argument("-o", "--out", type=Path, required=True, metavar="OUT.onnx")
    parser.add_argument(
        "--report", type=Path, metavar="DIR", help="where OUT.court.json and .html go (beside OUT.onnx)"
    )
    parser.add_argument(
        "--dataset",
        metavar="FORM:PATH",
        help="labelled faces, for the change in TAR, as in evaluate; if they are no aligned crops, --aligned "
        "needs a --detector beside it",
    )
    parser.add_argument(
        "--conditions", metavar="NAMES", help="of the dataset, such as clean,px16,mask (those of evaluate)"
    )
    _add_pictures(parser)
    parser.set_defaults(command=_court)


def _add_pictures(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--faces", type=Path, required=True, metavar="DIR|VIDEO", help="pictures with faces")
    parser.add_argument("--aligned", action="store_true", help="the pictures are aligned crops of 112x112")
    parser.add_argument("--detector", metavar="MODEL", help=f"finds the faces ({DEFAULT_DETECTOR})")
    parser.add_argument(
        "--count", type=int, default=DEFAULT_COUNT, help="use at most so many faces (%(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0, help="which faces, and how degraded (%(default)s)")
    parser.add_argument(
        "--not-these",
        type=Path,
        metavar="DIR|CSV",
        help="pictures, or names and sha256:... in a list, that figures are measured on: an error if used",
    )
    parser.add_argument(
        "--size",
        type=_size,
        default=_FRAME_SIZE,
        metavar="HxW",
        help="for a detector: the size its pictures are fitted to (640x640)",
    )


def _original(arguments: argparse.Namespace) -> Path:
    """The model's file; InputError when the new one cannot be written, or would take its place."""
    from edge_fr.models import resolve

    if not arguments.out.parent.is_dir():
        raise InputError(f"-o {arguments.out}: there is no folder {arguments.out.parent}")
    path = resolve(arguments.model)
    if arguments.out.exists() and arguments.out.samefile(path):
        raise InputError(f"-o {arguments.out} is the model itself, which would be lost; name another file")
    return path


def _quantize(arguments: argparse.Namespace) -> None:
    from calibration.convert import convert, load, save
    from calibration.quantize import kept_by_rule

    path = _original(arguments)
    model, card = load(path)
    usual = _usual_strata(card)
    strata = usual if arguments.strata is None else with_shares(arguments.strata, usual)
    pictures = _pictures(arguments, card, strata)
    _say(", ".join(f"{name} {len(rows)}" for name, rows in pictures.strata.items()))
    keep = arguments.keep.split(",") if arguments.keep else []
    made = convert(model, card, pictures, precision=arguments.precision, target=arguments.target, keep=keep)
    save(made, arguments.out)
    if arguments.precision == "int8":
        for name, reason in kept_by_rule(model).items():
            _say(f"left in floating point: {name}, which {reason}")
    ratio = arguments.out.stat().st_size / path.stat().st_size
    print(f"{arguments.out}: {arguments.out.stat().st_size / 1e6:.1f} MB, {ratio:.2f} of {path.name}")


def _court(arguments: argparse.Namespace) -> None:
    from calibration.candidates import check_pairs
    from calibration.conditions import check
    from calibration.court_report import lines
    from calibration.datasets import open_dataset
    from calibration.try_int8 import try_int8

    path = _original(arguments)
    folder = arguments.report or arguments.out.parent
    if arguments.conditions and arguments.dataset is None:
        raise InputError("--conditions are those of a --dataset, and there is none")
    conditions = arguments.conditions.split(",") if arguments.conditions else []
    for condition in conditions:
        check(condition)
    dataset = None
    if arguments.dataset is not None:
        detects = arguments.detector is not None or not arguments.aligned
        dataset = open_dataset(arguments.dataset, _detector(arguments.detector) if detects else None)
        check_pairs(dataset)  # now: the work takes minutes
    report = try_int8(
        path,
        lambda: faces(arguments),
        arguments.out,
        folder,
        target=arguments.target,
        seed=arguments.seed,
        dataset=dataset,
        conditions=conditions,
        say=_say,
    )
    for line in lines(report):
        print(line)
    if dataset is not None and dataset.whole:
        _say(f"no face found in {len(dataset.whole)} pictures of {dataset.title}, which were taken whole")


def _compare(arguments: argparse.Namespace) -> None:
    from calibration.drift import drifts, lines
    from edge_fr.embed import Embedder
    from edge_fr.engine import open_engine
    from edge_fr.models import resolve

    # Unproven: to look at a model is how it is proven.
    before, after = (
        Embedder(open_engine(resolve(name), unproven=True)) for name in (arguments.model, arguments.smaller)
    )
    if before.card.weights_digest != after.card.weights_digest:
        _say(
            f"warning: {after.card.name} was not made from {before.card.name}: their weights are "
            f"{after.card.weights_digest} and {before.card.weights_digest}"
        )
    pictures = _pictures(arguments, before.card, FACES)
    if after.card.calibration_digest == pictures.digest:
        _say(f"warning: {after.card.name} was calibrated on these very pictures; give others, or a --seed")
    for line in lines(drifts(before, after, pictures.strata)):
        print(line)


def _usual_strata(card: ModelCard) -> dict[str, Stratum]:
    return FRAMES if card.task == "detect" else FACES


def _pictures(
    arguments: argparse.Namespace, card: ModelCard, strata: Mapping[str, Stratum]
) -> CalibrationSet:
    """The stratified set that the arguments ask for."""
    from calibration.convert import fit_frames
    from calibration.faces import gather_frames

    if card.task == "detect":
        frames = gather_frames(arguments.faces, _forbidden(arguments))
        chosen = np.random.default_rng(arguments.seed).permutation(len(frames))[: arguments.count]
        _warn_of_few(len(chosen), "pictures")
        return stratify(fit_frames([frames[i] for i in chosen], arguments.size), strata, seed=arguments.seed)
    crops, turned = faces(arguments)
    return stratify(crops, strata, seed=arguments.seed, turned=turned)


def _forbidden(arguments: argparse.Namespace) -> Forbidden | None:
    """What --not-these names; InputError for arguments that cannot be meant."""
    from calibration.faces import Forbidden

    if arguments.count < 1:
        raise InputError(f"--count is {arguments.count}, expected at least 1")
    if not arguments.faces.exists():
        raise InputError(f"--faces {arguments.faces}: there is no such folder or video")
    return None if arguments.not_these is None else Forbidden(arguments.not_these)


def faces(arguments: argparse.Namespace) -> tuple[list[NDArray[np.uint8]], NDArray[np.bool_]]:
    """The crops that the arguments ask for, in random order, and which faces are turned away."""
    from calibration.faces import gather_aligned, gather_faces
    from edge_fr.quality import QualityGate, QualityPolicy

    forbidden = _forbidden(arguments)
    if arguments.aligned:
        found = gather_aligned(arguments.faces, forbidden)
    else:
        detector = _detector(arguments.detector)
        found = gather_faces(arguments.faces, detector, QualityGate(QualityPolicy.without_index()), forbidden)
    if found.faceless:
        _say(f"no face found in {len(found.faceless)} pictures, such as {found.faceless[0]}")
    if found.refused:
        reasons = ", ".join(f"{name.replace('_', ' ')} {n}" for name, n in found.reasons.most_common())
        _say(f"warning: {found.refused} faces did not pass the quality gate and were left out: {reasons}")
    if not found.crops:
        raise InputError(f"{arguments.faces} gave no face that passes the quality gate")
    chosen = np.random.default_rng(arguments.seed).permutation(len(found.crops))[: arguments.count]
    _warn_of_few(len(chosen), "faces")
    return [found.crops[i] for i in chosen], np.array(found.turned, np.bool_)[chosen]


def _detector(name: str | None) -> Detector:
    """The detector of that name or file, or the usual one."""
    from edge_fr.detect import Detector
    from edge_fr.engine import open_engine
    from edge_fr.models import resolve

    return Detector(open_engine(resolve(name or DEFAULT_DETECTOR)))


def _warn_of_few(count: int, what: str) -> None:
    if count < FEWEST_FACES:
        _say(
            f"warning: {count} {what}, expected at least {FEWEST_FACES}: the ranges of a stratum "
            f"rest on a few of them"
        )


def _size(text: str) -> tuple[int, int]:
    height, _, width = text.partition("x")
    if not (
        height.isdecimal() and width.isdecimal() and int(height) % 32 == int(width) % 32 == 0 < int(height)
    ):
        raise argparse.ArgumentTypeError(f"{text!r}, expected HxW in multiples of 32, such as 480x640")
    return int(height), int(width)


def _say(line: str) -> None:
    print(line, file=sys.stderr)
