"""FP32 against INT8 on onnxruntime: both files in turns within one run, so that what else the machine does
falls on both.

python -m tests.bench.int8 face.onnx face.int8.onnx --json
python -m tests.bench.int8 yunet yunet.int8.onnx --size 640x640
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np

from edge_fr.cards import read_card
from edge_fr.engine import Engine, open_engine
from edge_fr.models import resolve


def race(engines: dict[str, Engine], shape: tuple[int, ...], runs: int) -> dict[str, float]:
    """Median milliseconds of a call by engine, on a picture of noise of that shape."""
    x = np.random.default_rng(0).uniform(0, 255, shape).astype(np.float32)
    times: dict[str, list[float]] = {name: [] for name in engines}
    for _ in range(runs + 1):  # the first call of each is not counted
        for name, engine in engines.items():
            begin = time.perf_counter()
            engine.infer({engine.inputs[0].name: x})
            times[name].append(time.perf_counter() - begin)
    return {name: 1e3 * float(np.median(found[1:])) for name, found in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("fp32", help="a model's name or file")
    parser.add_argument("int8", type=Path, help="made from it with --target cpu --precision int8")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--runs", type=int, default=50)
    parser.add_argument("--size", default="112x112", help="of the pictures (%(default)s)")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    height, width = (int(side) for side in arguments.size.split("x"))
    rows = []
    for threads in arguments.threads:
        engines = {
            "fp32": open_engine(resolve(arguments.fp32), threads=threads),
            "int8": open_engine(arguments.int8, threads=threads, unproven=True),
        }
        for batch in arguments.batches:
            times = race(engines, (batch, 3, height, width), arguments.runs)
            row = {"threads": threads, "batch": batch, **{f"{n}_ms": round(t, 2) for n, t in times.items()}}
            rows.append({**row, "ratio": round(times["fp32"] / times["int8"], 2)})
    names = {
        "fp32": read_card(resolve(arguments.fp32)).name,
        "int8": read_card(arguments.int8).name,
    }
    if arguments.json:
        print(json.dumps({"models": names, "runs": arguments.runs, "size": arguments.size, "rows": rows}))
        return
    print(f"{names['fp32']} against {names['int8']}, {arguments.size}, median ms of {arguments.runs} calls")
    for row in rows:
        print(
            f"threads {row['threads']}  batch {row['batch']}: fp32 {row['fp32_ms']:8.2f}  "
            f"int8 {row['int8_ms']:8.2f}  {row['ratio']:.2f} times as fast"
        )


if __name__ == "__main__":
    main()
