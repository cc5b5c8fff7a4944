"""python -m export train --config export/configs/recognizer.yaml --data DIR
python -m export onnx RECOGNIZER --weights FILE -o face.onnx --name N --licence L --training-data T
python -m export verify face.onnx --against FILE [--engine face.engine] [--faces DIR]
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from edge_fr._files import cache_folder
from edge_fr.errors import EdgeFrError, InputError
from export.networks.published import LAYOUTS
from export.to_onnx import Origin, write_published, write_run
from export.training.config import read_config
from export.training.findings import findings
from export.training.trainer import train
from export.verify import verify
from export.weights import read_checkpoint

RUN = "recognizer"  # what `train` trains; the others are in LAYOUTS


def main(arguments: list[str] | None = None) -> int:
    """Runs one command; an error of ours is printed in one line and answers 1, as a failed `verify` does."""
    parser = argparse.ArgumentParser(prog="python -m export", description="From a paper to an ONNX file.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_train(commands)
    _add_onnx(commands)
    _add_verify(commands)
    _add_findings(commands)
    options = parser.parse_args(arguments)
    try:
        return int(options.command(options))
    except EdgeFrError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def _add_train(commands: Any) -> None:
    parser = commands.add_parser("train", help="train, or go on with, the run of a config")
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True, help="folder that the config's sources lie in")
    parser.add_argument("--out", type=Path, help="folder of the run; default: runs/<name> in the cache")
    parser.add_argument("--stop-at", type=int, help="stop after this step, to go on later")
    parser.set_defaults(command=_train)


def _train(options: argparse.Namespace) -> int:
    config = read_config(options.config)
    out = options.out or _cache() / "runs" / config.name
    weights = train(config, data=options.data, out=out, cache=_cache(), stop_at=options.stop_at)
    print(weights if weights.is_file() else f"{out}: stopped; the same command goes on with it")
    return 0


def _add_onnx(commands: Any) -> None:
    parser = commands.add_parser("onnx", help="write weights as an ONNX file with a model card")
    parser.add_argument(
        "recognizer",
        choices=[RUN, *LAYOUTS],
        metavar="RECOGNIZER",
        help=f"whose weights they are: {RUN} (of `train`; writes its gate too), {', '.join(LAYOUTS)}",
    )
    parser.add_argument(
        "--weights", type=Path, required=True, help="checkpoint of torch.save, or the folder of a run"
    )
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FILE.onnx")
    parser.add_argument("--name", required=True, help="the model's, for its card")
    parser.add_argument("--licence", required=True, help="of the weights")
    parser.add_argument("--training-data", required=True, help="what the weights learned from")
    parser.add_argument("--known-failures", default="", help="where not to trust the model, for its card")
    parser.add_argument("--visibility", action="store_true", help=f"{RUN}: with the map of the visible face")
    _add_pixels(parser)
    parser.set_defaults(command=_onnx)


def _onnx(options: argparse.Namespace) -> int:
    if options.output.suffix != ".onnx":
        raise InputError(f"the output is {options.output}, expected a name that ends with .onnx")
    options.output.parent.mkdir(parents=True, exist_ok=True)
    origin = Origin(options.name, options.licence, options.training_data, options.known_failures)
    pixels = _pixels(options)
    if options.recognizer == RUN:
        if pixels:
            raise InputError(f"{RUN} has its pixels' mean and order in it; leave out {', '.join(pixels)}")
        for path in write_run(options.weights, options.output, origin, visibility=options.visibility):
            print(path)
        return 0
    if options.visibility:
        raise InputError(f"only {RUN} has a map of the visible face; leave out --visibility")
    checkpoint = read_checkpoint(options.weights)
    layout = replace(LAYOUTS[options.recognizer], **pixels)
    print(f"pixels as {options.recognizer} learned them: {layout.pixels()}", file=sys.stderr)
    print(write_published(options.recognizer, layout, checkpoint, options.output, origin))
    return 0


def _add_verify(commands: Any) -> None:
    parser = commands.add_parser("verify", help="compare an ONNX file, and its engine, with their network")
    parser.add_argument("model", type=Path, metavar="FILE.onnx")
    parser.add_argument(
        "--against", type=Path, required=True, metavar="WEIGHTS", help="what it was written from"
    )
    parser.add_argument("--engine", type=Path, help="the TensorRT engine built from it; needs a GPU")
    parser.add_argument(
        "--faces", type=Path, metavar="DIR", help="photographs to compare on; else drawn crops"
    )
    parser.add_argument("--json", action="store_true", help="figures for programs instead of the table")
    _add_pixels(parser)
    parser.set_defaults(command=_verify)


def _verify(options: argparse.Namespace) -> int:
    report = verify(
        options.model,
        options.against,
        engine=options.engine,
        faces=options.faces,
        pixels=_pixels(options),
    )
    print(report.to_json() if options.json else "\n".join(report.lines()))
    return 0 if report.passed else 1


def _add_findings(commands: Any) -> None:
    parser = commands.add_parser("findings", help="what the parts of a finished run do, as JSON")
    parser.add_argument("--run", type=Path, required=True, help="folder of the run")
    parser.add_argument("--data", type=Path, required=True, help="folder that the config's sources lie in")
    parser.add_argument("--masked", type=Path, help="photographs of people in real masks")
    parser.set_defaults(command=_findings)


def _findings(options: argparse.Namespace) -> int:
    print(json.dumps(findings(options.run, options.data, _cache(), masked=options.masked), indent=1))
    return 0


def _add_pixels(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("weights that learned from other pixels than their authors' did")
    group.add_argument("--colour", choices=("RGB", "BGR"), help="the order of the channels")
    for name in ("mean", "std"):
        group.add_argument(
            f"--{name}", type=float, nargs=3, metavar="X", help="of each channel, of values in 0..255"
        )


def _pixels(options: argparse.Namespace) -> dict[str, Any]:
    given = {name: getattr(options, name) for name in ("colour", "mean", "std")}
    if options.std is not None and min(options.std) <= 0:
        raise InputError(f"--std is {options.std}, expected three numbers above 0, such as 127.5 127.5 127.5")
    return {name: value for name, value in given.items() if value is not None}


def _cache() -> Path:
    return cache_folder() / "training"


if __name__ == "__main__":
    sys.exit(main())
