"""What an engine of TensorRT for RTX is made of. It holds the source of its kernels as text, to compile them
where it runs: some 140 kB each, and an INT8 network has more of them.

python -m tests.bench.plans recognizer recognizer.fp16.onnx recognizer.int8.onnx
"""

from __future__ import annotations

import argparse
import json
import lzma
import re
from pathlib import Path
from tempfile import TemporaryDirectory

from edge_fr.build import build
from edge_fr.models import resolve

_TEXT = re.compile(rb"[\t\n\r\x20-\x7e]{200,}")  # weights do not happen to be 200 printable bytes


def kernel_sources(plan: bytes) -> list[int]:
    """The lengths of the texts in the plan."""
    return [len(found.group()) for found in _TEXT.finditer(plan)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument(
        "models", nargs="+", help="names or ONNX files; the first is what the others are parts of"
    )
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    rows: list[dict[str, object]] = []
    first: dict[str, int] = {}
    for name in arguments.models:
        source = resolve(name)
        with TemporaryDirectory() as folder:
            engine = Path(folder) / "it.engine"
            card = build(source, engine, library="tensorrt_rtx", unproven=True).passport.card
            plan = engine.read_bytes()
        sizes = {
            "onnx": source.stat().st_size,
            "plan": len(plan),
            "packed": len(lzma.compress(plan, preset=1)),
            "weights": len(plan) - sum(kernel_sources(plan)),
        }
        first = first or sizes
        parts = {f"{key}_part": round(size / first[key], 3) for key, size in sizes.items()}
        rows.append({"model": card.name, "precision": card.precision, **sizes, **parts})
        if not arguments.json:
            told = "  ".join(
                f"{key} {size / 1e6:.2f} MB ({parts[f'{key}_part']})" for key, size in sizes.items()
            )
            print(f"{card.name} {card.precision}: {told}", flush=True)
    if arguments.json:
        print(json.dumps(rows))


if __name__ == "__main__":
    main()
