"""python -m calibration evaluate MODEL [MODEL ...] --dataset lfw:DIR [--json OUT.json] [--plots DIR]
python -m calibration quantize MODEL --faces DIR|VIDEO --target tensorrt|cpu --precision fp16|int8 -o OUT.onnx
python -m calibration court MODEL --faces DIR|VIDEO --target tensorrt|cpu -o OUT.onnx [--report DIR]
python -m calibration compare MODEL SMALLER --faces DIR|VIDEO
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from calibration.commands import add_compare, add_court, add_quantize
from edge_fr.errors import EdgeFrError, InputError


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m calibration", description="What a model is worth, and smaller ones."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    evaluate = commands.add_parser("evaluate", help="measure recognizers on labelled pictures")
    evaluate.add_argument(
        "models",
        nargs="+",
        metavar="MODEL",
        help="a model's name or an ONNX file; of several, the first is what the others are compared with",
    )
    evaluate.add_argument(
        "--dataset",
        required=True,
        metavar="FORM:PATH",
        help="lfw:DIR, people:DIR, bin:FILE (insightface), tinyface:DIR, survface:DIR, scface:DIR or ijb:DIR",
    )
    evaluate.add_argument(
        "--conditions",
        metavar="NAMES",
        help="such as clean,px16,mask+px24; without it what the dataset is usually reported under",
    )
    evaluate.add_argument(
        "--detector",
        metavar="MODEL",
        help="such as yunet: aligns pictures that are no aligned crops, and is judged as a quality score",
    )
    evaluate.add_argument("--json", type=Path, metavar="OUT.json", help="also write the figures there")
    evaluate.add_argument("--plots", type=Path, metavar="DIR", help="draw the curves into this folder")
    evaluate.add_argument(
        "--record",
        metavar="DATASET",
        help="put the last model's TAR and AUC into its card, under this name of the data",
    )
    evaluate.add_argument("--draws", type=int, default=400, help="bootstrap draws (%(default)s)")
    evaluate.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="%(default)s")
    evaluate.add_argument(
        "--unproven", action="store_true", help="also int8 files that have no passing verdict"
    )
    evaluate.set_defaults(command=_evaluate)
    add_quantize(commands)
    add_court(commands)
    add_compare(commands)
    parsed = parser.parse_args(arguments)
    try:
        parsed.command(parsed)
    except EdgeFrError as error:
        print(f"calibration: {error}", file=sys.stderr)
        return 1
    return 0


def _evaluate(arguments: argparse.Namespace) -> None:
    from calibration.cards import change_card, own_file
    from calibration.conditions import check
    from calibration.datasets import open_dataset
    from calibration.evaluate import embeddings_needed, evaluate
    from calibration.report import headlines, lines, to_json
    from edge_fr.cards import read_card
    from edge_fr.detect import Detector
    from edge_fr.embed import Embedder
    from edge_fr.engine import open_engine
    from edge_fr.models import resolve
    from edge_fr.progress import Progress

    if arguments.json is not None and not arguments.json.parent.is_dir():
        raise InputError(f"--json {arguments.json}: there is no folder {arguments.json.parent}")
    if arguments.json is not None and arguments.json.is_dir():
        raise InputError(f"--json {arguments.json} is a folder, expected a file to write")
    if arguments.plots is not None:
        if arguments.plots.exists() and not arguments.plots.is_dir():
            raise InputError(f"--plots {arguments.plots} is a file, expected a folder to write into")
        from calibration.plots import draw  # before the work: matplotlib may be missing
    if arguments.record is not None:
        own_file(arguments.models[-1])
    device = arguments.device
    detector = None
    if arguments.detector is not None:
        # A low threshold, so that a score of little confidence counts as one.
        detector = Detector(open_engine(resolve(arguments.detector), device=device), score_threshold=0.05)
    embedders = [
        Embedder(open_engine(resolve(model), device=device, unproven=arguments.unproven))
        for model in arguments.models
    ]
    dataset = open_dataset(arguments.dataset, detector)
    if arguments.record is not None and dataset.pairs is None:
        raise InputError(
            f"--record {arguments.record}: {dataset.title} has no pairs, whose TAR and AUC a card takes; "
            f"leave --record out, or give a --dataset with pairs: lfw:DIR, people:DIR, bin:FILE or ijb:DIR"
        )
    conditions = arguments.conditions.split(",") if arguments.conditions else dataset.conditions
    for condition in conditions:
        check(condition)
    total = embeddings_needed(dataset, conditions) * len(embedders)
    with Progress(total, "embedding") as progress:
        recognitions = evaluate(
            dataset,
            embedders,
            conditions,
            detector=detector,
            draws=arguments.draws,
            advance=progress.advance,
        )
    for line in lines(dataset, recognitions):
        print(line)
    if dataset.whole:
        print(f"no face found in {len(dataset.whole)} pictures, which were taken whole", file=sys.stderr)
    if arguments.json is not None:
        report = to_json(dataset, recognitions, None if detector is None else detector.card)
        arguments.json.write_text(json.dumps(report, indent=1) + "\n")
    if arguments.record is not None:
        path = own_file(arguments.models[-1])
        results = {**read_card(path).results, **headlines(arguments.record, recognitions[-1])}
        change_card(path, results=results)
    if arguments.plots is not None:
        for path in draw(dataset, recognitions, arguments.plots):
            print(f"wrote {path}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
