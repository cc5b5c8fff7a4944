"""python -m export train --config export/configs/recognizer.yaml --data DIR, then python -m export onnx."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

from edge_fr.errors import EdgeFrError
from export.to_onnx import write
from export.training.config import read_config
from export.training.findings import findings
from export.training.trainer import train


def main(arguments: list[str] | None = None) -> int:
    """Runs one command; an error of ours is printed in one line and answers 1."""
    parser = argparse.ArgumentParser(prog="python -m export", description="From a paper to an ONNX file.")
    commands = parser.add_subparsers(dest="command", required=True)
    training = commands.add_parser("train", help="train, or go on with, the run of a config")
    training.add_argument("--config", type=Path, required=True)
    training.add_argument("--data", type=Path, required=True, help="folder that the config's sources lie in")
    training.add_argument("--out", type=Path, help="folder of the run; default: runs/<name> in the cache")
    training.add_argument("--stop-at", type=int, help="stop after this step, to go on later")
    writing = commands.add_parser("onnx", help="write a finished run as ONNX files with model cards")
    writing.add_argument("--run", type=Path, required=True, help="folder of the run")
    writing.add_argument("--out", type=Path, required=True, help="folder for the files")
    writing.add_argument("--visibility", action="store_true", help="with the map of the visible face")
    finding = commands.add_parser("findings", help="what the parts of a finished run do, as JSON")
    finding.add_argument("--run", type=Path, required=True, help="folder of the run")
    finding.add_argument("--data", type=Path, required=True, help="folder that the config's sources lie in")
    finding.add_argument("--masked", type=Path, help="photographs of people in real masks")
    options = parser.parse_args(arguments)
    cache = Path(os.environ.get("EDGE_FR_CACHE", "~/.cache/edge-fr")).expanduser() / "training"
    try:
        if options.command == "onnx":
            for path in write(options.run, options.out, visibility=options.visibility):
                print(path)
            return 0
        if options.command == "findings":
            print(json.dumps(findings(options.run, options.data, cache, masked=options.masked), indent=1))
            return 0
        config = read_config(options.config)
        out = options.out or cache / "runs" / config.name
        print(train(config, data=options.data, out=out, cache=cache, stop_at=options.stop_at))
    except EdgeFrError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
