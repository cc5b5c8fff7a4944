"""What each choice of INT8 calibration is worth to a recognizer: the figures of its worst stratum, on faces
that were not calibrated on, with one choice changed at a time.

python -m tests.bench.calibration recognizer --faces CROPS
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from onnx import ModelProto

from calibration.convert import as_input, labelled, levelled, load, save, smaller_card
from calibration.drift import Drift, drift
from calibration.faces import gather_aligned
from calibration.quantize import to_int8
from calibration.ranges import PERCENTILE, count, widest
from calibration.strata import FACES, CalibrationSet, in_every_stratum, stratify, with_shares
from edge_fr.embed import Embedder
from edge_fr.engine import open_engine
from edge_fr.models import resolve

Counted = Callable[[float], ModelProto]  # of a percentile


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("model", help="a recognizer's name or FP32 file")
    parser.add_argument("--faces", type=Path, required=True, help="a folder of aligned crops")
    parser.add_argument("--count", type=int, default=400, help="of faces to calibrate on (%(default)s)")
    parser.add_argument("--judged", type=int, default=100, help="of others, in every stratum (%(default)s)")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    crops = gather_aligned(arguments.faces, None).crops
    order = np.random.default_rng(0).permutation(len(crops))
    judged = in_every_stratum([crops[i] for i in order[: arguments.judged]], FACES)
    known = [crops[i] for i in order[arguments.judged :][: arguments.count]]
    path = resolve(arguments.model)
    model, card = load(path)
    original = Embedder(open_engine(path))
    before = {name: original.embed(faces) for name, faces in judged.strata.items()}

    def counted(pictures: CalibrationSet, *, level: bool = True) -> Counted:
        made = levelled(model, card, pictures) if level else model
        histograms = count(made, pictures.batches(as_input(card)))
        return lambda percentile: to_int8(made, widest(histograms, percentile=percentile), target="cpu")

    def judge(made: ModelProto) -> list[Drift]:
        with TemporaryDirectory() as folder:
            file = Path(folder) / "int8.onnx"
            save(labelled(made, smaller_card(card, judged, precision="int8", target="cpu")), file)
            smaller = Embedder(open_engine(file, unproven=True))
        return [drift(before[name], smaller.embed(faces)) for name, faces in judged.strata.items()]

    usual = counted(stratify(known, FACES))
    choices: dict[str, Callable[[], ModelProto]] = {
        "as it is": lambda: usual(PERCENTILE),
        "clean faces only": lambda: counted(stratify(known, with_shares("clean=1", FACES)))(PERCENTILE),
        "a tenth of the faces": lambda: counted(stratify(known[::10], FACES))(PERCENTILE),
        "percentile 99.9": lambda: usual(99.9),
        "the extremes": lambda: usual(100.0),
        "channels not equalised": lambda: counted(stratify(known, FACES), level=False)(PERCENTILE),
    }
    rows = []
    for name, make in choices.items():
        found = judge(make())
        rows.append(
            {
                "choice": name,
                "mean_cosine": round(min(d.mean_cosine for d in found), 4),
                "p1_cosine": round(min(d.p1_cosine for d in found), 4),
                "ri_spearman": round(
                    min((d.ri_spearman for d in found if d.ri_spearman is not None), default=1), 4
                ),
            }
        )
        if not arguments.json:
            print("  ".join(f"{key} {value}" for key, value in rows[-1].items()), flush=True)
    if arguments.json:
        print(json.dumps({"model": card.name, "faces": len(known), "judged": arguments.judged, "rows": rows}))


if __name__ == "__main__":
    main()
