"""python -m calibration evaluate MODEL --dataset lfw:DIR --conditions clean,px16 [--json out.json]"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from edge_fr.errors import EdgeFrError


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m calibration", description="What a recognizer is worth.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    evaluate = commands.add_parser("evaluate", help="measure a recognizer on labelled pairs")
    evaluate.add_argument("model", help="a model's name or an ONNX file")
    evaluate.add_argument("--dataset", required=True, help="lfw:DIR or people:DIR")
    evaluate.add_argument("--conditions", default="clean,px8,px12,px16,px24,mask,mask+px24")
    evaluate.add_argument("--json", type=Path, metavar="OUT.json", help="also write the figures there")
    evaluate.add_argument("--draws", type=int, default=400, help="bootstrap draws (%(default)s)")
    evaluate.set_defaults(command=_evaluate)
    arguments = parser.parse_args()
    try:
        arguments.command(arguments)
    except EdgeFrError as error:
        print(f"calibration: {error}", file=sys.stderr)
        return 1
    return 0


def _evaluate(arguments: argparse.Namespace) -> None:
    from calibration.datasets import open_dataset
    from calibration.evaluate import evaluate
    from edge_fr.embed import Embedder
    from edge_fr.engine import open_engine
    from edge_fr.models import resolve

    dataset = open_dataset(arguments.dataset)
    embedder = Embedder(open_engine(resolve(arguments.model)))
    report = evaluate(dataset, embedder, arguments.conditions.split(","), draws=arguments.draws)
    for name, row in report["conditions"].items():
        figures = "  ".join(
            f"{key} {row[key]['value']:.4f} [{row[key]['interval'][0]:.4f}, {row[key]['interval'][1]:.4f}]"
            for key in ("tar_at_far_1e-2", "auc", "accuracy")
        )
        print(f"{name:<10} {figures}  rank-1 {row['identification'].get('rank1', float('nan')):.4f}")
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())
