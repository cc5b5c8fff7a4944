"""python -m export train --config export/configs/recognizer.yaml --data DIR"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from edge_fr.errors import EdgeFrError
from export.training.config import read_config
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
    options = parser.parse_args(arguments)
    cache = Path(os.environ.get("EDGE_FR_CACHE", "~/.cache/edge-fr")).expanduser() / "training"
    try:
        config = read_config(options.config)
        out = options.out or cache / "runs" / config.name
        print(train(config, data=options.data, out=out, cache=cache, stop_at=options.stop_at))
    except EdgeFrError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
